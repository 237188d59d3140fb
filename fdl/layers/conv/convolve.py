"""Convolution in 1, 2 or 3 dimensions, with strides, padding, dilation and groups.

    y[n, p, o] = b[o] + sum_k sum_i x[n, s p + d k - lo, i] w[k, i, o]        x is 0 outside its cells

p, q and k are cells of the output, the input and the kernel, one number per spatial axis; s stride, d dilation, lo the padding before.
The kernel is not flipped (a correlation, as everywhere in deep learning). With G groups, output channel o sees only the
I/G input channels of its own group, and w has only these.

Backward. The input cell q = s p + d k - lo enters y[p] once for every k that has such a p. So for a cotangent dy

    db[o]       = sum_n sum_p dy[n, p, o]
    dw[k, i, o] = sum_n sum_p x[n, s p + d k - lo, i] dy[n, p, o]       the input against the error: w[k] is a dense layer that
                                                                        sees x shifted by d k, and every place is an example
    dx[n, q, i] = sum_k sum_o dy[n, (q + lo - d k) / s, o] w[k, i, o]   over the k for which that cell of dy is whole and there

With s = 1 and k' = K - 1 - k, q + lo - d k = q + d k' - (d (K - 1) - lo): dx is again a convolution, of dy with the kernel flipped in
space and its channels exchanged, padded by d (K - 1) - lo before; the dilation stays where it is. A stride s leaves only each s-th
cell: that is the same convolution of dy with s - 1 zeros put between its cells, or, without the zeros, one convolution for each of the
s phases of q + lo, with each s-th cell of the kernel. Groups stay apart: each has its own dw and its own part of dx.

Limits: cells that no output sees (a stride that does not fit, VALID) have dx = 0 exactly. Padding is 0, so NaN or infinity in x
reaches the outputs that see it and no others, but on CPU for 3x3 kernels of many channels (winograd.py), where it reaches its tiles, and
for few channels (wide, in formulations.py), where it may reach the next outputs along the last axis.

Shapes: x [N, *S, I], w [*K, I/G, O], b [O] (params may lack it), y [N, *P, O], with P in geometry.py; sequences NTD, images NHWC,
volumes NDHWC. 16-bit inputs are accumulated in float32 and rounded once. How it is computed: choice.py; `winograd`,
a static option, says whether winograd.py may, whose float32 is within 32 eps of the largest entry in place of 8.
Errors: InputError for ranks, channels that do not fit the groups, no output; InputTypeError for dtypes.
Source: LeCun, Bottou, Bengio & Haffner 1998, section II; Dumoulin & Visin 2016 for the strided and dilated cases.

    >>> params = {"w": jnp.float32([1, -1]).reshape(2, 1, 1)}  # [K, I, O]
    >>> fdl.ops.conv(params, jnp.float32([1, 4, 9]).reshape(1, 3, 1), padding="VALID").ravel()
    Array([-3., -5.], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp

from fdl.errors import refuse, require_bool, require_float, require_same_dtype
from fdl.layers.conv import choice
from fdl.layers.conv.geometry import Geometry, geometry, require_groups
from fdl.op import Op, accumulator


def equation(params, x, *, strides=1, padding="SAME", dilation=1, groups=1, winograd=True):
    g = checked("conv", params, x, strides, padding, dilation, groups)
    w, i = params["w"], x.shape[-1] // g.groups
    # as many cells around x as any output sees
    around = [(lo, max(0, used - lo - size)) for (lo, _), used, size in zip(g.padding, g.used, g.inputs, strict=True)]
    x = jnp.pad(x, ((0, 0), *around, (0, 0)))
    y = jnp.zeros((x.shape[0], *g.outputs, g.groups, w.shape[-1] // g.groups), x.dtype)
    for k in g.offsets:
        axes = zip(k, g.dilation, g.strides, g.outputs, strict=True)
        cells = tuple(slice(d * n, d * n + s * (p - 1) + 1, s) for n, d, s, p in axes)
        seen = x[(slice(None), *cells)]  # [N, *P, I]
        seen = seen.reshape(*seen.shape[:-1], g.groups, i)
        y = y + jnp.einsum("...gi,igo->...go", seen, w[k].reshape(i, g.groups, -1))
    y = y.reshape(*y.shape[:-2], w.shape[-1])
    return y + params["b"].reshape((1,) * (y.ndim - 1) + (-1,)) if "b" in params else y


def forward(params, x, *, strides, padding, dilation, groups, winograd):
    require_bool("conv", "winograd", winograd)
    g = checked("conv", params, x, strides, padding, dilation, groups)
    # patches are not kept: |K| times the input; where they cost more than they weigh, XLA finds the common subexpression
    return choice.forward(x, params["w"], params.get("b"), g, winograd), (params, x)


def backward(residuals, dy, *, strides, padding, dilation, groups, winograd):
    params, x = residuals
    g = geometry("conv", x, params["w"], strides, padding, dilation, groups)
    dw, dx = choice.gradients(x, params["w"], dy, g, winograd)
    dparams = {"w": dw}
    if "b" in params:
        axes = tuple(range(dy.ndim - 1))
        dparams["b"] = jnp.sum(dy, axis=axes, dtype=accumulator(dy.dtype)).astype(params["b"].dtype)
    return dparams, dx


op = Op(equation, forward, backward, name="conv")


def checked(where: str, params: Any, x: Any, strides: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
    require_params(where, params, x, groups)
    return geometry(where, x, params["w"], strides, padding, dilation, groups)


def require_params(where: str, params: Any, x: Any, groups: Any) -> None:
    """{"w" [*K, I/groups, O], "b" [O] or none} that fit x [N, *S, I]."""
    if not isinstance(params, dict) or "w" not in params or set(params) - {"w", "b"}:
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        refuse(
            where, f'params is {got}, wanted a dict with "w" [*K, I/groups, O] and, with bias, "b" [O]; init makes it'
        )
    w = params["w"]
    require_float(where, "x", x)
    require_float(where, "w", w)
    if not 3 <= w.ndim <= 5 or 0 in w.shape[:-2] or not w.shape[-1]:
        wanted = "[*K, I/groups, O] with 1, 2 or 3 kernel sizes, none of them 0, nor O"
        refuse(where, f"w has shape {list(w.shape)}, wanted {wanted}")
    if x.ndim != w.ndim:
        refuse(
            where,
            f"x has shape {list(x.shape)}, w {list(w.shape)}: a kernel of rank {w.ndim - 2} wants x of rank {w.ndim}, "
            f"[N, {', '.join({1: 'T', 2: 'HW', 3: 'DHW'}.get(w.ndim - 2, 'S'))}, C]; add the axis that is missing",
        )
    require_same_dtype(where, "x", x, "w", w)
    features, (per_group, out) = x.shape[-1], w.shape[-2:]
    groups = require_groups(where, groups, features, out)
    if features // groups != per_group:
        refuse(
            where,
            f"got channels {features} in {groups} group(s), its weights want {per_group * groups}: "
            f"x has shape {list(x.shape)}, w {list(w.shape)}; check the layer before, or groups",
        )
    if "b" in params:
        require_float(where, "b", params["b"])
        if params["b"].shape != w.shape[-1:]:
            refuse(where, f"b has shape {list(params['b'].shape)}, wanted {list(w.shape[-1:])}, the outputs of w")
        require_same_dtype(where, "w", w, "b", params["b"])
