"""The layers: convolution, depthwise and depthwise separable convolution.

The fan of a kernel, for Glorot or He initialisers, is its receptive field times its channels: fan in |K| I/G, fan out |K| O, as
`jax.nn.initializers` computes it from w [*K, I/G, O].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.compose import serial
from fdl.errors import refuse, refuse_type, require_bool, require_count, shown
from fdl.layer import Layer, Params, Pass, State, bind
from fdl.layers._weights import drawn
from fdl.layers.conv.convolve import op
from fdl.layers.conv.geometry import explicit_padding, per_axis, require_groups
from fdl.op import Op

glorot_uniform = jax.nn.initializers.glorot_uniform()


def init(
    key: Any,
    spec: Any,
    dtype: Any,
    *,
    where: str,
    kernel: tuple,
    features: int | None,
    multiplier: int,
    groups: int | None,
    bias: bool,
    w_init: Callable,
) -> dict:
    """{"w" [*K, I/groups, O], "b"} for examples [*S, I]; O is features or, depthwise, multiplier I."""
    if len(spec.shape) != len(kernel) + 1:
        wanted = {1: "[T, C]", 2: "[H, W, C]", 3: "[D, H, W, C]"}[len(kernel)]
        refuse(where, f"one example has shape {list(spec.shape)}, a kernel of size {list(kernel)} wants {wanted}")
    channels = spec.shape[-1]
    out = features or multiplier * channels
    groups = require_groups(where, groups, channels, out)
    params = {"w": drawn(where, w_init, key, (*kernel, channels // groups, out), dtype)}
    return params | {"b": jnp.zeros(out, dtype)} if bias else params


def settings(
    where: str, kernel_size: Any, strides: Any, padding: Any, dilation: Any, groups: Any, bias: Any, low: int = 0
) -> tuple[tuple, dict[str, Any]]:
    """(kernel, options of the op), as tuples; refuses what no input could fit."""
    if isinstance(kernel_size, int):
        size = kernel_size
        refuse_type(where, f"kernel_size is {size}, wanted one size per axis: ({size},), ({size}, {size}), ...")
    if not isinstance(kernel_size, tuple | list) or not 1 <= len(kernel_size) <= 3:
        refuse(where, f"kernel_size is {kernel_size!r}, wanted 1, 2 or 3 sizes, like (3, 3)")
    rank = len(kernel_size)
    require_bool(where, "bias", bias)
    if groups is not None:
        require_count(where, "groups", groups)
    kernel = per_axis(where, "kernel_size", kernel_size, rank)
    return kernel, {
        "strides": per_axis(where, "strides", strides, rank),
        "padding": padding
        if isinstance(padding, str) and padding in ("SAME", "VALID")
        else explicit_padding(where, padding, rank, low),
        "dilation": per_axis(where, "dilation", dilation, rank),
        "groups": groups,
    }


def built(
    where: str,
    op: Op,
    features: int | None,
    kernel_size: Any,
    strides: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    bias: Any,
    w_init: Callable,
    *,
    multiplier: int = 1,
    low: int = 0,
) -> Layer:
    """The layer of that op; features None: depthwise, multiplier for every input channel. low: see `explicit_padding`."""
    if features is None:
        require_count(where, "multiplier", multiplier)
    else:
        require_count(where, "features", features)
    kernel, options = settings(where, kernel_size, strides, padding, dilation, groups, bias, low)
    shape = {"kernel": kernel, "features": features, "multiplier": multiplier, "groups": groups}
    of_one = bind(init, where=where, bias=bias, w_init=w_init, **shape)
    bound = op.bind(**options)
    return Layer(where, init=bind(_init, init=of_one), run=bind(_run, op=bound), backward=bind(_backward, op=bound))


def _init(key: Any, spec: Any, dtype: Any, *, init: Callable) -> tuple[Params, State]:
    return init(key, spec, dtype), {}


def _run(walk: Pass, params: Params, state: State, x: Any, *, op: Op) -> tuple[Any, State, Any]:
    """Masked steps are padding to those that count."""
    steps = walk.mask if walk.mask is not None and walk.mask.ndim == 2 else None
    x = _counting(steps, x)
    y, residuals = walk.evaluate(op, params, x)
    if steps is not None and y.shape[1] != x.shape[1]:
        refuse(
            op.name,
            f"got a mask of steps, {shown(steps)}, and makes {y.shape[1]} steps of {x.shape[1]}; use strides 1 and padding "
            "'SAME', or no mask",
        )
    return y, state, (residuals, steps)


def _backward(residuals: Any, dy: Any, *, op: Op) -> tuple[Params, Any]:
    residuals, steps = residuals
    dparams, dx = op.backward(residuals, dy)
    return dparams, _counting(steps, dx)


def _counting(steps: Any, x: Any) -> Any:
    if steps is None:
        return x
    return jnp.where(steps.reshape(steps.shape + (1,) * (x.ndim - 2)), x, jnp.zeros((), x.dtype))


def conv(
    features: int,
    kernel_size: tuple[int, ...],
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    groups: int | None = 1,
    bias: bool = True,
    *,
    w_init: Callable = glorot_uniform,
    winograd: bool = True,
) -> Layer:
    """[N, *S, I] -> [N, *P, features]; params {"w" [*K, I/groups, features], "b" [features]}, w Glorot-uniform, b zero.

    kernel_size: (3,) for sequences, (3, 3) for images, (3, 3, 3) for volumes. strides, dilation: one number, or one per axis.
    padding: "SAME", "VALID", a number of cells on every side, or ((before, after), ...) per axis.
    groups: channels meet only within their own group; None is one group per input channel (see `depthwise_conv`).
    winograd: whether a CPU may compute 3x3 kernels of many channels so (winograd.py): 1.6 to 1.9 times as fast with its gradients,
    float32 within 32 eps of the largest entry where the plain products are within 8.
    w_init: an initialiser `(key, shape, dtype) -> array`, as in `jax.nn.initializers`.
    Under a mask of steps [N, T], masked steps are padding to the others; it is refused where the number of steps changes.

        >>> params, _ = fdl.conv(8, (3, 3)).init(jax.random.key(0), (28, 28, 1))
        >>> params["w"].shape, params["b"].shape
        ((3, 3, 1, 8), (8,))
    """
    require_bool("conv", "winograd", winograd)
    require_count("conv", "features", features)
    return built(
        "conv", op.bind(winograd=winograd), features, kernel_size, strides, padding, dilation, groups, bias, w_init
    )


def depthwise_conv(
    kernel_size: tuple[int, ...],
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    bias: bool = True,
    *,
    multiplier: int = 1,
    w_init: Callable = glorot_uniform,
) -> Layer:
    """Every channel by itself, with `multiplier` kernels: [N, *S, I] -> [N, *P, I multiplier]; w [*K, 1, I multiplier].

    >>> params, _ = fdl.depthwise_conv((3, 3)).init(jax.random.key(0), (28, 28, 8))
    >>> params["w"].shape
    (3, 3, 1, 8)
    """
    sizes = (kernel_size, strides, padding, dilation)
    return built("depthwise_conv", op, None, *sizes, None, bias, w_init, multiplier=multiplier)


def separable_conv(
    features: int,
    kernel_size: tuple[int, ...],
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    bias: bool = True,
    *,
    multiplier: int = 1,
    w_init: Callable = glorot_uniform,
) -> Layer:
    """Space first, then channels: `depthwise_conv` without bias, then a convolution of size 1 to `features`.

    |K| I multiplier + I multiplier features weights in place of |K| I features; names: "depthwise" and "pointwise".
    Source: Chollet 2017, section 2.

        >>> params, _ = fdl.separable_conv(16, (3, 3)).init(jax.random.key(0), (28, 28, 8))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))  # fdl.conv(16, (3, 3)) has 1168
        216
    """
    require_count("separable_conv", "features", features)
    kernel, _ = settings("separable_conv", kernel_size, strides, padding, dilation, None, bias)
    return serial(
        depthwise=depthwise_conv(kernel, strides, padding, dilation, False, multiplier=multiplier, w_init=w_init),
        pointwise=conv(features, (1,) * len(kernel), bias=bias, w_init=w_init),
    )
