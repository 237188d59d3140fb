"""The modes: in which ways a gradient is asked for, and has to be the same.

| mode                        | what is run                                                                            |
|-----------------------------|----------------------------------------------------------------------------------------|
| eager, jit                  | the gradient op by op, and compiled                                                     |
| vmap, grad inside vmap      | the gradient of a batch, and a batch of gradients                                       |
| vmap over one argument      | both, with a batch of one argument along its last axis, the others shared               |
| vmap over the cotangent     | a batch of cotangents at the same arguments, as in `jax.jacrev`                         |
| scan, checkpoint            | the examples of a batch one after the other; the forward pass run again on the way back |
| shard_map                   | an example on every device of a mesh; one device if there is only one                   |
| donated buffers             | compiled so that the arguments' buffers are given away, twice with fresh ones           |
| one argument differentiated | the gradient of every argument alone, the others constant                               |
| one output unused           | the gradient of all outputs but one, in turn; of a single output, a cotangent of zero   |
| same inputs twice           | the compiled gradient twice: the same bits                                              |
| other dtypes                | the same arguments in float16, bfloat16 and float32 (float64 is compared in any mode)   |
| second derivative           | reverse over reverse                                                                    |
| forward over reverse        | the derivative of the gradient in forward mode                                          |

"quick" runs the gradient op by op; one of many operations it compiles instead, without optimisation, and says jit.

What raises in a mode is a failure of that mode, a candidate that cannot be differentiated twice as the reference can included.
Named as not judged: another dtype than that of the arguments in which one of them does not run, forward over reverse of a
backward pass that calls a custom_vjp, and second derivatives that neither has. Without a reference, and without a custom_vjp
whose computation is one, complex steps or central differences of the gradient judge the second derivative. Where the
candidate has some and the reference none, and where a mode had nothing to compare, the verdict is "undecided".
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fdl.check.compare import Item
from fdl.check.curvature import second_evidence
from fdl.check.evaluate import Evaluation, Outcome, Point, Precision, brief, stacked
from fdl.check.judge import Judge
from fdl.check.subject import Differentiated, Layout, Subject, is_countable
from fdl.check.transformed import (
    Batched,
    BatchedAlone,
    BatchedCotangent,
    BatchedGradient,
    BatchedGradientAlone,
    Checkpointed,
    ForwardOverReverse,
    OfOneArgument,
    Scanned,
    Second,
    Sharded,
    Share,
    WithoutOutput,
)
from fdl.errors import is_array

MODES = {
    "quick": ("eager",),
    "default": ("eager", "jit", "vmap"),
    "all": (
        "eager",
        "jit",
        "vmap",
        "grad inside vmap",
        "vmap over one argument",
        "vmap over the cotangent",
        "scan",
        "checkpoint",
        "shard_map",
        "donated buffers",
        "one argument differentiated",
        "one output unused",
        "same inputs twice",
        "other dtypes",
        "second derivative",
        "forward over reverse",
    ),
}
_BATCHES: dict[str, Callable[[Subject], Subject]] = {
    "vmap": Batched,
    "grad inside vmap": BatchedGradient,
    "scan": Scanned,
}
_DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32)


@dataclasses.dataclass(eq=False)
class Modes:
    """One candidate in its modes. points: the same arguments with several cotangents; examples: other arguments too.

    pulled: how many outputs get a cotangent. What is noted goes to `notes`.
    """

    judge: Judge
    layout: Layout
    native: Precision
    points: list[Point]
    examples: Callable[[], list[Point]]
    pulled: int
    rng: np.random.Generator
    notes: list[str] = dataclasses.field(default_factory=list)
    optimized: bool = True  # what is compiled in the mode jit

    def run(self, modes: Sequence[str]) -> None:
        for mode in modes:
            try:
                self._run(mode)
            except Exception as error:
                self._raised(mode, error)

    def _run(self, mode: str) -> None:
        if mode in ("eager", "jit"):
            run = self._compiled if mode == "jit" else Evaluation(self._candidate, self.native, compiled=False)
            for point in self.points:
                self.judge.compare(mode, self.native, point, run(point))
        elif mode in _BATCHES:
            self._examples_at_once(mode, _BATCHES[mode](self._candidate), self.examples())
        else:
            others: dict[str, Callable[[str], None]] = {
                "vmap over one argument": self._over_one_argument,
                "vmap over the cotangent": self._over_the_cotangent,
                "checkpoint": self._checkpoint,
                "shard_map": self._on_devices,
                "donated buffers": self._donated,
                "one argument differentiated": self._one_argument,
                "one output unused": self._one_output_unused,
                "same inputs twice": self._twice,
                "other dtypes": self._other_dtypes,
                "second derivative": self._second,
                "forward over reverse": self._forward_over_reverse,
            }
            others[mode](mode)

    # ---- what all of them use ----

    @property
    def _candidate(self) -> Subject:
        return self.judge.candidate

    @functools.cached_property
    def _compiled(self) -> Evaluation:
        return Evaluation(self._candidate, self.native, quick=not self.optimized)

    @property
    def _name(self) -> str:
        return self.judge.way or "the candidate"

    @property
    def _values(self) -> int:
        return len(self.judge.standard.items) - len(self.points[0].active)

    def _raised(self, mode: str, error: Exception) -> None:
        self.judge.ledger.error(self.judge.way, mode, f"raised {brief(error)}")

    def _pass_over(self, mode: str, note: str) -> None:
        self.judge.ledger.pass_over(mode)
        self.notes.append(note)

    def _evaluation(self, subject: Subject) -> Evaluation:
        return Evaluation(subject, self.judge.sharpest, quick=True)

    def _compare(self, mode: str, point: Point | Sequence[Point], got: Outcome, places: Any = None) -> None:
        self.judge.compare(mode, self.judge.sharpest, point, got, places)

    def _examples_at_once(self, mode: str, subject: Subject, points: list[Point]) -> None:
        outcome = self._evaluation(subject)(stacked(points))
        for index, point in enumerate(points):
            self._compare(mode, point, outcome.example(index))

    def _shares(self) -> dict[str, Share]:
        """The leaves of every argument that has an array for every example: floating, integer or boolean."""
        leaves = self.layout.leaves
        shares = {}
        for name in dict.fromkeys(leaf.argument for leaf in leaves):
            active = tuple(leaf.argument == name for leaf in leaves if leaf.active)
            of_fixed = [leaf.argument == name for leaf in leaves if not leaf.active]
            fixed = tuple(own and countable for own, countable in zip(of_fixed, self._countable, strict=True))
            if any(active) or any(fixed):
                shares[name] = Share(active, fixed)
        return shares

    @property
    def _countable(self) -> list[bool]:
        return [is_countable(x) for x in self.points[0].fixed[0]]

    # ---- batches ----

    def _over_one_argument(self, mode: str) -> None:
        for name, share in self._shares().items():
            points = [self._with_own(share, example) for example in self.examples()]
            batch = _stacked_last(points, share)
            for kind, alone in (("vmap", BatchedAlone), ("grad inside vmap", BatchedGradientAlone)):
                row = f"{kind} over {name}"
                if alone is BatchedAlone and not isinstance(self._candidate, Differentiated):
                    continue
                try:
                    outcome = self._evaluation(alone(self._candidate, share))(batch)  # pyright: ignore[reportArgumentType]
                    summed = alone is BatchedAlone
                    self._compare_alone(row, points, outcome, share, summed)
                except Exception as error:
                    self._raised(row, error)

    def _with_own(self, share: Share, example: Point) -> Point:
        """The first point with the leaves of one argument, and the cotangents, of an example."""
        triples = zip(share.active, example.active, self.points[0].active, strict=True)
        return dataclasses.replace(self.points[0], active=[x if own else y for own, x, y in triples], w=example.w)

    def _compare_alone(self, mode: str, points: list[Point], outcome: Outcome, share: Share, summed: bool) -> None:
        """summed: the gradients of the shared arguments are those of the whole batch."""
        values = self._values
        shared = [values + i for i, own in enumerate(share.active) if not own] if summed else []
        single = [place for place in range(len(outcome.arrays)) if place not in shared]
        for index, point in enumerate(points):
            arrays = [
                np.take(outcome.arrays[place], index, axis=-1 if summed and place >= values else 0) for place in single
            ]
            dtypes = [outcome.dtypes[place] for place in single]
            self._compare(mode, point, Outcome(arrays, dtypes, [x[index] for x in outcome.others]), single)
        if shared:
            rest = Outcome([outcome.arrays[place] for place in shared], [outcome.dtypes[place] for place in shared], [])
            self._compare(mode, points, rest, shared)

    def _over_the_cotangent(self, mode: str) -> None:
        batch = dataclasses.replace(
            self.points[0], w=[np.stack(w) for w in zip(*(point.w for point in self.points), strict=True)]
        )
        outcome = self._evaluation(BatchedCotangent(self._candidate))(batch)
        for index, point in enumerate(self.points):
            self._compare(mode, point, outcome.example(index))

    # ---- how it is run ----

    def _checkpoint(self, mode: str) -> None:
        if isinstance(self._candidate, Differentiated):
            self._compare(mode, self.points[0], self._evaluation(Checkpointed(self._candidate))(self.points[0]))

    def _on_devices(self, mode: str) -> None:
        points = self.examples()[: len(jax.local_devices())]
        mesh = Mesh(np.asarray(jax.local_devices()[: len(points)]), ("devices",))
        if len(points) == 1:
            self.notes.append(
                "shard_map ran on a mesh of one device; "
                "XLA_FLAGS=--xla_force_host_platform_device_count=2, set before JAX starts, makes it two"
            )
        try:
            self._examples_at_once(mode, Sharded(self._candidate, mesh), points)
        except Exception as error:
            self._examples_at_once(mode, Sharded(self._candidate, mesh, checked=False), points)
            self.notes.append(f"under shard_map {self._name} runs with check_vma=False only ({brief(error)})")

    def _donated(self, mode: str) -> None:
        precision, point = self.judge.sharpest, self.points[0]
        run: Callable = lambda *operands: self._candidate(*operands)
        with precision.scope(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
            donating = jax.jit(run, donate_argnums=0)
            for _ in range(2):
                active, fixed, w = precision.operands(point)
                fresh = [jnp.array(x, copy=True) for x in active]  # else the buffer may be that of a numpy array
                outcome = Outcome.of(donating(fresh, fixed, w))
                self._compare(mode, point, outcome)

    def _twice(self, mode: str) -> None:
        point = self.points[0]
        first, second = self._compiled(point), self._compiled(point)
        self.judge.compare(mode, self.native, point, second)
        for item, x, y in zip(self.judge.standard.items, first.arrays, second.arrays, strict=True):
            differ = ~((x == y) | (np.isnan(x) & np.isnan(y)))
            if differ.any():
                with np.errstate(all="ignore"):
                    apart = np.max(np.abs(x - y)[differ])
                message = f"returned another {item} for the same inputs, {int(differ.sum())} of {x.size} entries up to"
                self.judge.ledger.error(self.judge.way, mode, f"{message} {apart:.2g} apart", item.leaf)

    def _other_dtypes(self, mode: str) -> None:
        for dtype in _DTYPES:
            if all(x.dtype == dtype for x in self.points[0].active):
                continue
            name = jnp.dtype(dtype).name
            point = _cast(self.points[0], dtype)
            lost = [
                leaf
                for leaf, x, y in zip(self.layout.active, self.points[0].active, point.active, strict=True)
                if _lost(x, y)
            ]
            if lost:
                self._pass_over(name, f"{', '.join(lost[:3])} does not fit into {name}, which was not tried")
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # constants that do not fit: infinite in both
                self._in_dtype(name, point)

    def _in_dtype(self, name: str, point: Point) -> None:
        try:
            self.judge.standard.plain_or_raise(point)
        except Exception as error:
            self._pass_over(name, f"the reference does not run in {name} ({brief(error)}), which was not tried")
            return
        try:
            outcome = Evaluation(self._candidate, self.native, quick=True)(point)
        except Exception as error:
            self._pass_over(name, f"{self._name} does not run in {name} ({brief(error)})")
            return
        self.judge.compare_rounding(name, [point], outcome)

    # ---- a part of the gradient ----

    def _one_argument(self, mode: str) -> None:
        shares = {name: share for name, share in self._shares().items() if any(share.active)}
        if len(shares) < 2 or not isinstance(self._candidate, Differentiated):
            return
        for share in shares.values():
            places = [*range(self._values), *(self._values + i for i, own in enumerate(share.active) if own)]
            outcome = self._evaluation(OfOneArgument(self._candidate, share))(self.points[0])
            self._compare(mode, self.points[0], outcome, places)

    def _one_output_unused(self, mode: str) -> None:
        first = self.points[0]
        for output in range(self.pulled):
            w = [np.zeros_like(x) if i == output else x for i, x in enumerate(first.w)]
            point = dataclasses.replace(first, w=w)
            subject = self._candidate
            if self.pulled > 1 and isinstance(subject, Differentiated):
                subject = WithoutOutput(subject, output)
            self._compare(mode, point, self._evaluation(subject)(point))

    # ---- differentiated once more ----

    def _along(self, mode: str) -> Point | None:
        """The first point with a direction, if the reference has second derivatives."""
        first = self.points[0]
        draw = self.rng.standard_normal
        v = [np.asarray(draw(x.shape)).astype(x.dtype).astype(np.float64) for x in first.active]
        point = dataclasses.replace(first, w=(first.w, v))
        try:
            self.judge.standard.second(point, self.judge.sharpest)
        except Exception as error:
            self._without_second_reference(mode, point, error)
            return None
        return point

    def _without_second_reference(self, mode: str, point: Point, error: Exception) -> None:
        try:
            self._evaluation(Second(self._candidate))(point)
        except Exception:
            self._pass_over(mode, f"second derivatives were not compared: the reference has none ({brief(error)})")
        else:
            said = f"{self._name} has second derivatives, the reference has none ({brief(error)})"
            self.judge.ledger.leave_open(f"the {mode} could not be judged: {said}")

    def _second(self, mode: str) -> None:
        if (point := self._along(mode)) is None:
            return
        try:
            if self.judge.is_own_reference:
                self._second_by_steps(mode, point)
            else:
                self.judge.compare_second(mode, point, Second)
        except Exception as error:
            if self.judge.standard.is_primal:
                self._pass_over(mode, f"{self._name} has no second derivatives ({brief(error)})")
                return
            said = 'cannot be differentiated twice, as the reference can (modes="default" asks for first derivatives alone)'
            self.judge.ledger.error(self.judge.way, mode, f"{said}: raised {brief(error)}")

    def _second_by_steps(self, mode: str, point: Point) -> None:
        """Without a reference: complex steps or central differences of the gradient that is judged."""
        items = [Item("second derivative", item.leaf) for item in self.judge.standard.items if item.is_derivative]
        found = (
            second_evidence(self._candidate, point, self.rng) if isinstance(self._candidate, Differentiated) else None
        )
        if found is None or any(evidence.undecided and not evidence.wrong for evidence in found):
            why = "are too rough" if found else "need float64, in which not all of it is computed"
            self._pass_over(mode, f"second derivatives were not compared: there is no reference, and steps {why}")
        for item, evidence in zip(items, found or (), strict=False):
            if evidence.wrong or not evidence.undecided:
                self.judge.ledger.add_numerical(item, evidence, alone=True)

    def _forward_over_reverse(self, mode: str) -> None:
        if (point := self._along(mode)) is None:
            return
        try:
            self.judge.compare_second(mode, point, ForwardOverReverse)
        except Exception as error:
            of_custom_vjp = isinstance(error, TypeError) and "custom_vjp" in str(error)
            if not (of_custom_vjp or self.judge.standard.is_primal):
                raise
            why = "its backward pass calls a custom_vjp" if of_custom_vjp else brief(error)
            self._pass_over(mode, f"{self._name} has no forward over reverse: {why}")


def _stacked_last(points: list[Point], share: Share) -> Point:
    """The leaves of one argument stacked along their last axis, and the cotangents along their first."""

    def stack(of: Sequence[bool], lists: list[list]) -> list:
        return [
            np.stack([np.asarray(x) for x in leaves], axis=-1) if own else leaves[0]
            for own, *leaves in zip(of, *lists, strict=True)
        ]

    first_leaves, arrays = points[0].fixed
    return Point(
        stack(share.active, [point.active for point in points]),
        (stack(share.fixed, [first_leaves] * len(points)), arrays),
        [np.stack(w) for w in zip(*(point.w for point in points), strict=True)],
    )


def _cast(point: Point, dtype: Any) -> Point:
    """The point in another dtype: arguments, other floating leaves, and cotangents that it holds exactly."""

    def cast(x: Any) -> Any:
        floating = is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
        return np.asarray(x).astype(dtype) if floating else x

    with np.errstate(over="ignore"):
        active = [cast(x) for x in point.active]
    w = [x.astype(dtype).astype(np.float64) for x in point.w]
    return Point(active, jax.tree.map(cast, point.fixed), w)


def _lost(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether a cast turned a number into infinity or into zero."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return bool(np.any(np.isfinite(x) & ~np.isfinite(y)) or np.any((x != 0) & (y == 0)))
