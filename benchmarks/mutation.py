"""Do fdl's own tests notice a wrong backward? A fault in every equation of every hand-written backward, one at a time.

Claim: the common test of the algebra (every cotangent against JAX's derivative of the equation, in float64, within 1e-10)
kills every mutant that changes the gradient at all.

    python -m benchmarks mutation [--full]

Method: `fdl.check.mutants` over the table of concepts that drives the common tests; arguments are the table's. A mutant
that changes nothing at these arguments and near them guards a case that they do not reach; it is counted, not judged, and is
what the tables of limits test. The default takes every sixth concept, --full all of them with all the
options of the table (about half an hour on 2 cores).

Result: killed, survived and equivalent mutants of each concept. The exit code is 1 if one survives.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks._harness import Row, Settings

DRAWS = 4


def run(settings: Settings) -> list[Row]:
    import jax
    import jax.numpy as jnp

    from fdl.check import mutants
    from tests.check.test_mutants import agrees
    from tests.concepts import CONCEPTS

    jax.config.update("jax_enable_x64", True)
    rows = []
    for concept, options in chosen(CONCEPTS, settings.full):
        name = f"{concept.name} {options}" if options else concept.name
        print(f"\r{name:80.80s}", end="", file=sys.stderr, flush=True)
        # the common tests draw anew for every test and option
        draws = [concept.arguments(jax.random.key(seed), jnp.float32) for seed in range(DRAWS)]
        report = mutants(concept.op, *draws[0], options=options, test=agrees(*draws))
        counts = f"{len(report.killed)} killed, {len(report.survivors)} survive, {len(report.equivalent)} equivalent"
        status = "unequal" if report.survivors else "equal"
        note = "; ".join(map(str, report.survivors)) or counts
        rows.append(Row("mutants", "mutant", f"{name}: {counts}", "fdl", status, note))
    print(file=sys.stderr)
    return rows


def chosen(concepts: Sequence[Any], full: bool) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(concept, options): every concept with all its options, or every sixth with its first."""
    for concept in concepts if full else concepts[::6]:
        for options in concept.options if full else concept.options[:1]:
            yield concept, options
