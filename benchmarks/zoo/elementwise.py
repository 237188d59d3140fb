"""Functions of single numbers: saturating and piecewise ones, and arithmetic with broadcasting."""

import jax
import jax.numpy as jnp

from benchmarks.zoo.case import Zoo, leaf, negated, times, zero

zoo = Zoo("elementwise")


def keep(function, of=lambda x, y: y):
    """A forward pass that keeps the output, or what `of` says."""

    def forward(x):
        y = function(x)
        return y, of(x, y)

    return forward


def the_input(x, y):
    return x


op = zoo.op("tanh", jnp.tanh, keep(jnp.tanh), lambda y, g: (g * (1 - y * y),), lambda r: (r.normal(7, 5),))
op.right("saturated", make=lambda r: (r.normal(31, scale=12),))
op.wrong("sign", "sign", leaf(0, negated))
op.wrong("zero", "missing term", leaf(0, zero), source="jax.test_util at small scale", names=("is zero",))
op.wrong("twice", "factor 2", leaf(0, times(2)))
op.wrong("not squared", "missing factor", lambda y, g: (g * (1 - y),), names=("the factor `1 - tanh",))
op.wrong("cotangent ignored", "cotangent ignored", lambda y, g: (1 - y * y,), source="ones as cotangents hide it")
op.wrong("cotangent squared", "cotangent squared", lambda y, g: (g * g * (1 - y * y),), source="elixir-nx/nx#1779")
op.wrong("its size only", "sign", lambda y, g: (jnp.abs(g) * (1 - y * y),), names=("absolute value",))

op = zoo.op(
    "tanh of the input",
    jnp.tanh,
    keep(jnp.tanh, the_input),
    lambda x, g: (g / jnp.cosh(x) ** 2,),
    lambda r: (r.normal(9),),
)
op.wrong(
    "residual is the input",
    "stale residual",
    lambda x, g: (g * (1 - x * x),),
    names=("takes `args[0]` in place of `tanh(args[0])`",),
)

op = zoo.op(
    "sigmoid", jax.nn.sigmoid, keep(jax.nn.sigmoid), lambda y, g: (g * y * (1 - y),), lambda r: (r.normal(5, 3),)
)
op.right("saturated", make=lambda r: (r.normal(31, scale=30),))
op.wrong("plus for minus", "sign", lambda y, g: (g * y * (1 + y),), names=("`logistic(args[0])` with the wrong sign",))
op.wrong(
    "derivative of another",
    "missing factor",
    lambda y, g: (g * y,),
    names=("takes `logistic(args[0])` in place of", "factor `1 - logistic(args[0])` is missing"),
)
op.wrong(
    "of the derivative again",
    "stale residual",
    lambda y, g: (g * jax.nn.sigmoid(y) * (1 - jax.nn.sigmoid(y)),),
    names=("derivative at the output",),
)

op = zoo.op(
    "softplus",
    jax.nn.softplus,
    keep(jax.nn.softplus, the_input),
    lambda x, g: (g * jax.nn.sigmoid(x),),
    lambda r: (r.normal(6, 3, scale=3),),
)
op.right("far out", make=lambda r: (r.normal(15, scale=60),))
op.wrong(
    "overflows",
    "overflow",
    lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),),
    make=lambda r: (jnp.concatenate([r.normal(6), jnp.asarray([95.0, 100.0], jnp.float32)]),),
    precision=True,
)
op.wrong(
    "logit for probability",
    "stale residual",
    lambda x, g: (g * x,),
    names=("takes `args[0]` in place of", "multiplied by args[0]"),
)


def gelu(x):
    return 0.5 * x * (1 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def gelu_backward(x, g, inner=True, cubic=3.0, outer=True):
    t = jnp.tanh(0.7978845608028654 * (x + 0.044715 * x**3))
    slope = 0.7978845608028654 * (1 + cubic * 0.044715 * x * x)
    return (g * ((0.5 * (1 + t) if outer else 0) + (0.5 * x * (1 - t * t) * slope if inner else 0)),)


op = zoo.op("gelu", gelu, keep(gelu, the_input), gelu_backward, lambda r: (r.normal(5, 7),))
op.right("far out", make=lambda r: (r.normal(21, scale=10),))
op.wrong(
    "without the tanh",
    "missing path through t",
    {"inner": False},
    names=(
        "missing path through `jnp.tanh",
        "missing path through `x + 0.044715 * x**3`",
        "missing path through `0.797",
    ),
)
op.wrong("tanh alone", "missing term", {"outer": False}, names=("missing path through `0.5 * x`",))
op.wrong(
    "x cubed differentiated once",
    "missing factor",
    {"cubic": 1.0},
    names=("path through `x**3`, coefficient -0.667", "factor 3"),
)

op = zoo.op(
    "silu",
    lambda x: x * jax.nn.sigmoid(x),
    lambda x: (x * jax.nn.sigmoid(x), x),
    lambda x, g: (g * jax.nn.sigmoid(x) * (1 + x * (1 - jax.nn.sigmoid(x))),),
    lambda r: (r.normal(4, 9),),
)
op.wrong(
    "gate taken as constant",
    "missing path through the gate",
    lambda x, g: (g * jax.nn.sigmoid(x),),
    names=("missing path through `jax.nn.sigmoid(x)`",),
)
op.wrong(
    "1 for x",
    "missing factor",
    lambda x, g: (g * jax.nn.sigmoid(x) * (2 - jax.nn.sigmoid(x)),),
    names=("`x * jax.nn.sigmoid(x)` by `jax.nn.sigmoid(x)` is taken as 1", "factor `args[0]` is missing"),
)

# ---- kinks


def clip(x):
    return jnp.clip(x, -1.0, 1.0)


def inside(x):
    return (x > -1) & (x < 1)


op = zoo.op(
    "clip",
    clip,
    keep(clip, the_input),
    lambda x, g: (jnp.where(inside(x), g, 0),),
    lambda r: (r.normal(6, 7, scale=1.5),),
)
op.right(
    "bounds included",
    lambda x, g: (jnp.where((x >= -1) & (x <= 1), g, 0),),
    make=lambda r: (r.whole(6, 5),),
    kinks=True,
)
op.wrong(
    "cotangent squared", "cotangent squared", lambda x, g: (jnp.where(inside(x), g * g, 0),), source="elixir-nx/nx#1779"
)
op.wrong(
    "passes outside",
    "missing mask",
    lambda x, g: (g,),
    names=("derivative of `jnp.clip(x, -1.0, 1.0)` by `args[0]` is taken as 1", "mask"),
)
op.wrong(
    "inside and outside swapped",
    "inverted mask",
    lambda x, g: (jnp.where(inside(x), 0, g),),
    names=("mask of `jnp.clip(x, -1.0, 1.0)` by `args[0]` inverted",),
)
op.wrong(
    "upper bound alone",
    "missing mask",
    lambda x, g: (jnp.where(x < 1, g, 0),),
    names=("derivative of `jnp.clip(x, -1.0, 1.0)` by `args[0]` is taken as 1", "a missing mask, where args[0] is"),
)

relu = jax.nn.relu
op = zoo.op("relu", relu, keep(relu, the_input), lambda x, g: (jnp.where(x > 0, g, 0),), lambda r: (r.normal(9, 4),))
op.right("slope 1 at 0", lambda x, g: (jnp.where(x >= 0, g, 0),), make=lambda r: (r.whole(9, 4),), kinks=True)
op.right("slope 1/2 at 0", lambda x, g: (g * 0.5 * (1 + jnp.sign(x)),), make=lambda r: (r.whole(8),), kinks=True)
op.wrong(
    "mask of the cotangent",
    "inverted mask",
    lambda x, g: (jnp.where((x > 0) & (g > 0), g, 0),),
    names=("where the cotangent is negative",),
)
op.wrong(
    "leaks below", "missing mask", lambda x, g: (jnp.where(x > 0, g, 0.01 * g),), names=("where args[0] is negative",)
)
op.wrong(
    "slope 2 at 0",
    "outside the subgradients",
    lambda x, g: (g * (1 + jnp.sign(x)) * jnp.where(x == 0, 2, 0.5),),
    make=lambda r: (r.whole(12),),
    names=("where args[0] is 0",),
)

op = zoo.op("abs", jnp.abs, keep(jnp.abs, the_input), lambda x, g: (g * jnp.sign(x),), lambda r: (r.normal(11, 3),))
op.right("slope 1 at 0", lambda x, g: (jnp.where(x >= 0, g, -g),), make=lambda r: (r.whole(15),), kinks=True)
op.wrong(
    "sign of the cotangent",
    "cotangent ignored",
    lambda x, g: (jnp.sign(x) * jnp.sign(g),),
    names=("sign of the cotangent in place",),
)
op.wrong("without sign", "sign", lambda x, g: (g,), names=("derivative of the function is left out", "is taken as 1"))
op.wrong(
    "-1 at 0 and above",
    "inverted mask",
    lambda x, g: (jnp.where(x > 0.5, g, -g),),
    names=("wrong sign where args[0] is",),
)


def elu(x):
    return jnp.where(x > 0, x, 1.7 * (jnp.exp(jnp.minimum(x, 0)) - 1))


op = zoo.op("elu", elu, keep(elu), lambda y, g: (g * jnp.where(y > 0, 1, y + 1.7),), lambda r: (r.normal(5, 8),))
op.wrong(
    "1 for alpha",
    "missing factor",
    lambda y, g: (g * jnp.where(y > 0, 1, y + 1),),
    names=("factor 1.7", "1 in place of 1.7"),
)

# ---- arithmetic with broadcasting


def scaled(x, s):
    return x * s[None]


op = zoo.op(
    "scale by row",
    scaled,
    lambda x, s: (x * s[None], (x, s)),
    lambda kept, g: (g * kept[1][None], jnp.sum(g * kept[0], axis=0)),
    lambda r: (r.normal(7, 5), r.normal(5)),
)
op.wrong("first row", "broadcast not summed", lambda kept, g: (g * kept[1][None], (g * kept[0])[0]))
op.wrong("mean of rows", "broadcast averaged", leaf(1, times(1 / 7)))
op.wrong(
    "its own square",
    "stale residual",
    lambda kept, g: (g * kept[1][None], jnp.sum(g * kept[0], 0) * kept[1]),
    names=("multiplied by args[1] once too often",),
)

op = zoo.op(
    "divide",
    lambda a, b: a / b[:, None],
    lambda a, b: (a / b[:, None], (a / b[:, None], b)),
    lambda kept, g: (g / kept[1][:, None], -jnp.sum(g * kept[0] / kept[1][:, None], axis=1)),
    lambda r: (r.normal(5, 6), r.positive(5)),
)
op.right("by large numbers", make=lambda r: (r.normal(5, 6, scale=1e-12), r.positive(5, low=1e9, high=1e11)))
op.wrong("sign of the divisor's", "sign", leaf(1, negated))
op.wrong(
    "divisor not squared",
    "missing factor",
    lambda k, g: (g / k[1][:, None], -jnp.sum(g * k[0], axis=1)),
    names=("multiplied by args[1] once too often",),
)
op.wrong("divisor has none", "missing term", leaf(1, zero), names=("is zero",))

op = zoo.op(
    "power",
    lambda x, p: x ** p[None],
    lambda x, p: (x ** p[None], (x, p)),
    lambda k, g: (
        g * k[1][None] * k[0] ** (k[1][None] - 1),
        jnp.sum(g * k[0] ** k[1][None] * jnp.log(k[0]), axis=0),
    ),
    lambda r: (r.positive(7, 3), r.normal(3, mean=2)),
)
op.wrong(
    "exponent's without logarithm",
    "missing factor",
    lambda k, g: (g * k[1][None] * k[0] ** (k[1][None] - 1), jnp.sum(g * k[0] ** k[1][None], axis=0)),
    names=("factor `log", "in place of `log"),
)
op.wrong(
    "exponent not lowered",
    "stale residual",
    lambda k, g: (g * k[1][None] * k[0] ** k[1][None], jnp.sum(g * k[0] ** k[1][None] * jnp.log(k[0]), axis=0)),
    names=("multiplied by args[0] once too often",),
)

op = zoo.op(
    "atan2",
    jnp.arctan2,
    lambda y, x: (jnp.arctan2(y, x), (y, x)),
    lambda k, g: (g * k[1] / (k[0] ** 2 + k[1] ** 2), -g * k[0] / (k[0] ** 2 + k[1] ** 2)),
    lambda r: (r.normal(13), r.normal(13)),
)
op.wrong(
    "arguments swapped",
    "transposed",
    lambda k, g: (-g * k[0] / (k[0] ** 2 + k[1] ** 2), g * k[1] / (k[0] ** 2 + k[1] ** 2)),
    names=("is the gradient of args[1]",),
)
op.wrong(
    "not squared",
    "missing factor",
    lambda k, g: (g * k[1] / jnp.hypot(k[0], k[1]), -g * k[0] / jnp.hypot(k[0], k[1])),
    names=("without its square: its root",),
)

op = zoo.op(
    "select",
    lambda mask, a, b: jnp.where(mask, a, b),
    lambda mask, a, b: (jnp.where(mask, a, b), mask),
    lambda mask, g: (None, jnp.where(mask, g, 0), jnp.where(mask, 0, g)),
    lambda r: (r.mask(5, 6), r.normal(5, 6), r.normal(5, 6)),
)
op.wrong(
    "branches swapped",
    "inverted mask",
    lambda mask, g: (None, jnp.where(mask, 0, g), jnp.where(mask, g, 0)),
    names=("is the gradient of args[2]", "mask args[0] inverted"),
)
op.wrong(
    "both get all",
    "missing mask",
    lambda mask, g: (None, g, g),
    names=("by `args[1]` is taken as 1", "mask args[0] forgotten"),
)
