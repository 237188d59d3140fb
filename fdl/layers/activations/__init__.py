"""Elementwise activations: one table of functions with their derivatives, and the loop that makes ops and layers of it.

    y[i] = f(x[i])        dx[i] = dy[i] f'(x[i])        the Jacobian is diagonal: every unit answers for itself alone

`ACTIVATIONS[name]` is a row: the textbook `equation`, the stable `f`, `f1` = f' and `f2` = f'', and the facts that a
reader of gradients wants (`facts(**options)`: sup |f'|, where f' fades, where it is 0, kinks). `OPS[name]` is the Op,
and `<name>(...)` makes the Layer.

prelu, softmax, log_softmax, sparsemax and glu have parameters or mix units: each has a file of its own, with these facts.

A new row: its equation in equations.py, f, f1 and f2 in stable.py, row and constructor here, its truth in the tests.

Conventions.
- Kinks. f' is 0 wherever 0 is a subgradient. Elsewhere the row says which one-sided slope is taken, and what `jax.nn`
  and PyTorch take if they differ.
- Infinities. f, f' and f'' at +-inf, +-1e30 and the largest floats are the limits; nothing is inf * 0.
- NaN gives NaN in the value and in the gradient, relu included: loud (`jax.nn.relu` passes 0 back, PyTorch dy).
- The cotangent is multiplied, not selected: a dy of NaN or inf shows even where f' is 0.
- 16-bit inputs are computed in float32 and rounded once, the product dy f'(x) too.
- f'' is what differentiating the backward pass gives (`jax.hessian`, forward over reverse). Third derivatives are
  JAX's own of `equation`. Numeric options get no derivative.

Accuracy, measured on a CPU and held by the tests. float16, bfloat16: f, f' and f'' are the correctly rounded results at
all 65,536 inputs of each, but for near-ties (0.501 ulp). float32: the largest error in ulps over 2.7 million inputs, of
every exponent, in [-20, 20] and [-110, 110], at kinks and through the roots of f' and f'', is in this table; the tests
allow 8, and 12 to f'' of silu, gelu's tanh form and mish. float64: f, f' and f'' within 2e-14, relative. XLA flushes
subnormals: an input or a result below 1.2e-38 may count as 0.

|             | f   | f'  | f'' |              | f   | f'  | f'' |             | f   | f'  | f'' |
|-------------|-----|-----|-----|--------------|-----|-----|-----|-------------|-----|-----|-----|
| sigmoid     | 2.5 | 4.0 | 6.9 | elu, celu    | 5.0 | 1.7 | 1.7 | softsign    | 1.5 | 3.5 | 5.4 |
| log_sigmoid | 3.3 | 2.4 | 4.0 | selu         | 5.4 | 2.5 | 2.5 | squareplus  | 2.8 | 5.1 | 5.7 |
| softplus    | 3.3 | 2.5 | 4.0 | silu         | 3.2 | 5.4 | 7.9 | hard_silu   | 2.3 | 1.4 | 0.4 |
| tanh        | 4.6 | 4.1 | 6.4 | gelu         | 5.7 | 4.3 | 4.2 | sparse_plus | 2.0 | 0.5 | 0   |
| relu family | 0.5 | 0   | 0   | gelu, tanh   | 3.5 | 7.0 | 9.7 | mish        | 3.9 | 6.6 | 8.8 |
|             |     |     |     | hard_sigmoid | 1.4 | 0.4 | 0   |             |     |     |     |
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from fdl.errors import require_float
from fdl.layer import Layer
from fdl.layers.activations import equations, stable
from fdl.layers.activations.row import FADED, Activation, Facts, chain, wide
from fdl.op import Op

INF = math.inf
FINITE = 3e38

# ---- the table


def _row(
    name: str,
    formula: str,
    equation: Callable,
    f: Callable,
    f1: Callable,
    f2: Callable,
    facts: Callable[..., Facts] | Facts,
    *,
    ranges: tuple[tuple[str, float, float, str], ...] = (),
    at: tuple[float, float, float],
    notes: str = "",
    source: str = "",
) -> Activation:
    facts_of = (lambda **options: facts) if isinstance(facts, Facts) else facts
    return Activation(name, formula, equation, *chain(equation, f, f1, f2), facts_of, ranges, notes, source, at)


def _leaky_relu_facts(slope):
    dead = ((-INF, 0.0),) if slope == 0 else ()
    return Facts(max(1.0, abs(slope)), dead=dead, kinks=() if slope == 1 else ((0.0, slope),))


def _elu_facts(alpha):
    lipschitz = max(1.0, abs(alpha))
    kinks = () if alpha == 1 else ((0.0, alpha),)
    if alpha == 0:
        return Facts(lipschitz, dead=((-INF, 0.0),), kinks=kinks)
    return Facts(lipschitz, ((-INF, min(0.0, math.log(FADED * lipschitz / abs(alpha)))),), kinks=kinks)


def _gelu_facts(approximate):
    if approximate:
        return Facts(1.128993068658772, ((-INF, -3.00935773963113),))
    return Facts(1.128904145185155, ((-INF, -3.0216626340984036),))


def _squareplus_facts(b):
    r = 1 - 2 * FADED
    return Facts(1.0, ((-INF, -r * math.sqrt(b / (1 - r * r))),))


def _gelu_either() -> tuple[Callable, ...]:
    """f, f1 and f2 that follow `approximate`: two chains behind one name."""
    exact = chain(functools.partial(equations.gelu, approximate=False), stable.gelu, stable.gelu_f1, stable.gelu_f2)
    tanh = chain(
        functools.partial(equations.gelu, approximate=True), stable.gelu_tanh, stable.gelu_tanh_f1, stable.gelu_tanh_f2
    )
    pick = lambda one, other: lambda x, *, approximate: (other if approximate else one)(x)
    return tuple(pick(one, other) for one, other in zip(exact, tanh, strict=True))


_LOGISTIC_FADED = math.log(1 / FADED - 1)  # sigmoid(-x) = FADED
_LOGISTIC_SLOPE_FADED = 5.986445692252762  # sigmoid'(x) = FADED / 4

ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in (
        _row(
            "sigmoid",
            "1 / (1 + exp(-x))",
            equations.sigmoid,
            stable.sigmoid,
            stable.sigmoid_f1,
            stable.sigmoid_f2,
            Facts(0.25, ((-INF, -_LOGISTIC_SLOPE_FADED), (_LOGISTIC_SLOPE_FADED, INF))),
            notes="Saturates at both ends, and f' <= 1/4: a chain of n of them shrinks the error by 4^n.",
            source="Rumelhart, Hinton & Williams 1986, eq. 2",
            at=(0.1192, 0.5, 0.8808),
        ),
        _row(
            "log_sigmoid",
            "-log(1 + exp(-x))",
            equations.log_sigmoid,
            stable.log_sigmoid,
            stable.log_sigmoid_f1,
            stable.log_sigmoid_f2,
            Facts(1.0, ((_LOGISTIC_FADED, INF),)),
            notes="f' = sigmoid(-x).",
            at=(-2.1269, -0.6931, -0.1269),
        ),
        _row(
            "tanh",
            "(exp(x) - exp(-x)) / (exp(x) + exp(-x))",
            equations.tanh,
            stable.tanh,
            stable.tanh_f1,
            stable.tanh_f2,
            Facts(1.0, ((-INF, -_LOGISTIC_SLOPE_FADED / 2), (_LOGISTIC_SLOPE_FADED / 2, INF))),
            notes="f' = 1 - tanh^2 is computed as 4 e / (1 + e)^2, e = exp(-2 |x|), which does not cancel.",
            source="LeCun et al. 1998, section 4.4",
            at=(-0.964, 0.0, 0.964),
        ),
        _row(
            "relu",
            "max(x, 0)",
            equations.relu,
            stable.relu,
            stable.relu_f1,
            stable.zero_f2,
            Facts(1.0, dead=((-INF, 0.0),), kinks=((0.0, 0.0),)),
            notes="A unit whose inputs all lie in the dead region learns nothing.",
            source="Nair & Hinton 2010",
            at=(0.0, 0.0, 2.0),
        ),
        _row(
            "relu6",
            "min(max(x, 0), 6)",
            equations.relu6,
            stable.relu6,
            stable.relu6_f1,
            stable.zero_f2,
            Facts(1.0, dead=((-INF, 0.0), (6.0, INF)), kinks=((0.0, 0.0), (6.0, 0.0))),
            source="Krizhevsky 2010",
            at=(0.0, 0.0, 2.0),
        ),
        _row(
            "leaky_relu",
            "x for x > 0, else slope * x",
            equations.leaky_relu,
            stable.leaky_relu,
            stable.leaky_relu_f1,
            stable.zero_f2,
            _leaky_relu_facts,
            ranges=(("slope", -FINITE, FINITE, "it is the slope for x <= 0"),),
            notes="At 0 f' is the left slope, as in PyTorch; jax.nn takes 1.",
            source="Maas, Hannun & Ng 2013, eq. 2",
            at=(-0.02, 0.0, 2.0),
        ),
        _row(
            "elu",
            "x for x > 0, else alpha * (exp(x) - 1)",
            equations.elu,
            stable.elu,
            stable.elu_f1,
            stable.elu_f2,
            _elu_facts,
            ranges=(("alpha", -FINITE, FINITE, "the value at -inf is -alpha"),),
            notes="At 0 f' is the left slope alpha, as in jax.nn and PyTorch.",
            source="Clevert, Unterthiner & Hochreiter 2016, eq. 15",
            at=(-0.8647, 0.0, 2.0),
        ),
        _row(
            "celu",
            "x for x > 0, else alpha * (exp(x / alpha) - 1)",
            equations.celu,
            stable.celu,
            stable.celu_f1,
            stable.celu_f2,
            lambda alpha: Facts(1.0, ((-INF, alpha * math.log(FADED)),)),
            ranges=(("alpha", 1e-30, 1e30, "the value at -inf is -alpha; for alpha = 0 use relu()"),),
            notes="f' is continuous at 0 for every alpha; f'' at 0 is that of x <= 0.",
            source="Barron 2017, Continuously differentiable exponential linear units",
            at=(-0.8647, 0.0, 2.0),
        ),
        _row(
            "selu",
            "scale * elu(x, alpha), scale 1.0507, alpha 1.6733",
            equations.selu,
            stable.selu,
            stable.selu_f1,
            stable.selu_f2,
            Facts(
                equations.SELU_SCALE * equations.SELU_ALPHA,
                ((-INF, math.log(FADED)),),
                kinks=((0.0, equations.SELU_SCALE * equations.SELU_ALPHA),),
            ),
            notes="At 0 f' is the left slope scale * alpha, as in jax.nn and PyTorch.",
            source="Klambauer et al. 2017, eq. 2",
            at=(-1.5202, 0.0, 2.1014),
        ),
        Activation(
            "gelu",
            "x Phi(x), Phi the normal distribution function; approximate: with Phi by tanh",
            equations.gelu,
            *_gelu_either(),
            facts_of=_gelu_facts,
            ranges=(),
            notes="f' < 0 left of -0.7518 (-0.7525 approximate). Exact by default, as in PyTorch; jax.nn approximates.",
            source="Hendrycks & Gimpel 2016, section 2",
            at=(-0.0455, 0.0, 1.9545),
        ),
        _row(
            "silu",
            "x / (1 + exp(-x))",
            equations.silu,
            stable.silu,
            stable.silu_f1,
            stable.silu_f2,
            Facts(1.099839320128867, ((-INF, -6.1429157001956165),)),
            notes="Also called swish. f' < 0 left of -1.2785.",
            source="Elfwing, Uchibe & Doya 2018",
            at=(-0.2384, 0.0, 1.7616),
        ),
        _row(
            "mish",
            "x tanh(log(1 + exp(x)))",
            equations.mish,
            stable.mish,
            stable.mish_f1,
            stable.mish_f2,
            Facts(1.088498161251728, ((-INF, -6.15874130963221),)),
            notes="f' < 0 left of -1.1924.",
            source="Misra 2020",
            at=(-0.2525, 0.0, 1.944),
        ),
        _row(
            "softplus",
            "log(1 + exp(x))",
            equations.softplus,
            stable.softplus,
            stable.softplus_f1,
            stable.softplus_f2,
            Facts(1.0, ((-INF, -_LOGISTIC_FADED),)),
            notes="f' = sigmoid(x).",
            source="Dugas et al. 2001",
            at=(0.1269, 0.6931, 2.1269),
        ),
        _row(
            "softsign",
            "x / (1 + |x|)",
            equations.softsign,
            stable.softsign,
            stable.softsign_f1,
            stable.softsign_f2,
            Facts(1.0, ((-INF, 1 - FADED**-0.5), (FADED**-0.5 - 1, INF))),
            notes="f'' jumps from 2 to -2 at 0, where it is taken as 0. f' fades as 1 / x^2, not exponentially.",
            source="Bergstra, Desjardins, Lamblin & Bengio 2009",
            at=(-0.6667, 0.0, 0.6667),
        ),
        _row(
            "hard_sigmoid",
            "min(max(x + 3, 0), 6) / 6",
            equations.hard_sigmoid,
            stable.hard_sigmoid,
            stable.hard_sigmoid_f1,
            stable.zero_f2,
            Facts(1 / 6, dead=((-INF, -3.0), (3.0, INF)), kinks=((-3.0, 0.0), (3.0, 0.0))),
            source="Howard et al. 2019, section 5.2; Keras 3 and PyTorch have the same slope",
            at=(0.1667, 0.5, 0.8333),
        ),
        _row(
            "hard_tanh",
            "min(max(x, -1), 1)",
            equations.hard_tanh,
            stable.hard_tanh,
            stable.hard_tanh_f1,
            stable.zero_f2,
            Facts(1.0, dead=((-INF, -1.0), (1.0, INF)), kinks=((-1.0, 0.0), (1.0, 0.0))),
            notes="At +-1 f' is 0, as in PyTorch; jax.nn takes 1.",
            source="Collobert 2004",
            at=(-1.0, 0.0, 1.0),
        ),
        _row(
            "hard_silu",
            "x * hard_sigmoid(x)",
            equations.hard_silu,
            stable.hard_silu,
            stable.hard_silu_f1,
            stable.hard_silu_f2,
            Facts(1.5, dead=((-INF, -3.0),), kinks=((-3.0, 0.0), (3.0, 1.0))),
            notes="Also called hard swish. Just inside the kinks f' is -1/2 and 3/2; it is 0 at -1.5.",
            source="Howard et al. 2019, section 5.2",
            at=(-0.3333, 0.0, 1.6667),
        ),
        _row(
            "squareplus",
            "(x + sqrt(x^2 + b)) / 2",
            equations.squareplus,
            stable.squareplus,
            stable.squareplus_f1,
            stable.squareplus_f2,
            _squareplus_facts,
            ranges=(("b", 1e-30, 1e30, "f(0) = sqrt(b) / 2; for b = 0 use relu()"),),
            notes="The left tail of f is b / 4 |x|, of f' b / 4 x^2: no exponential.",
            source="Barron 2021, Squareplus",
            at=(0.4142, 1.0, 2.4142),
        ),
        _row(
            "sparse_plus",
            "x for x >= 1, (x + 1)^2 / 4 for -1 < x < 1, else 0",
            equations.sparse_plus,
            stable.sparse_plus,
            stable.sparse_plus_f1,
            stable.sparse_plus_f2,
            Facts(1.0, ((-1.0, 2 * FADED - 1),), dead=((-INF, -1.0),)),
            notes="f' = min(max((x + 1) / 2, 0), 1), a two-class sparsemax; f'' jumps at +-1: 0 there.",
            source="jax.nn.sparse_plus, after Martins & Astudillo 2016",
            at=(0.0, 0.25, 2.0),
        ),
    )
}


# ---- the loop that makes the ops


def _op(row: Activation) -> Op:
    def forward(x, **options):
        require_float(row.name, "x", x)
        # x is kept, and f' rebuilt from it: x is the output of the layer before, an array that exists anyway
        return row.f(x, **row.options(**options)), x

    def backward(x, dy, **options):
        slope = row.f1(wide(x), **options)
        return ((dy.astype(slope.dtype) * slope).astype(x.dtype),)

    row.equation.__doc__ = _described(row, f"fdl.ops.{row.name}({{x}})")
    return Op(row.equation, forward, backward, name=row.name)


def _described(row: Activation, call: str) -> str:
    shown = ", ".join(f"'{y:.4f}'" for y in row.at)
    example = f"""    >>> [f"{{y:.4f}}" for y in {call.format(x="jnp.float32([-2, 0, 2])")}]\n    [{shown}]"""
    lines = [f"y = {row.formula}, elementwise.", row.notes, f"Source: {row.source}." if row.source else "", example]
    return "\n\n".join(line for line in lines if line)


OPS: dict[str, Op] = {name: _op(row) for name, row in ACTIVATIONS.items()}


# ---- the layers


def _layer(name: str, **options: Any) -> Layer:
    op = OPS[name]
    return Layer.from_op(name, op.bind(**ACTIVATIONS[name].options(**options)) if options else op)


def _without_options(name: str) -> Callable[[], Layer]:
    def constructor() -> Layer:
        return _layer(name)

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = _described(ACTIVATIONS[name], f"fdl.{name}().apply({{{{}}}}, {{{{}}}}, {{x}})[0]")
    return constructor


sigmoid = _without_options("sigmoid")
log_sigmoid = _without_options("log_sigmoid")
tanh = _without_options("tanh")
relu = _without_options("relu")
relu6 = _without_options("relu6")
selu = _without_options("selu")
silu = _without_options("silu")
mish = _without_options("mish")
softplus = _without_options("softplus")
softsign = _without_options("softsign")
hard_sigmoid = _without_options("hard_sigmoid")
hard_tanh = _without_options("hard_tanh")
hard_silu = _without_options("hard_silu")
sparse_plus = _without_options("sparse_plus")


def leaky_relu(slope: float = 0.01) -> Layer:
    """y = x for x > 0, else slope * x, elementwise. At 0 f' is `slope`, as in PyTorch; jax.nn takes 1.

    >>> fdl.leaky_relu(0.5).apply({}, {}, jnp.float32([-2, 2]))[0]
    Array([-1.,  2.], dtype=float32)
    """
    return _layer("leaky_relu", slope=slope)


def elu(alpha: float = 1.0) -> Layer:
    """y = x for x > 0, else alpha (exp(x) - 1), elementwise: -alpha at -inf, slope alpha at 0 from the left.

    >>> fdl.elu(2.0).apply({}, {}, jnp.float32([-jnp.inf, 2]))[0]
    Array([-2.,  2.], dtype=float32)
    """
    return _layer("elu", alpha=alpha)


def celu(alpha: float = 1.0) -> Layer:
    """y = x for x > 0, else alpha (exp(x / alpha) - 1), elementwise: smooth at 0, -alpha at -inf; alpha > 0.

    >>> fdl.celu(2.0).apply({}, {}, jnp.float32([-jnp.inf, 2]))[0]
    Array([-2.,  2.], dtype=float32)
    """
    return _layer("celu", alpha=alpha)


def gelu(approximate: bool = False) -> Layer:
    """y = x Phi(x), elementwise, Phi the normal distribution function.

    approximate: Phi(x) by (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 instead, as in GPT-2 and by default in
    jax.nn.gelu; the two differ by up to 5e-4.

        >>> fdl.gelu().apply({}, {}, jnp.float32([0, 10]))[0]
        Array([ 0., 10.], dtype=float32)
    """
    return _layer("gelu", approximate=approximate)


def squareplus(b: float = 4.0) -> Layer:
    """y = (x + sqrt(x^2 + b)) / 2, elementwise: softplus without exponentials, f(0) = sqrt(b) / 2; b > 0.

    >>> fdl.squareplus().apply({}, {}, jnp.float32([0]))[0]
    Array([1.], dtype=float32)
    """
    return _layer("squareplus", b=b)
