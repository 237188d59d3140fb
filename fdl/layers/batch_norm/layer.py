"""The layer: the batch's own statistics in training, running averages of them in use.

In training, after a batch of m entries per feature with mean and variance (1/m),

    mean_running <- momentum mean_running + (1 - momentum) mean
    var_running  <- momentum var_running  + (1 - momentum) var m/(m - 1)
    weight       <- momentum weight       + (1 - momentum)

all from 0. In use, mean_running / weight and var_running / weight normalize: weight = 1 - momentum^steps is what the averages
have seen, and dividing by it makes a short run right (without it, after 100 steps at 0.99, a third of the average would be the
value it started with). m/(m - 1) makes the variance unbiased, as Algorithm 2 has it (PyTorch does, Keras, Flax, Haiku and
Equinox do not). A batch of one entry says nothing of a variance, and leaves the averages as they are. Before any training the
statistics are mean 0, variance 1.

momentum is what is kept, as in Keras, Flax, Haiku and Equinox; PyTorch's `momentum` is what is new: `update=0.1` here is
`momentum=0.9`.

A bias before this layer has no effect (the mean takes it out) and no gradient: `fdl.dense(100, bias=False)`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_bool, require_number, require_rank_at_least
from fdl.layer import Layer, Params, Pass, State, bind
from fdl.layers._affine import init_affine
from fdl.layers._moments import how_many
from fdl.layers.batch_norm import inference
from fdl.layers.batch_norm.normalize import EPS, along, op, reduced
from fdl.op import Op, accumulator

MOMENTUM = 0.99


def batch_norm(
    momentum: Any = MOMENTUM,
    eps: Any = EPS,
    *,
    update: Any = None,
    per: str = "channel",
    scale: bool = True,
    shift: bool = True,
    fast: bool = False,
    axis_name: Any = None,
) -> Layer:
    """[N, ..., C] -> the same, normalized over all axes but the last (or over the batch alone: per="activation").

    params {"scale": 1, "shift": 0}, state {"mean", "var", "weight"}. Masks leave examples, or steps of a sequence, out.
    momentum: the share of the running averages that is kept; or update, the share that is new (PyTorch's momentum).

        >>> params, state = fdl.batch_norm().init(jax.random.key(0), (5,))
        >>> params["scale"].shape, sorted(state)
        ((5,), ['mean', 'var', 'weight'])
    """
    where = "batch_norm"
    if update is not None:
        if momentum is not MOMENTUM:
            refuse(where, f"got momentum {momentum!r} and update {update!r}, wanted one of them: update = 1 - momentum")
        require_number(where, "update", update, 0, 1, remedy="it is the share of the averages that is new")
        momentum = 1 - update
    require_number(where, "momentum", momentum, 0, 1, remedy="it is the share of the running averages that is kept")
    require_number(where, "eps", eps, 0, float("inf"), remedy="it is added to the variance, 1e-5 by default")
    for name, value in (("scale", scale), ("shift", shift), ("fast", fast)):
        require_bool(where, name, value)
    if per not in ("channel", "activation"):
        refuse(where, f'per is {per!r}, wanted "channel" (one mean per feature map) or "activation" (one per entry)')
    in_training = op.bind(eps=eps, per=per, axis_name=axis_name, fast=fast)
    in_use = inference.op.bind(eps=eps, per=per)
    return Layer(
        "batch_norm",
        init=bind(_init, per=per, scale=scale, shift=shift),
        run=bind(_run, in_training=in_training, in_use=in_use, momentum=momentum, per=per, axis_name=axis_name),
        backward=bind(_backward, in_training=in_training, in_use=in_use, per=per),
    )


def with_momentum(layer: Layer, momentum: Any) -> Layer:
    """The same layer, which keeps another share of its running averages."""
    settings = {name: kept.value for name, kept in layer._run.settings} | {"momentum": momentum}
    return Layer(layer.name, init=layer._init, run=bind(_run, **settings), backward=layer._backward)


def _init(key: Any, spec: Any, dtype: Any, *, per: str, scale: bool, shift: bool) -> tuple[Params, State]:
    require_rank_at_least("batch_norm", "one example", spec, 1, "features last")
    features, wide = spec.shape if per == "activation" else spec.shape[-1:], accumulator(dtype)
    params = init_affine(features, dtype, scale, shift)
    return params, {"mean": jnp.zeros(features, wide), "var": jnp.zeros(features, wide), "weight": jnp.zeros((), wide)}


def _run(
    walk: Pass,
    params: Params,
    state: State,
    x: Any,
    *,
    in_training: Op,
    in_use: Op,
    momentum: Any,
    per: str,
    axis_name: Any,
):
    if not walk.train:
        y, residuals = walk.evaluate(in_use, params, x, *statistics(state))
        return y, state, (residuals, None)
    mask = _that_counts(walk.mask, x, per)
    (y, batch), residuals = walk.evaluate(in_training, params, x, mask)
    count = how_many(x.astype(batch["mean"].dtype), reduced(x, per), along(mask, x), axis_name)
    return y, averaged(state, jax.lax.stop_gradient(batch), jnp.ravel(jnp.asarray(count)), momentum), (None, residuals)


def _that_counts(mask: Any, x: Any, per: str) -> Any:
    """The mask of the walk, [N] or [N, T], as this x needs it."""
    if mask is None or mask.ndim == 1:
        return mask
    if x.ndim == 2:  # no steps are left: a pooling, or the last step, made one of those that count
        return mask.any(axis=1)
    return mask.all(axis=1) if per == "activation" else mask


def _backward(residuals: Any, dy: Any, *, in_training: Op, in_use: Op, per: str) -> tuple[Params, Any]:
    used, trained = residuals
    if trained is None:
        return in_use.backward(used, dy)[:2]
    nothing = jnp.zeros(dy.shape[1:] if per == "activation" else dy.shape[-1:], accumulator(dy.dtype))
    return in_training.backward(trained, (dy, {"mean": nothing, "var": nothing}))[:2]


def debiased(state: State) -> State:
    """The running averages divided by what they have seen, weight 1; all 0 where they have seen nothing."""
    weight = state["weight"]
    divisor = jnp.where(weight > 0, weight, jnp.ones_like(weight))
    return {name: state[name] / divisor for name in state}


def statistics(state: State) -> tuple[Any, Any]:
    """(mean, var) of the running averages, 0 and 1 where there are none."""
    kept = debiased(state)
    return kept["mean"], jnp.where(kept["weight"] > 0, kept["var"], jnp.ones_like(kept["var"]))


def averaged(state: State, batch: dict[str, Any], count: Any, momentum: Any) -> State:
    """The running averages after a batch of so many entries per feature."""
    dtype = state["mean"].dtype
    count = jnp.max(count.astype(dtype))  # one number: a mask says the same of every feature
    new = jnp.where(count > 1, 1 - jnp.asarray(momentum, dtype), jnp.zeros((), dtype))
    unbiased = batch["var"].astype(dtype) * count / jnp.maximum(count - 1, 1)
    seen = {"mean": batch["mean"].astype(dtype), "var": unbiased, "weight": jnp.ones((), dtype)}
    return {name: state[name] + new * (seen[name] - state[name]) for name in state}
