"""The transformations under which a gradient has to stay what it is: each makes a subject out of a subject.

A batch is stacked along the first axis of every leaf, but for `BatchedAlone`, which takes the last one: a rule for batches
that counts on the first axis is seen there.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from fdl.check.subject import Differentiated, Result, Subject, is_countable, pulled

# ---- a batch ----


@dataclasses.dataclass(frozen=True, eq=False)
class Batched:
    """A batch of examples at once: `vmap` of the function, then its gradient."""

    subject: Subject

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return _mapped(_vmap, self.subject, active, fixed, w)


@dataclasses.dataclass(frozen=True, eq=False)
class Scanned:
    """The examples of a batch one after the other inside `lax.scan`, and the gradient of the whole loop."""

    subject: Subject

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return _mapped(_scan, self.subject, active, fixed, w)


@dataclasses.dataclass(frozen=True, eq=False)
class BatchedGradient:
    """A batch of examples at once: `vmap` of the gradient."""

    subject: Subject

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        stacked, fixed_of = _stacked(fixed)
        return _vmap(lambda a, f, w: self.subject(a, fixed_of(f), w), active, stacked, w)


@dataclasses.dataclass(frozen=True, eq=False)
class BatchedCotangent:
    """A batch of cotangents at the same arguments: `vmap` of the pullback, as in `jax.jacrev`."""

    subject: Subject

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return _vmap(lambda w: self.subject(active, fixed, w), w)


@dataclasses.dataclass(frozen=True)
class Share:
    """The leaves of one argument among the active and among the fixed leaves."""

    active: tuple[bool, ...]
    fixed: tuple[bool, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class BatchedAlone:
    """A batch of one argument, along its last axis; the examples share the others, which get the sum of their gradients."""

    subject: Differentiated
    share: Share

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        leaves, arrays = fixed

        def run(active):
            def one(own, own_fixed):
                merged = _merged(own, active, self.share.active), (_merged(own_fixed, leaves, self.share.fixed), arrays)
                return self.subject.outputs(*merged)

            own = _picked(active, self.share.active), _picked(leaves, self.share.fixed)
            return jax.vmap(one, in_axes=-1)(*own)

        return pulled(run, active, w)


@dataclasses.dataclass(frozen=True, eq=False)
class BatchedGradientAlone:
    """A batch of one argument, along its last axis, and the gradients of every example: `vmap` of the gradient."""

    subject: Subject
    share: Share

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        leaves, arrays = fixed

        def one(own, own_fixed, w):
            merged = _merged(own, active, self.share.active), (_merged(own_fixed, leaves, self.share.fixed), arrays)
            return self.subject(*merged, w)

        own = _picked(active, self.share.active), _picked(leaves, self.share.fixed)
        return jax.vmap(one, in_axes=(-1, -1, 0))(*own, w)


def _picked(leaves: list, of: Sequence[bool]) -> list:
    return [x for x, own in zip(leaves, of, strict=True) if own]


def _merged(own: list, leaves: list, of: Sequence[bool]) -> list:
    rest = iter(own)
    return [next(rest) if mine else x for x, mine in zip(leaves, of, strict=True)]


# ---- a part of the gradient ----


@dataclasses.dataclass(frozen=True, eq=False)
class OfOneArgument:
    """The gradient of one argument; the others are constants."""

    subject: Differentiated
    share: Share

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        def run(own):
            return self.subject.outputs(_merged(own, active, self.share.active), fixed)

        return pulled(run, _picked(active, self.share.active), w)


@dataclasses.dataclass(frozen=True, eq=False)
class WithoutOutput:
    """The gradient of all outputs but one, whose cotangent is a symbolic zero. `w` has one for it, which is not used."""

    subject: Differentiated
    output: int

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        def run(active):
            floats, (aux, others) = self.subject.outputs(active, fixed)
            return _without(floats, self.output), (floats + aux, others)

        _, pull, (values, others) = jax.vjp(run, active, has_aux=True)
        pairs = zip(_without(w, self.output), _without(values[: len(w)], self.output), strict=True)
        (gradients,) = pull([cotangent.astype(out.dtype) for cotangent, out in pairs])
        return Result(values, others, gradients)


def _without(items: list, place: int) -> list:
    return [*items[:place], *items[place + 1 :]]


# ---- how it is run ----


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpointed:
    """The function under `jax.checkpoint`: its forward pass runs again on the way back."""

    subject: Differentiated

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return pulled(jax.checkpoint(lambda active: self.subject.outputs(active, fixed)), active, w)


@dataclasses.dataclass(frozen=True, eq=False)
class Sharded:
    """Inside `shard_map`, with an example of the batch on every device of the mesh."""

    subject: Subject
    mesh: Mesh
    checked: bool = True  # which values vary over the devices

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        stacked, fixed_of = _stacked(fixed)

        def one(batch):
            a, f, w = jax.tree.map(lambda x: x[0], batch)
            return jax.tree.map(lambda x: x[None], self.subject(a, fixed_of(f), w))

        axis = P(self.mesh.axis_names)
        run = jax.shard_map(one, mesh=self.mesh, in_specs=axis, out_specs=axis, check_vma=self.checked)
        return run((active, stacked, w))


# ---- differentiated once more ----


@dataclasses.dataclass(frozen=True, eq=False)
class Second:
    """Second derivatives in reverse: the gradient of <v, gradient>. `w` is (cotangents, v)."""

    subject: Subject

    def __call__(self, active: list, fixed: Any, w: Any) -> Result:
        w, v = w

        def slope(active):
            gradients = self.subject(active, fixed, w).gradients
            return sum(jnp.sum(a.astype(g.dtype) * g) for a, g in zip(v, gradients, strict=True))

        return Result([], [], jax.grad(slope)(active))


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardOverReverse:
    """The derivative of the gradient along v, in forward mode: what `Second` is too, since second derivatives commute."""

    subject: Subject

    def __call__(self, active: list, fixed: Any, w: Any) -> Result:
        w, v = w
        along = [a.astype(x.dtype) for a, x in zip(v, active, strict=True)]
        run = lambda active: self.subject(active, fixed, w).gradients
        return Result([], [], jax.jvp(run, (active,), (along,))[1])


def _mapped(over: Callable, subject: Subject, active: list, fixed: Any, w: list) -> Result:
    """The gradient of the mapped function; a subject that is no function is mapped as it is."""
    stacked, fixed_of = _stacked(fixed)
    if not isinstance(subject, Differentiated):
        return over(lambda a, f, w: subject(a, fixed_of(f), w), active, stacked, w)
    return pulled(lambda active: over(lambda a, f: subject.outputs(a, fixed_of(f)), active, stacked), active, w)


def _vmap(run: Callable, *stacks: Any) -> Any:
    return jax.vmap(run)(*stacks)


def _scan(run: Callable, *stacks: Any) -> Any:
    return jax.lax.scan(lambda carry, step: (carry, run(*step)), None, stacks)[1]


def _stacked(fixed: Any) -> tuple[list, Callable[[list], Any]]:
    """The stacked leaves of `fixed`, and what puts those of one example back between the shared ones."""
    flat, structure = jax.tree.flatten(fixed)

    def fixed_of(example: list) -> Any:
        own = iter(example)
        return jax.tree.unflatten(structure, [next(own) if is_countable(x) else x for x in flat])

    return [x for x in flat if is_countable(x)], fixed_of
