"""Gradient checkers on a zoo of backward passes, wrong and right: fdl against check_grads, chex and gradcheck.

Claim: fdl convicts every wrong backward pass of the zoo and no right one; each of the other tools misses some.

    python -m benchmarks checkers [--full]
    python -m benchmarks.checkers [--full] [--only TEXT] [--markdown FILE]

Method: every case of `benchmarks.zoo` is handed to every tool as its documentation says, with its defaults: fdl.check with
the equation as reference, quick and default modes; jax.test_util.check_grads(order=1, modes=["rev"]) and
chex.assert_numerical_grads (the same) in the arguments' own precision; torch.autograd.gradcheck, slow and fast, in float64,
where it asks to be used: the same JAX function and its backward pass behind a torch.autograd.Function. These tools take
floating arrays alone: they get the leaves as positional arguments, and the others closed over. Accepting a wrong case is a
miss, refusing a right one a false alarm, and anything raised but the tool's own verdict "could not run". A wrong case is named
rightly if the first diagnosis, or where there is none the first message, says what was planted (`Case.is_named_by`); only fdl
gives any. Every tool runs in a process of its own, after one call that warms it up; times are per case, compilation included.

Result: the detection matrix, by family and by what is wrong. By default a part of the zoo, about 3 minutes on 2 cores; with
--full all of it, with three keys that draw the arguments and what a tool draws. The exit code is 1 if fdl passes a wrong
case or convicts a right one.
"""

# pyright: reportMissingImports=false
# (PyTorch is optional)

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._harness import Row, Settings, Trial, missing, result_of

PART = 9  # one case of so many without --full
KEYS = 3
CASES_PER_PROCESS = 60  # so that it answers within the harness's patience

RIGHT, WRONG, UNDECIDED, FAILED = "right", "wrong", "undecided", "could not run"


class Answer(NamedTuple):
    case: str
    seed: int
    verdict: str
    seconds: float
    note: str = ""
    named: bool = False  # what is wrong was said, and rightly


# ---- the tools: a case and its arguments in, a verdict, a note and what is said first of the cause out


def fdl(modes: str) -> Callable[..., tuple[str, ...]]:
    from fdl.check import gradients

    def ask(case, args, seed):
        report = gradients(case.candidate, *args, reference=case.reference, modes=modes, key=seed)
        said = [f.diagnosis for f in report.failures] + [f.message for f in report.failures]
        return report.verdict, report.sentence, next(filter(None, said), "")

    return ask


def floating(case, args):
    """The case as a function of its floating leaves that are not empty, and these."""
    import jax
    import jax.numpy as jnp

    leaves, structure = jax.tree.flatten(args)
    active = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating) and x.size]

    def function(*given):
        rest = list(leaves)
        for i, x in zip(active, given, strict=True):
            rest[i] = x
        return case.candidate(*jax.tree.unflatten(structure, rest))

    return function, tuple(leaves[i] for i in active)


def check_grads() -> Callable[..., tuple[str, ...]]:
    from jax.test_util import check_grads

    def ask(case, args, seed):
        function, active = floating(case, args)
        try:
            check_grads(function, active, order=1, modes=["rev"])
        except AssertionError as error:
            return WRONG, brief(error)
        return RIGHT, ""

    return ask


def chex() -> Callable[..., tuple[str, ...]]:
    import chex

    def ask(case, args, seed):
        function, active = floating(case, args)
        try:
            chex.assert_numerical_grads(function, active, order=1, modes=["rev"])
        except AssertionError as error:
            return WRONG, brief(error)
        return RIGHT, ""

    return ask


def gradcheck(fast: bool) -> Callable[..., tuple[str, ...]]:
    import jax
    import jax.numpy as jnp
    import torch
    from torch.autograd.gradcheck import GradcheckError

    def widened(x):
        return x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def ask(case, args, seed):
        with jax.enable_x64(True):
            function, active = floating(case, jax.tree.map(widened, args))
            value = jax.jit(lambda *xs: jax.tree.leaves(function(*xs)))
            pull = jax.jit(lambda xs, gs: jax.vjp(lambda *xs: jax.tree.leaves(function(*xs)), *xs)[1](gs))

            class Ported(torch.autograd.Function):
                @staticmethod
                def forward(ctx: Any, *xs: Any) -> Any:
                    ctx.save_for_backward(*xs)
                    ys = value(*(x.detach().numpy() for x in xs))
                    first, *others = (torch.tensor(np.asarray(y)) for y in ys)
                    return (first, *others) if others else first

                @staticmethod
                def backward(ctx: Any, *gs: Any) -> Any:
                    xs = [x.detach().numpy() for x in ctx.saved_tensors]
                    return tuple(torch.tensor(np.asarray(d)) for d in pull(xs, [g.numpy() for g in gs]))

            given = tuple(torch.tensor(np.asarray(x), requires_grad=True) for x in active)
            try:
                torch.autograd.gradcheck(Ported.apply, given, fast_mode=fast)
            except GradcheckError as error:
                return WRONG, brief(error)
            return RIGHT, ""

    return ask


class Tool(NamedTuple):
    make: Callable[[], Callable[..., tuple[str, ...]]]
    requires: tuple[str, ...] = ()


TOOLS = {
    "fdl quick": Tool(lambda: fdl("quick")),
    "fdl default": Tool(lambda: fdl("default")),
    "check_grads": Tool(check_grads),
    "chex": Tool(chex, ("chex",)),
    "gradcheck": Tool(lambda: gradcheck(fast=False), ("torch",)),
    "gradcheck fast": Tool(lambda: gradcheck(fast=True), ("torch",)),
}


def brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


# ---- asking


def chosen(full: bool, only: str = "") -> list[str]:
    """The names of the cases: all, or a part in which wrong and right are as in the whole zoo."""
    from benchmarks.zoo import RIGHT as right
    from benchmarks.zoo import WRONG as wrong

    step = 1 if full or only else PART
    return [case.name for cases in (wrong, right) for case in cases[::step] if only in case.name]


def answers(tool: str, names: Sequence[str], seed: int) -> Trial:
    """What one tool says about these cases; runs in its process."""
    from benchmarks.zoo import CASES

    ask = TOOLS[tool].make()
    found = {case.name: case for case in CASES}
    one(ask, found["tanh"], seed)
    return Trial([tuple(one(ask, found[name], seed)) for name in names])


def one(ask: Callable[..., tuple[str, ...]], case: Any, seed: int) -> Answer:
    args = case.arguments(seed)
    start = time.perf_counter()
    try:
        verdict, note, *diagnosis = ask(case, args, seed)
    except Exception as error:  # whatever a tool raises at a case is its answer
        verdict, note, diagnosis = FAILED, brief(error), []
    seconds = time.perf_counter() - start
    return Answer(case.name, seed, verdict, seconds, note, case.wrong and any(map(case.is_named_by, diagnosis)))


def collect(names: Sequence[str], keys: int) -> dict[str, list[Answer] | str]:
    """The answers of every tool, or why there are none."""
    collected: dict[str, list[Answer] | str] = {}
    for name, tool in TOOLS.items():
        if absent := missing(tool.requires):
            collected[name] = f"no {', '.join(absent)}: pip install 'fdl[bench]'"
            continue
        try:
            collected[name] = [
                Answer(*answer)
                for seed in range(keys)
                for i in range(0, len(names), CASES_PER_PROCESS)
                for answer in result_of(
                    answers, {"tool": name, "names": names[i : i + CASES_PER_PROCESS], "seed": seed}
                )
            ]
        except RuntimeError as error:
            collected[name] = f"failed: {error}"
    return collected


# ---- judging


class Score(NamedTuple):
    wrong: int = 0
    caught: int = 0
    named: int = 0  # of those caught
    missed: int = 0
    right: int = 0
    alarms: int = 0
    undecided: int = 0  # or could not run
    seconds: float = 0.0
    slowest: float = 0.0


def score(given: Sequence[Answer], wrong: Mapping[str, bool]) -> Score:
    """Counts and times. `wrong` says which cases are."""
    bad = [a for a in given if wrong[a.case]]
    good = [a for a in given if not wrong[a.case]]
    times = [a.seconds for a in given]
    return Score(
        len(bad),
        sum(a.verdict == WRONG for a in bad),
        sum(a.verdict == WRONG and a.named for a in bad),
        sum(a.verdict == RIGHT for a in bad),
        len(good),
        sum(a.verdict == WRONG for a in good),
        sum(a.verdict in (UNDECIDED, FAILED) for a in given),
        float(np.median(times)) if times else 0.0,
        max(times, default=0.0),
    )


def failed(answer: Answer, wrong: bool) -> bool:
    """The opposite of the truth; undecided is neither."""
    return answer.verdict == (RIGHT if wrong else WRONG)


def rows_of(collected: Mapping[str, list[Answer] | str], wrong: Mapping[str, bool]) -> list[Row]:
    """One row for each tool, and one for each case and key in which fdl says the opposite of the truth."""
    rows = []
    for tool, given in collected.items():
        row = Row("gradient checkers on the zoo", "case", tool, tool.partition(" ")[0], "failed")
        rows.append(row)
        if isinstance(given, str):
            row.status, row.note = ("failed" if given.startswith("failed") else "not installed"), given
            continue
        counted = score(given, wrong)
        row.status, row.note, row.figures = "measured", text(counted), counted._asdict()
        row.measured = f"{counted.caught} of {counted.wrong}, {counted.alarms} alarms"
        row.wanted = "all wrong ones caught, no alarm"
        if row.peer == "fdl":
            row.reached = counted.missed == counted.alarms == 0
            for answer in given:
                if failed(answer, wrong[answer.case]):
                    what = "missed" if wrong[answer.case] else "false alarm"
                    note = f"{what}, key {answer.seed}: {answer.note}"
                    rows.append(Row(answer.case, "case", tool, "fdl", "unequal", note, answer.verdict))
    return rows


def text(s: Score) -> str:
    return (
        f"named rightly {s.named}, missed {s.missed}, {s.right} right ones, undecided or could not run {s.undecided}, "
        f"{s.seconds:.2g} s per case, at most {s.slowest:.2g} s"
    )


def truths() -> dict[str, bool]:
    from benchmarks.zoo import CASES

    return {case.name: case.wrong for case in CASES}


def run(settings: Settings) -> list[Row]:
    """A row for each tool; fdl's status "unequal" is the failure, a peer's miss is a finding."""
    return rows_of(collect(chosen(settings.full), KEYS if settings.full else 1), truths())


# ---- writing


def markdown(collected: Mapping[str, list[Answer] | str]) -> str:
    """The matrix: wrong cases caught and right ones passed, in all, by family and by what is wrong."""
    from benchmarks.zoo import CASES

    wrong = {case.name: case.wrong for case in CASES}
    tools = {tool: given for tool, given in collected.items() if not isinstance(given, str)}
    lines = [f"| | {' | '.join(tools)} |", "|---|" + "---|" * len(tools)]

    def line(title: str, cell: Callable[[list[Answer]], str]) -> None:
        cells = [cell(given) for given in tools.values()]
        if set(cells) != {"-"}:
            lines.append(f"| {title} | {' | '.join(cells)} |")

    def caught(names: set[str]) -> Callable[[list[Answer]], str]:
        def cell(given: list[Answer]) -> str:
            s = score([a for a in given if a.case in names], wrong)
            return f"{s.caught} of {s.wrong}" if s.wrong else "-"

        return cell

    def named(names: set[str]) -> Callable[[list[Answer]], str]:
        def cell(given: list[Answer]) -> str:
            s = score([a for a in given if a.case in names], wrong)
            return f"{s.named} of {s.wrong}" if s.wrong and any(a.named for a in given) else "-"

        return cell

    everything = {case.name for case in CASES}
    line("**wrong ones caught**", caught(everything))
    line("**named rightly**", named(everything))
    line("wrong ones missed", lambda given: str(score(given, wrong).missed))
    line("**false alarms**", lambda given: f"{score(given, wrong).alarms} of {score(given, wrong).right}")
    line("undecided, or could not run", lambda given: str(score(given, wrong).undecided))
    line("seconds per case, median", lambda given: f"{score(given, wrong).seconds:.2g}")
    line("seconds per case, largest", lambda given: f"{score(given, wrong).slowest:.2g}")
    for family in dict.fromkeys(case.family for case in CASES):
        own = {case.name for case in CASES if case.family == family}
        line(f"caught: {family}", caught(own))
        line(f"named rightly: {family}", named(own))
    for term in sorted({case.term for case in CASES if case.wrong}):
        line(f"caught: *{term}*", caught({case.name for case in CASES if case.term == term}))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--full", action="store_true", help=f"all cases, with {KEYS} keys")
    parser.add_argument("--only", default="", metavar="TEXT", help="all cases with this in their name")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the matrix there")
    given = parser.parse_args(arguments)
    names = chosen(given.full, given.only)
    if not names:
        parser.error(f"no case has {given.only!r} in its name")
    collected = collect(names, KEYS if given.full else 1)
    print(markdown(collected))
    if given.markdown:
        given.markdown.write_text(markdown(collected), encoding="utf-8")
    bad = [row for row in rows_of(collected, truths()) if row.status in ("unequal", "failed")]
    for row in bad:
        print(f"{row.status}: {row.work}, {row.variant}: {row.note}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
