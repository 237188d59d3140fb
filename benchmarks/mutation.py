"""Do fdl's own tests notice a wrong backward? A fault in every equation of every hand-written backward, one at a time.

Claim: the common test of the algebra (every cotangent against JAX's derivative of the equation, in float64, within 1e-10)
kills every mutant that changes the gradient at all.

    python -m benchmarks mutation [--full]

Method: `fdl.check.mutants` over the table of concepts that drives the common tests; arguments are the table's. A mutant
that changes nothing at these arguments and near them guards a case that they do not reach; it is counted, not judged, and is
what the tables of limits test. The default takes every sixth concept, --full all of them (about ten minutes on 2 cores).

Result: killed, survived and equivalent mutants of each concept. The exit code is 1 if one survives.
"""

import sys

from benchmarks._harness import Row, Settings


def run(settings: Settings) -> list[Row]:
    import jax
    import jax.numpy as jnp

    from fdl.check import mutants
    from tests.check.test_mutants import agrees
    from tests.concepts import CONCEPTS

    jax.config.update("jax_enable_x64", True)
    rows = []
    for concept in CONCEPTS if settings.full else CONCEPTS[::6]:
        print(f"\r{concept.name:60s}", end="", file=sys.stderr, flush=True)
        args = concept.arguments(jax.random.key(0), jnp.float32)
        report = mutants(concept.op, *args, options=concept.options[0], test=agrees(args))
        counts = f"{len(report.killed)} killed, {len(report.survivors)} survive, {len(report.equivalent)} equivalent"
        status = "unequal" if report.survivors else "equal"
        note = "; ".join(map(str, report.survivors)) or counts
        rows.append(Row("mutants", "mutant", f"{concept.name}: {counts}", "fdl", status, note))
    print(file=sys.stderr)
    return rows
