"""Both ways through time: y = [f(x), flip(g(flip(x)))], f and g alike with weights of their own.

Backward. Two paths from x, so their errors add: dx = df(dy[f]) + flip(dg(flip(dy[g]))).

With a layer that returns its final state, y = [f(x), g(flip(x))]: what each knows at its end. A mask is turned round with x;
masked steps leave the state as it is, so padding at the end is passed over at the beginning. Source: Schuster & Paliwal 1997.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from fdl.compose import parallel
from fdl.errors import refuse, refuse_type, shown
from fdl.layer import Layer, Params, Pass, State, bind
from fdl.op import Static


def bidirectional(layer: Layer, combine: str = "concat") -> Layer:
    """[N, T, I] -> [N, T, 2D], or [N, 2D] of a layer that returns its final state; with combine="add" [N, T, D] or [N, D].

    params {"forward": ..., "backward": ...}, each as of the layer. The layer may be several in series.

        >>> model = fdl.bidirectional(fdl.gru(4))
        >>> params, state = model.init(jax.random.key(0), (7, 3))
        >>> model.apply(params, state, jnp.ones((2, 7, 3), jnp.float32))[0].shape
        (2, 7, 8)
    """
    if not isinstance(layer, Layer):
        refuse_type("bidirectional", f"layer is {shown(layer)}, wanted a layer over sequences: fdl.gru(64)")
    return parallel(forward=layer, backward=turned(layer), combine=combine)


def turned(layer: Layer) -> Layer:
    """The layer run from the last step to the first; y stands in the order of x."""
    return Layer(
        layer.name,
        init=bind(_init, layer=layer),
        run=bind(_run, layer=layer),
        backward=bind(_backward, layer=layer),
        stochastic=layer.stochastic,
        examples=layer.examples,
    )


def _init(key: Any, spec: Any, dtype: Any, *, layer: Layer) -> tuple[Params, State]:
    return layer._init(key, spec, dtype)


def _run(walk: Pass, params: Params, state: State, x: Any, *, layer: Layer) -> tuple[Any, State, Any]:
    if x.ndim < 3:
        refuse("bidirectional", f"x has shape {list(x.shape)}, wanted [N, T, I]: examples, time steps, features")
    mask = walk.mask if walk.mask is None or walk.mask.ndim == 1 else jnp.flip(walk.mask, 1)
    y, state, residuals = layer._run(dataclasses.replace(walk, mask=mask), params, state, jnp.flip(x, 1))
    over_time = y.ndim == x.ndim
    return jnp.flip(y, 1) if over_time else y, state, (residuals, Static(over_time))


def _backward(residuals: Any, dy: Any, *, layer: Layer) -> tuple[Params, Any]:
    residuals, over_time = residuals
    dparams, dx = layer.backward(residuals, jnp.flip(dy, 1) if over_time.value else dy)
    return dparams, jnp.flip(dx, 1)
