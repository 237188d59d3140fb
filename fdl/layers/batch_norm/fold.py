"""Folding: in use, a batch_norm after a dense or convolutional layer is part of that layer.

    scale (x w + b - mean) / sqrt(var + eps) + shift = x (w a) + (b - mean) a + shift          a = scale / sqrt(var + eps)

a multiplies the columns of w, one for each feature it makes. The result computes the same up to rounding, without the
normalization: fewer layers, no state.
"""

import jax
import jax.numpy as jnp

from fdl.compose import rebuilt
from fdl.errors import refuse, refuse_type, shown
from fdl.layer import Layer, Params, State

_LINEAR = ("dense", "conv", "depthwise_conv", "conv_transpose")


def fold(model: Layer, params: Params, state: State) -> tuple[Layer, Params, State]:
    """(model, params, state) in which every batch_norm that follows a dense or convolutional layer is gone.

    The layer that it follows is the one before it or, where that is a serial (separable_conv is one), the last in there. For use,
    not for training. The other layers keep their names; a batch_norm elsewhere (after an activation, per activation) stays as it
    is.
    """
    if not isinstance(model, Layer):
        refuse_type("batch_norm.fold", f"model is {shown(model)}, wanted an fdl.Layer")
    if not model.layers:
        return model, params, state
    kept: list[tuple[str, Layer]] = []
    new_params, new_state = {}, {}
    for name, layer in model.layers:
        inner = fold(layer, params.get(name, {}), state.get(name, {}))
        follows = kept[-1] if kept and model.name in ("serial", "residual") and name != "shortcut" else None
        if layer.name == "batch_norm" and follows and _linear(follows[1]) and _per_feature(inner[2]):
            new_params[follows[0]] = _folded(follows[1], new_params[follows[0]], layer, inner[1], inner[2])
            continue
        kept.append((name, inner[0]))
        new_params |= {name: inner[1]} if inner[1] else {}
        new_state |= {name: inner[2]} if inner[2] else {}
    return rebuilt(model, tuple(kept)), new_params, new_state


def _per_feature(state: State) -> bool:
    if "mean" not in state:
        refuse(
            "batch_norm.fold",
            f"the state of a batch_norm is {sorted(state)}, wanted what model.init made and training kept",
        )
    return state["mean"].ndim == 1


def _linear(layer: Layer) -> bool:
    """Whether the last thing it does is an affine map with a weight for each feature."""
    return layer.name in _LINEAR or (layer.name == "serial" and bool(layer.layers) and _linear(layer.layers[-1][1]))


def _folded(before: Layer, params: Params, layer: Layer, affine: Params, state: State) -> Params:
    if before.layers:
        name, last = before.layers[-1]
        return params | {name: _folded(last, params[name], layer, affine, state)}
    w, wide = params["w"], state["mean"].dtype
    b = params["b"].astype(wide) if "b" in params else jnp.zeros(w.shape[-1:], wide)
    affine = {name: value.astype(wide) for name, value in affine.items()}
    # in use the layer is an affine map of each feature: the new bias is where it takes the old one, a is its derivative
    b, pull = jax.vjp(lambda b: layer.apply(affine, state, b[None])[0][0], b)
    (a,) = pull(jnp.ones_like(b))
    return {"w": (w.astype(wide) * a.reshape((1,) * (w.ndim - 1) + (-1,))).astype(w.dtype), "b": b.astype(w.dtype)}
