"""The numerical guard: where a run stopped being finite, and the last state in which it was.

The loop itself only looks at each step's loss, which it has anyway. Everything else happens after the fact: the run before the
bad step is replayed from the copy that `fit` keeps of the start of the call (the same program, so the same bits), and the bad
step is taken apart, in the order in which it computes:

    the layers' outputs, first to last -> the losses -> the errors, last layer to first -> the gradients -> the updates -> the parameters

`Rollback` multiplies what the optimizer asks for by a factor that the run lowers after each time it goes back.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.backprop import counted, deltas, value_and_grad
from fdl.layer import Layer
from fdl.op import Op
from fdl.train.precision import computed_in


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first value of a run that was not finite.

    step: the update, from 1, that computed it; epoch: from 1. stage: "output", "loss", "error", "gradient", "state", "update" or
    "parameter". layer: where it stands, "" for the loss. leaf: which array, as in "dense_0/w". entries: how many of how many.

        >>> print(fdl.train.Divergence(213, 5, "output", "dense_2", "", (3, 640)))  # what `fit` returns as result.divergence
        step 213 (epoch 5): the output of dense_2 is the first that is not finite, in 3 of 640 entries
    """

    step: int
    epoch: int
    stage: str
    layer: str
    leaf: str
    entries: tuple[int, int]

    def __str__(self) -> str:
        place = f" of {self.leaf or self.layer}" if self.leaf or self.layer else ""
        bad, size = self.entries
        how_many = f", in {bad} of {size} entries" if size > 1 else ""
        return (
            f"step {self.step} (epoch {self.epoch}): the {self.stage}{place} is the first that is not finite{how_many}"
        )


class Scaled(NamedTuple):
    inner: Any
    factor: jax.Array


def scalable(optimizer: Any) -> Any:
    """The optimizer, with a factor in its state by which its updates are multiplied."""
    import optax

    full = optax.with_extra_args_support(optimizer)
    made: Any = optax.GradientTransformationExtraArgs

    def init(params):
        return Scaled(optimizer.init(params), jnp.ones((), jnp.float32))

    def update(grads: Any, state: Any, params: Any = None, **more: Any) -> Any:
        updates, inner = full.update(grads, state.inner, params, **more)
        return jax.tree.map(lambda u: u * state.factor.astype(u.dtype), updates), Scaled(inner, state.factor)

    return made(init, update)


@jax.jit
def finite_leaves(tree: Any) -> jax.Array:
    """Which of the floating leaves are finite throughout: one boolean each."""
    leaves = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(a).all() for a in leaves] or [jnp.asarray(True)])


def first_bad_step(replay: Callable[[int], Any], is_good: Callable[[Any], bool], steps: int) -> int:
    """The number of steps after which the carry was bad for the first time, by bisection; it is bad after all of them."""
    good, bad = 0, steps
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if is_good(replay(middle)) else (good, middle)
    return bad


def origin(
    model: Layer,
    loss: Op | Callable,
    penalty: Op | None,
    optimizer: Any,
    gradient: str,
    precision: str | None,
    carry: Any,
    batch: tuple,
    epoch: int,
) -> Divergence:
    """Where the step from `carry` on this batch (x, target, mask, weights, noise) leaves the finite numbers."""
    import optax

    from fdl.doctor.watch import observed

    x, target, mask, weights, noise = batch
    step = int(carry.step) + 1

    def found(stage: str, layer: str, leaf: str, array: Any) -> Divergence:
        bad = int((~jnp.isfinite(array)).sum())
        return Divergence(step, epoch, stage, layer, leaf, (bad, array.size))

    def first(stage: str, tree: Any) -> Divergence | None:
        for path, array in jax.tree.leaves_with_path(tree):
            if jnp.issubdtype(array.dtype, jnp.inexact) and not bool(jnp.isfinite(array).all()):
                leaf = "/".join(
                    str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path
                )
                return found(stage, leaf.rpartition("/")[0], leaf, array)
        return None

    within = (lambda model: model) if precision is None else (lambda model: computed_in(model, precision))
    watching, notes = observed(model)
    watched, inner = within(watching), within(model)
    target_here, mask_here, weights_here = counted(x, target, mask, weights)
    walk = watched.apply if gradient == "manual" else watched.equation
    y, new_state = walk(carry.params, carry.state, x, train=True, key=noise, mask=mask_here)
    for name, seen in notes.layers.items():
        if not bool(jnp.isfinite(seen.y).all()):
            return found("output", name, "", seen.y)
    values = loss(y, target_here) if gradient == "manual" or not isinstance(loss, Op) else loss.equation(y, target_here)
    if weights_here is not None:
        values = jnp.where(
            weights_here.reshape(weights_here.shape + (1,) * (values.ndim - weights_here.ndim)) != 0, values, 0
        )
    if not bool(jnp.isfinite(values).all()):
        return found("loss", "", "", values)
    if gradient == "manual" and isinstance(loss, Op):
        errors = deltas(inner, loss, carry.params, carry.state, x, target, noise, mask, weights)
        for name, error in reversed(errors.items()):
            if not bool(jnp.isfinite(error).all()):
                return found("error", name, "", error)
    (value, _), grads = value_and_grad(inner, loss, penalty, gradient=gradient)(
        carry.params, carry.state, x, target, noise, mask, weights
    )

    def value_fn(params):
        return value_and_grad(inner, loss, penalty, gradient=gradient)(
            params, carry.state, x, target, noise, mask, weights
        )[0][0]

    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        grads, carry.opt_state, carry.params, value=value, grad=grads, value_fn=value_fn
    )
    stages = (("gradient", grads), ("state", new_state), ("update", updates), ("update", opt_state))
    for stage, tree in (*stages, ("parameter", optax.apply_updates(carry.params, updates))):
        if (bad := first(stage, tree)) is not None:
            return bad
    return found("loss", "", "", value)
