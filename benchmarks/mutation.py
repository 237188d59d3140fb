"""Do fdl's own tests notice a wrong backward? A fault in every equation of every hand-written backward, one at a time.

Claim: the common test of the algebra (every cotangent against JAX's derivative of the equation, in float64, within 1e-10)
kills every mutant that changes the gradient at all.

    python -m benchmarks mutation [--full]
    python -m benchmarks.mutation [--full] [--kept FILE] [--seconds S]

Method: `fdl.check.mutants` over the table of concepts that drives the common tests; arguments are the table's. A mutant
that changes nothing at these arguments and near them guards a case that they do not reach; it is counted, not judged, and is
what the tables of limits test. All mutants of a backward are one compiled program, and the truth at a draw is computed once.
The default takes every sixth concept, --full all of them with all the options of the table (12,009 mutants of 155 sets of
options in 3 minutes on 2 cores: all killed). The second form keeps every
finished concept in FILE (JSON lines), goes on from there, and stops before a concept that S seconds leave no time for.

Result: killed, survived and equivalent mutants of each concept. The exit code is 1 if one survives.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._harness import Row, Settings, judged

DRAWS = 4


class Counted(NamedTuple):
    """What became of the mutants of one concept with one set of options."""

    name: str
    killed: int
    equivalent: int
    survivors: list[str]
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.killed} killed, {len(self.survivors)} survive, {self.equivalent} equivalent, {self.seconds:.1f} s"
        )


def run(settings: Settings) -> list[Row]:
    """A row for all concepts together, and one for each in which a mutant survived."""
    everything = list(count(settings.full))
    together = Counted(
        f"{len(everything)} backward passes",
        sum(counted.killed for counted in everything),
        sum(counted.equivalent for counted in everything),
        [survivor for counted in everything for survivor in counted.survivors],
        sum(counted.seconds for counted in everything),
    )
    return [row_of(together), *(row_of(counted) for counted in everything if counted.survivors)]


def row_of(counted: Counted) -> Row:
    note = "; ".join(counted.survivors) or str(counted)
    made = counted.killed + len(counted.survivors)
    measured = f"{counted.killed} of {made} killed"
    row = judged(f"mutants of {counted.name}", measured, not counted.survivors, "all killed", unit="mutant", note=note)
    row.figures = {"killed": counted.killed, "made": made, "equivalent": counted.equivalent}
    return row


def count(full: bool, known: Sequence[str] = ()) -> Iterator[Counted]:
    """Every concept but those known by name."""
    import jax
    import jax.numpy as jnp

    from fdl.check import mutants
    from tests.check.test_mutants import agrees
    from tests.concepts import CONCEPTS

    jax.config.update("jax_enable_x64", True)
    for name, concept, options in chosen(CONCEPTS, full):
        if name in known:
            continue
        print(f"\r{name:80.80s}", end="", file=sys.stderr, flush=True)
        start = time.perf_counter()
        # the common tests draw anew for every test and option
        draws = [concept.arguments(jax.random.key(seed), jnp.float32) for seed in range(DRAWS)]
        report = mutants(concept.op, *draws[0], options=options, test=agrees(*draws))
        seconds = time.perf_counter() - start
        yield Counted(name, len(report.killed), len(report.equivalent), [str(m) for m in report.survivors], seconds)
    print(file=sys.stderr)


def chosen(concepts: Sequence[Any], full: bool) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, concept, options): every concept with all its options, or every sixth with its first. Names are unique."""
    seen: dict[str, int] = {}
    for concept in concepts if full else concepts[::6]:
        for options in concept.options if full else concept.options[:1]:
            # an address in memory is another one the next time
            name = re.sub(r" at 0x[0-9a-f]+", "", f"{concept.name} {options}") if options else concept.name
            seen[name] = seen.get(name, 0) + 1
            yield name if seen[name] == 1 else f"{name} ({seen[name]})", concept, options


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mutation", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--full", action="store_true", help="all concepts, with all their options")
    parser.add_argument("--kept", type=Path, metavar="FILE", help="where finished concepts are kept")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="start no concept after this")
    given = parser.parse_args(arguments)
    lines = given.kept.read_text(encoding="utf-8").splitlines() if given.kept and given.kept.exists() else []
    everything = [Counted(*json.loads(line)) for line in lines]
    start, finished = time.perf_counter(), True
    for counted in count(given.full, [counted.name for counted in everything]):
        everything.append(counted)
        if given.kept:
            with given.kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(counted) + "\n")
        if time.perf_counter() - start > given.seconds:
            finished = False
            break
    for counted in everything:
        print(f"{counted.name}: {counted}", *(f"\n  {survivor}" for survivor in counted.survivors), sep="")
    killed, survivors = sum(c.killed for c in everything), sum(len(c.survivors) for c in everything)
    print(f"{len(everything)} concepts: {killed} of {killed + survivors} mutants killed")
    if not finished:
        print("not all of them: run it again with the same --kept")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
