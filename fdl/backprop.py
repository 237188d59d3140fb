"""Whole-model gradients by hand-written backprop: no autodiff inside.

    C = mean_n loss(model(x)[n], target[n]) + penalty(params)

The forward pass keeps each layer's residuals. Back from the cost: the mean gives every example's loss its share 1/N, the
loss turns it into the error at the model's output, and each layer turns the error at its output into the gradient of its
parameters and the error at its input:

    delta_out = dC/dy        dparams, delta_in = layer.backward(residuals, delta_out)

    (value, state), grads = fdl.backprop.value_and_grad(model, loss)(params, state, x, target, key=key)
    deltas                = fdl.backprop.deltas(model, loss, params, state, x, target, key=key)
    table                 = fdl.backprop.paths(model, loss, params, x, target, weight=("dense_0", "w", j, i))

`gradient="autodiff"` asks for the same numbers from JAX: `jax.value_and_grad` of the model's and the loss's plain equations.
Their agreement, leaf by leaf, is the heart of the project. Source: Rumelhart, Hinton & Williams 1986.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from fdl.errors import refuse, refuse_type, require_array, shown
from fdl.layer import Layer, Params, State
from fdl.losses.mean import mean
from fdl.op import Op, on_explicit_mesh, specs, with_automatic_axes
from fdl.paths import Paths, closed_forms, paths

__all__ = ["Paths", "closed_forms", "deltas", "paths", "value_and_grad"]

ValueAndGrad = Callable[..., tuple[tuple[jax.Array, State], Params]]


def value_and_grad(
    model: Layer, loss: Op | Callable, penalty: Op | None = None, *, gradient: str = "manual"
) -> ValueAndGrad:
    """A function (params, state, x, target, key=None, mask=None, weights=None, train=True) -> ((value, state), grads).

    value: the mean of the loss over the examples that count, plus the penalty. state: after this batch. grads: like params.
    mask: [N], or [N, T] for sequences, booleans: what is masked contributes exactly 0 to value and gradients, even where it
    holds NaN. weights: like the loss's values, or [N]. gradient: "manual", or "autodiff": `jax.grad` of the equations.
    Errors: a plain function as loss with "manual", an empty batch, a missing key, shapes that do not fit.

        >>> model, loss = fdl.serial(fdl.dense(2)), fdl.losses.mean_squared_error
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> gradients = fdl.backprop.value_and_grad(model, loss)
        >>> (value, state), grads = gradients(params, state, jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32))
        >>> grads["dense_0"]["w"].shape
        (3, 2)
    """
    require_model("backprop.value_and_grad", model)
    require_loss("backprop.value_and_grad", loss, gradient)
    require_penalty("backprop.value_and_grad", penalty)
    run = _manual if gradient == "manual" else _autodiff

    def gradients(params, state, x, target, key=None, mask=None, weights=None, *, train=True):
        target, mask, weights = counted(x, target, mask, weights)
        call: Callable = functools.partial(run, model, loss, penalty, train=bool(train))
        arguments = (params, state, x, target, key, mask, weights)
        if on_explicit_mesh(arguments):
            # the sums over examples mix devices: automatic axes inside, the parameters' shardings on what comes out
            call = with_automatic_axes(call, ((P(), specs(state)), specs(params)))
        return call(*arguments)

    return gradients


def deltas(
    model: Layer,
    loss: Op,
    params: Params,
    state: State,
    x: Any,
    target: Any,
    key: Any = None,
    mask: Any = None,
    weights: Any = None,
    *,
    train: bool = True,
) -> dict[str, jax.Array]:
    """The error at every layer's output, {name: dC/d(output)}, in the order of `model.names`; the mean's 1/N included.

    >>> model, loss = fdl.serial(fdl.dense(2), fdl.tanh()), fdl.losses.mean_squared_error
    >>> params, state = model.init(jax.random.key(0), (3,))
    >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
    >>> {name: delta.shape for name, delta in fdl.backprop.deltas(model, loss, params, state, x, y).items()}
    {'dense_0': (4, 2), 'tanh_1': (4, 2)}
    """
    require_model("backprop.deltas", model)
    require_loss("backprop.deltas", loss, "manual")
    target, mask, weights = counted(x, target, mask, weights)

    def errors(params, state, x, target, key, mask, weights):
        y, _, residuals = model.forward(params, state, x, train=train, key=key, mask=mask)
        _, dy = _loss_and_error(loss, y, target, mask, weights)
        if not model.layers:
            return {model.name: dy}
        found: dict[str, jax.Array] = {}
        model.backward(residuals, dy, deltas=found)
        return {name: found[name] for name in model.names}

    arguments = (params, state, x, target, key, mask, weights)
    if on_explicit_mesh(arguments):
        return with_automatic_axes(errors, P(*specs(x)[:1]))(*arguments)
    return errors(*arguments)


def _manual(model, loss, penalty, params, state, x, target, key, mask, weights, *, train):
    y, state, residuals = model.forward(params, state, x, train=train, key=key, mask=mask)
    value, dy = _loss_and_error(loss, y, target, mask, weights)
    grads, _ = model.backward(residuals, dy)
    if penalty is not None:
        cost, kept = penalty.recorded(params)
        (dparams,) = penalty.backward(kept, jnp.ones_like(cost))
        value = value + cost.astype(value.dtype)
        grads = jax.tree.map(jnp.add, grads, dparams)
    return (value, state), grads


def _loss_and_error(loss, y, target, mask, weights):
    """The mean loss, and the error dC/dy at the model's output."""
    values, of_loss = loss.recorded(y, target)
    value, of_mean = mean.forward(values, weights)
    dvalues, _ = mean.backward(of_mean, jnp.ones_like(value))
    dy, _ = loss.backward(of_loss, dvalues)
    return value, _where_counted(mask, dy)


def _autodiff(model, loss, penalty, params, state, x, target, key, mask, weights, *, train):
    plain_loss = loss.equation if isinstance(loss, Op) else loss
    _refuse_misfits(functools.partial(model.forward, train=train), loss, params, state, x, target, key, mask)

    def cost(params):
        y, new_state = model.equation(params, state, x, train=train, key=key, mask=mask)
        values = plain_loss(_with_stand_ins(mask, y), _with_stand_ins(mask, target))
        value = mean.equation(values, weights)
        return (value if penalty is None else value + penalty.equation(params).astype(value.dtype)), new_state

    return jax.value_and_grad(cost, has_aux=True)(params)


def _refuse_misfits(forward, loss, params, state, x, target, key, mask):
    """The equations have no door, and would broadcast: what they get goes through that of the fast path, as shapes."""
    y, _, _ = jax.eval_shape(lambda *args: forward(*args, key=key, mask=mask), params, state, x)
    values = jax.eval_shape(lambda *args: loss.forward(*args)[0] if isinstance(loss, Op) else loss(*args), y, target)
    if values.shape[:1] != x.shape[:1]:
        refuse("backprop", f"the loss returned {shown(values)} for {x.shape[0]} examples; wanted one value per example")


def counted(x: Any, target: Any, mask: Any, weights: Any) -> tuple[Any, Any, Any]:
    """(target, mask, weights), made consistent: what is masked weighs 0, and what weighs 0 is masked.

    Masked examples may hold NaN, and 0 * NaN is NaN: their targets become 0 here, their x at the model's door.
    """
    for name, array in (("x", x), ("target", target), *([] if weights is None else [("weights", weights)])):
        require_array("backprop", name, array)
        if array.ndim == 0 or array.shape[0] != x.shape[0]:
            refuse("backprop", f"{name} is {shown(array)} and x is {shown(x)}: wanted the same number of examples")
    if x.shape[0] == 0:
        refuse("backprop", f"x is {shown(x)}: the batch is empty and its mean is undefined; leave empty batches out")
    if weights is None:
        return _where_counted(mask, target), mask, None if mask is None else mask.astype(jnp.float32)
    if weights.ndim > 2 or weights.shape != x.shape[: weights.ndim]:
        refuse("backprop", f"weights is {shown(weights)} and x is {shown(x)}: wanted [N] or, for sequences, [N, T]")
    counts = weights != 0
    if mask is not None:
        counts = _padded(mask, weights.ndim) & _padded(counts, mask.ndim)
    shares = counts.astype(jnp.float32) * _padded(weights, counts.ndim).astype(jnp.float32)
    return _where_counted(counts, target), counts, shares


def _with_stand_ins(mask: Any, array: Any) -> Any:
    """What is masked replaced by the first example that counts.

    A plain formula may have an infinite slope at the zeros that masked examples hold, and 0 * inf is NaN; at an example that
    counts its slope is as finite as the rest.
    """
    if mask is None:
        return array
    counts = _over_leading_axes(mask, array)
    first = jnp.argmax(counts.reshape(-1))
    stand_in = array.reshape(-1, *array.shape[counts.ndim :])[first]
    return jnp.where(_padded(counts, array.ndim), array, stand_in[(None,) * counts.ndim])


def _where_counted(mask: Any, array: Any) -> Any:
    if mask is None:
        return array
    return jnp.where(_padded(_over_leading_axes(mask, array), array.ndim), array, jnp.zeros((), array.dtype))


def _over_leading_axes(mask: Any, array: Any) -> Any:
    """A mask [N, T] of an array [N]: an example counts if any of its steps does."""
    return mask if mask.ndim <= array.ndim else mask.any(axis=tuple(range(array.ndim, mask.ndim)))


def _padded(array: Any, rank: int) -> Any:
    """Trailing axes of size 1, up to a rank."""
    return array.reshape(array.shape + (1,) * (rank - array.ndim))


def require_model(where: str, model: Any) -> None:
    if not isinstance(model, Layer):
        refuse_type(where, f"model is {shown(model)}, wanted an fdl.Layer such as fdl.serial(...)")


def require_penalty(where: str, penalty: Any) -> None:
    if penalty is not None and not isinstance(penalty, Op):
        refuse_type(where, f"penalty is {shown(penalty)}, wanted an Op such as fdl.regularizers.l2(1e-4)")


def require_loss(where: str, loss: Any, gradient: str) -> None:
    if gradient not in ("manual", "autodiff"):
        refuse(where, f'gradient is {gradient!r}, wanted "manual" or "autodiff"')
    if isinstance(loss, Op) or (gradient == "autodiff" and callable(loss)):
        return
    if callable(loss):
        refuse_type(
            where,
            f"loss is the plain function {getattr(loss, '__name__', loss)!r}, which has no hand-written backward; make it an "
            'fdl.Op(equation, forward, backward), or ask for gradient="autodiff"',
        )
    refuse_type(where, f"loss is {shown(loss)}, wanted an Op such as fdl.losses.mean_squared_error")
