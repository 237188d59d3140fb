"""Transposed convolution: the adjoint of a convolution, which makes larger arrays out of smaller ones.

    y[n, q, o] = b[o] + sum over (p, k) with q = s p + d k - lo of sum_i x[n, p, i] w[k, i, o]

Every input cell stamps the kernel onto the output, s cells apart; stamps that overlap add up. With C the convolution that has the
same strides, padding and dilation, and the kernel w'[k, o, i] = w[k, i, o] from outputs to inputs: <C z, x> = <z, y - b> for all z, x;
y - b is what C's backward makes of the error x.

Backward. y is linear in x and in w, so the cotangents are those of the adjoint, with x and dy in each other's place:

    dx[n, p, i] = sum_k sum_o dy[n, s p + d k - lo, o] w[k, i, o]        dx = C dy: an ordinary convolution
    dw[k, i, o] = sum_n sum_p x[n, p, i] dy[n, s p + d k - lo, o]        what C's backward gives for the kernel, error and input exchanged
    db[o]       = sum_n sum_q dy[n, q, o]

Sizes, with extent = d (K - 1) + 1: "SAME" gives inputs * s; "VALID" inputs * s + max(extent - s, 0); explicit (lo, hi) give
(inputs - 1) s + extent - lo - hi. hi may be negative, down to 1 - s: cells that no stamp reaches.

Conventions. The kernel is stamped as it is, as in PyTorch and Keras; `lax.conv_transpose` and Flax stamp it flipped, unless
transpose_kernel=True, which is this function for w with its last two axes exchanged. "SAME" and "VALID" are as in lax and Keras.
PyTorch's padding p, output_padding r is padding=((p, p - r), ...) here.

Shapes: x [N, *S, I], w [*K, I/G, O], b [O] (params may lack it), y [N, *Q, O]; G groups, as in conv. 16-bit inputs are accumulated in
float32 and rounded once. Errors: as conv. Source: Zeiler, Krishnan, Taylor & Fergus 2010; Dumoulin & Visin 2016, chapter 4.

    >>> params = {"w": jnp.float32([1, 2]).reshape(2, 1, 1)}
    >>> fdl.ops.conv_transpose(params, jnp.float32([1, 10]).reshape(1, 2, 1), strides=2).ravel()
    Array([ 1.,  2., 10., 20.], dtype=float32)
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from fdl.errors import refuse, require_count
from fdl.layer import Layer
from fdl.layers.conv import choice
from fdl.layers.conv.convolve import require_params
from fdl.layers.conv.formulations import exchanged
from fdl.layers.conv.geometry import Geometry, explicit_padding, per_axis, require_groups, same_padding
from fdl.layers.conv.layer import built, glorot_uniform
from fdl.op import Op, accumulator


def equation(params, x, *, strides=1, padding="SAME", dilation=1, groups=1):
    g = _checked(params, x, strides, padding, dilation, groups)
    w, i = params["w"], x.shape[-1] // g.groups
    sizes = tuple(max(used, lo + size) for used, (lo, _), size in zip(g.used, g.padding, g.inputs, strict=True))
    y = jnp.zeros((x.shape[0], *sizes, w.shape[-1]), x.dtype)
    x = x.reshape(*x.shape[:-1], g.groups, i)
    for k in g.offsets:
        stamp = jnp.einsum("...gi,igo->...go", x, w[k].reshape(i, g.groups, -1))
        axes = zip(k, g.dilation, g.strides, g.outputs, strict=True)
        cells = tuple(slice(d * n, d * n + s * (p - 1) + 1, s) for n, d, s, p in axes)
        y = y.at[(slice(None), *cells)].add(stamp.reshape(*stamp.shape[:-2], w.shape[-1]))
    cut = tuple(slice(lo, lo + size) for (lo, _), size in zip(g.padding, g.inputs, strict=True))
    y = y[(slice(None), *cut)]
    return y + params["b"].reshape((1,) * (y.ndim - 1) + (-1,)) if "b" in params else y


def forward(params, x, *, strides, padding, dilation, groups):
    g = _checked(params, x, strides, padding, dilation, groups)
    y = choice.dx(x, exchanged(params["w"], g.groups), params.get("b"), g)
    return y, (params, x)


def backward(residuals, dy, *, strides, padding, dilation, groups):
    params, x = residuals
    w = params["w"]
    g = _geometry(x, w, strides, padding, dilation, groups)
    dparams = {"w": exchanged(choice.dw(dy, x, g), g.groups)}
    if "b" in params:
        axes = tuple(range(dy.ndim - 1))
        dparams["b"] = jnp.sum(dy, axis=axes, dtype=accumulator(dy.dtype)).astype(dy.dtype)
    return dparams, choice.forward(dy, exchanged(w, g.groups), None, g, False)


op = Op(equation, forward, backward)


def _checked(params: Any, x: Any, strides: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
    require_params("conv_transpose", params, x, groups)
    return _geometry(x, params["w"], strides, padding, dilation, groups)


def _geometry(x: Any, w: Any, strides: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
    """Of the convolution that takes y to x."""
    where, kernel, made = "conv_transpose", tuple(w.shape[:-2]), tuple(x.shape[1:-1])
    rank = len(kernel)
    groups = require_groups(where, groups, x.shape[-1], w.shape[-1])
    strides, dilation = per_axis(where, "strides", strides, rank), per_axis(where, "dilation", dilation, rank)
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    if padding == "SAME":
        outputs = tuple(n * s for n, s in zip(made, strides, strict=True))
        pads = same_padding(outputs, extent, strides)
    elif padding == "VALID":
        outputs = tuple(n * s + max(e - s, 0) for n, e, s in zip(made, extent, strides, strict=True))
        pads = ((0, 0),) * rank
    else:
        pads = explicit_padding(where, padding, rank, 1 - max(strides))
        axes = zip(made, extent, strides, pads, strict=True)
        outputs = tuple((n - 1) * s + e - lo - hi for n, e, s, (lo, hi) in axes)
    for n, s, (_, hi) in zip(made, strides, pads, strict=True):
        if n < 1 or hi <= -s:
            after = ", ".join(str(1 - s) for s in strides)
            refuse(
                where,
                f"x has shape {list(x.shape)}, padding is {padding!r}, strides are {strides}; wanted at least one cell along "
                f"every axis, and padding after of at least {after}: what lies further no input cell decides",
            )
    if min(outputs) < 1:
        refuse(
            where, f"no output: sizes would be {list(outputs)} for x {list(x.shape)}; use less padding than {padding!r}"
        )
    return Geometry(outputs, kernel, strides, pads, dilation, groups)


def conv_transpose(
    features: int,
    kernel_size: tuple[int, ...],
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    groups: int | None = 1,
    bias: bool = True,
    *,
    w_init: Callable = glorot_uniform,
) -> Layer:
    """[N, *S, I] -> [N, *Q, features], about `strides` times as large; params {"w" [*K, I/groups, features], "b" [features]}.

    The arguments are those of `conv`; padding is that of the convolution whose adjoint this is.

        >>> model = fdl.conv_transpose(3, (2, 2), strides=2)
        >>> params, state = model.init(jax.random.key(0), (7, 7, 8))
        >>> model.apply(params, state, jnp.ones((1, 7, 7, 8), jnp.float32))[0].shape
        (1, 14, 14, 3)
    """
    steps = per_axis("conv_transpose", "strides", strides, len(strides) if isinstance(strides, tuple | list) else 1)
    require_count("conv_transpose", "features", features)
    low = 1 - max(steps, default=1)
    sizes = (kernel_size, strides, padding, dilation)
    return built("conv_transpose", op, features, *sizes, groups, bias, w_init, low=low)
