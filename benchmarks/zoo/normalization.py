"""Statistics and what is normalized by them."""

import jax.numpy as jnp
from jax import lax

from benchmarks.zoo.case import Zoo, leaf, times, zero

zoo = Zoo("normalization", ops=True)


def normalizer(axes, shape=None):
    """Equation, forward and backward of (x - mean) / sqrt(var + eps) * scale + shift; `shape` splits the features into
    groups first."""

    def split(x):
        return x if shape is None else x.reshape(x.shape[0], *shape)

    def equation(params, x):
        z = split(x)
        mean = jnp.mean(z, axis=axes, keepdims=True)
        var = jnp.mean((z - mean) ** 2, axis=axes, keepdims=True)
        xhat = ((z - mean) / jnp.sqrt(var + 1e-5)).reshape(x.shape)
        return xhat * params["scale"][None] + params["shift"][None]

    def forward(params, x):
        z = split(x)
        centred = z - jnp.mean(z, axis=axes, keepdims=True)
        inverse = lax.rsqrt(jnp.mean(centred * centred, axis=axes, keepdims=True) + jnp.asarray(1e-5, x.dtype))
        xhat = (centred * inverse).reshape(x.shape)
        return xhat * params["scale"][None] + params["shift"][None], (params["scale"], xhat, inverse)

    def backward(k, g, through_mean=1.0, through_var=1.0, unbiased=0, scaled=True, inverse_power=1):
        scale, xhat, inverse = k
        z, dz = split(xhat), split(g * scale[None] if scaled else g)
        count = z.size // inverse.size - unbiased
        mean = through_mean * jnp.sum(dz, axis=axes, keepdims=True)
        var = through_var * z * jnp.sum(dz * z, axis=axes, keepdims=True)
        dx = inverse**inverse_power * (dz - (mean + var) / count)
        return {"scale": jnp.sum(g * xhat, 0), "shift": jnp.sum(g, 0)}, dx.reshape(xhat.shape)

    return equation, forward, backward


def parameters(r, features):
    return {"scale": r.normal(features, mean=1, scale=0.3), "shift": r.normal(features)}


op = zoo.op("batch norm", *normalizer(0), lambda r: (parameters(r, 5), r.normal(12, 5, mean=1)))
op.right("mean 1e3", make=lambda r: (parameters(r, 5), r.normal(12, 5, mean=1e3)))
op.right("a constant channel", make=lambda r: (parameters(r, 5), r.normal(12, 5).at[:, 2].set(0.5)))
op.right("64 x 20", make=lambda r: (parameters(r, 20), r.normal(64, 20)))
op.wrong(
    "mean taken as constant", "missing path through mean", {"through_mean": 0.0}, names=("missing path through `mean`",)
)
op.wrong(
    "variance taken as constant",
    "missing path through var",
    {"through_var": 0.0},
    names=("missing path through `var`",),
)
op.wrong(
    "both taken as constant",
    "missing path through mean",
    {"through_mean": 0.0, "through_var": 0.0},
    names=("missing paths through `mean` and `var`",),
)
op.wrong(
    "m - 1 for m",
    "1/(m-1) for 1/m",
    {"unbiased": 1},
    make=lambda r: (parameters(r, 20), r.normal(64, 20)),
    source="check_grads, measured",
)
op.wrong(
    "scale left out",
    "missing factor",
    {"scaled": False},
    names=("divided by params['scale'] once too often", "by `xhat` is taken as 1"),
)
op.wrong("variance's sign", "sign", {"through_var": -1.0}, names=("path through `var` with the wrong sign",))
op.wrong("dshift averaged", "broadcast averaged", leaf(1, times(1 / 12)))
op.wrong(
    "dscale of the output",
    "stale residual",
    lambda k, g: ({"scale": jnp.sum(g * k[1] * k[0][None], 0), "shift": jnp.sum(g, 0)}, normalizer(0)[2](k, g)[1]),
    names=("multiplied by params['scale'] once too often",),
)

op = zoo.op("layer norm", *normalizer(1), lambda r: (parameters(r, 9), r.normal(4, 9)))
op.right("small numbers", make=lambda r: (parameters(r, 9), r.normal(4, 9, scale=1e-4)))
op.wrong(
    "mean taken as constant", "missing path through mean", {"through_mean": 0.0}, names=("missing path through `mean`",)
)
op.wrong(
    "variance taken as constant",
    "missing path through var",
    {"through_var": 0.0},
    names=("missing path through `var`",),
)
op.wrong("D - 1 for D", "1/(m-1) for 1/m", {"unbiased": 1})
op.wrong(
    "inverse deviation squared",
    "missing factor",
    {"inverse_power": 2},
    names=("divided by `jnp.sqrt(var + 1e-5)` once too often",),
)
op.wrong("dscale zero", "missing term", leaf(0, zero), names=("is zero",))

op = zoo.op("group norm", *normalizer(2, (3, 4)), lambda r: (parameters(r, 12), r.normal(5, 12)))
op.wrong(
    "scale left out",
    "missing factor",
    {"scaled": False},
    names=("divided by params['scale'] once too often", "by `xhat` is taken as 1"),
)
op.wrong("statistics of all groups", "wrong axis", normalizer((1, 2), (3, 4))[2], names=("runs over axis",))


def rms(x):
    return jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def rms_backward(k, g, projected=1.0, count=7.0):
    scale, xhat, length = k
    dz = g * scale[None]
    return jnp.sum(g * xhat, 0), (dz - projected * xhat * jnp.sum(dz * xhat, -1, keepdims=True) / count) / length


op = zoo.op(
    "rms norm",
    lambda scale, x: x / rms(x) * scale[None],
    lambda scale, x: (x / rms(x) * scale[None], (scale, x / rms(x), rms(x))),
    rms_backward,
    lambda r: (r.normal(7, mean=1), r.normal(6, 7)),
)
op.wrong(
    "length taken as constant",
    "missing path through the norm",
    {"projected": 0.0},
    names=("missing path through `jnp.mean(x * x", "missing path through `rms(x)`", "missing path through `jnp.sqrt"),
)
op.wrong("sum for mean", "missing 1/m", {"count": 1.0}, names=("summed in place of averaged, over 7",))
op.wrong(
    "twice the projection",
    "factor 2",
    {"projected": 2.0},
    names=("path through `jnp.mean(x * x, axis=-1, keepdims=True)` twice", "path through `rms(x)` twice"),
)


def unit(v):
    return v / jnp.linalg.norm(v, axis=0, keepdims=True)


def weight_norm_backward(k, g, projected=1.0, scaled=True):
    v, s, x = k
    u, dw = unit(v), x.T @ g
    ds = jnp.sum(dw * u, axis=0)
    dv = (s[None] if scaled else 1) * (dw - projected * u * ds[None]) / jnp.linalg.norm(v, axis=0, keepdims=True)
    return dv, ds, g @ (u * s[None]).T


op = zoo.op(
    "weight norm",
    lambda v, s, x: x @ (unit(v) * s[None]),
    lambda v, s, x: (x @ (unit(v) * s[None]), (v, s, x)),
    weight_norm_backward,
    lambda r: (r.normal(5, 3), r.normal(3), r.normal(6, 5)),
)
op.wrong(
    "projection left out",
    "missing path through the norm",
    {"projected": 0.0},
    names=("missing path through `jnp.linalg.norm(v",),
)
op.wrong("gain left out", "missing factor", {"scaled": False}, names=("divided by s once too often",))


def standardized(x, mean, var):
    return (x - mean[None]) / jnp.sqrt(var[None] + 1e-5)


def standardized_backward(k, g, power=3):
    centred, var = k
    inverse = lax.rsqrt(var + 1e-5)
    dx = g * inverse[None]
    return dx, -jnp.sum(dx, 0), -0.5 * jnp.sum(g * centred, 0) * inverse**power


op = zoo.op(
    "batch norm inference",
    standardized,
    lambda x, mean, var: (standardized(x, mean, var), (x - mean[None], var)),
    standardized_backward,
    lambda r: (r.normal(8, 3), r.normal(3), r.positive(3)),
)
op.wrong("no gradient of the statistics", "missing term", leaf(1, zero), names=("dmean is zero",))
op.wrong(
    "power of the variance",
    "missing factor",
    {"power": 1},
    names=("multiplied by var once too often", "multiplied by `var[None] + 1e-5`"),
)
op.wrong("variance's without the half", "factor 2", leaf(2, times(2)), names=("dvar is twice",))


def fast_variance(x):
    mean = jnp.mean(x, axis=0)
    return jnp.mean((x - mean[None]) ** 2, axis=0)


op = zoo.op(
    "centred moments",
    fast_variance,
    lambda x: (fast_variance(x), x),
    lambda x, g: (2 * (x - jnp.mean(x, axis=0, keepdims=True)) * g[None] / x.shape[0],),
    lambda r: (r.normal(9, 4, mean=100),),
)
op.wrong(
    "not centred",
    "missing path through mean",
    lambda x, g: (2 * x * g[None] / x.shape[0],),
    names=("`x` in place of `x - mean",),
)
