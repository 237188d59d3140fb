"""The activation table: every row against truths that are accurate by themselves, in every precision, at every trap."""

import decimal
import functools
import inspect
import math
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import fdl.layers.activations as activations
from fdl.errors import InputError, InputTypeError
from fdl.layer import Layer
from fdl.layers.activations import ACTIVATIONS, OPS, precise
from fdl.layers.activations.equations import SELU_ALPHA, SELU_SCALE

pytestmark = pytest.mark.optimized

INF = math.inf
SMALLEST = {"bfloat16": 1.2e-38, "float16": 0.0, "float32": 1.2e-38, "float64": 2.3e-308}  # XLA flushes subnormals


def in_float32(option):
    return float(np.float32(option))  # else the truth would have other options than the float32 function


# every row, with its default options and others
CASES = {
    **{name: (name, {}) for name in ACTIVATIONS},
    "leaky_relu": ("leaky_relu", {"slope": in_float32(0.01)}),
    "leaky_relu 0": ("leaky_relu", {"slope": 0.0}),
    "elu 0.7": ("elu", {"alpha": in_float32(0.7)}),
    "celu 0.3": ("celu", {"alpha": in_float32(0.3)}),
    "gelu tanh": ("gelu", {"approximate": True}),
    "squareplus 0.5": ("squareplus", {"b": 0.5}),
}
every_case = pytest.mark.parametrize("case", CASES)


def op_of(case):
    name, options = CASES[case]
    return OPS[name].bind(**options)


@functools.cache
def compiled(case):
    """(x, dy) -> f, f', f'' of the table, and value and gradient of the Op."""
    name, options = CASES[case]
    row, op = ACTIVATIONS[name], op_of(case)
    bound = row.options(**options)

    @jax.jit
    def everything(x, dy):
        y, pull = jax.vjp(op, x)
        return (*(f(x, **bound) for f in (row.f, row.f1, row.f2)), y, *pull(dy))

    return everything


# ---- truths in float64: accurate for float32 inputs, with no formula in common with the library


def _mish(x, order):
    p = np.where(x < -20, np.log1p(np.exp(np.minimum(x, 0))), np.logaddexp(0, x))
    t, w, s = np.tanh(p), np.exp(-2 * p), special.expit(x)
    slope = 4 * w / (1 + w) ** 2
    if order < 2:
        return (x * t, t + x * slope * s)[order]
    return slope * s * (2 + x * (special.expit(-x) - 2 * t * s))


def _gelu(x, order):
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return (lambda: x * special.ndtr(x), lambda: special.ndtr(x) + x * density, lambda: density * (2 - x * x))[order]()


def _gelu_tanh(x, order):
    c, k = 2 * math.sqrt(2 / math.pi), 0.044715
    v, v1, v2 = c * (x + k * x**3), c * (1 + 3 * k * x * x), 6 * c * k * x
    s, rest = special.expit(v), special.expit(-v)
    return (
        lambda: x * s,
        lambda: s * (1 + x * rest * v1),
        lambda: s * rest * (2 * v1 + x * v2 - x * v1 * v1 * np.tanh(v / 2)),
    )[order]()


def _squareplus(x, order, b):
    s = np.hypot(x, math.sqrt(b))
    left = b / (s + np.abs(x)) / 2
    if order < 2:
        return (np.where(x >= 0, x / 2 + s / 2, left), np.where(x >= 0, 1 - left / s, left / s))[order]
    return b / 2 / s**3


def _elu(x, order, alpha, scale=1.0, width=1.0):
    q = np.minimum(x, 0) / width
    right = (scale * x, np.full_like(x, scale), np.zeros_like(x))[order]
    return np.where(x > 0, right, scale * alpha * (np.expm1(q) if order == 0 else np.exp(q)) / width**order)


def _inside(x, low, high, value):
    return np.where((x > low) & (x < high), value, 0.0)


@np.errstate(over="ignore")
def truth(case, order, x):
    name, options = CASES[case]
    bound = ACTIVATIONS[name].options(**options)
    s, rest = special.expit(x), special.expit(-x)
    zero = np.zeros_like(x)
    if order and name in ("gelu", "silu", "mish"):
        x = np.clip(x, -1e3, 1e3)  # 0 or 1 beyond, to 300 digits
    if name == "gelu":
        return (_gelu_tanh if bound["approximate"] else _gelu)(x, order)
    if name in ("elu", "celu"):
        alpha = bound["alpha"]
        return _elu(x, order, alpha, width=alpha if name == "celu" else 1.0)
    return {
        "sigmoid": lambda: (s, s * rest, -s * rest * np.tanh(x / 2)),
        "log_sigmoid": lambda: (np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), rest, -s * rest),
        "softplus": lambda: (np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), s, s * rest),
        "tanh": lambda: (
            np.tanh(x),
            4 * special.expit(2 * x) * special.expit(-2 * x),
            -8 * special.expit(2 * x) * special.expit(-2 * x) * np.tanh(x),
        ),
        "relu": lambda: (np.maximum(x, 0), _inside(x, 0, INF, 1), zero),
        "relu6": lambda: (np.clip(x, 0, 6), _inside(x, 0, 6, 1), zero),
        "leaky_relu": lambda: (
            np.where(x > 0, x, bound["slope"] * x),
            np.where(x > 0, 1, bound["slope"]),
            zero,
        ),
        "selu": lambda: tuple(_elu(x, n, SELU_ALPHA, SELU_SCALE) for n in range(3)),
        "silu": lambda: (x * s, s * (1 + x * rest), s * rest * (2 - x * np.tanh(x / 2))),
        "mish": lambda: tuple(_mish(x, n) if n == order else None for n in range(3)),
        "softsign": lambda: (
            x / (1 + np.abs(x)),
            1 / (1 + np.abs(x)) ** 2,
            -2 * np.sign(x) / (1 + np.abs(x)) ** 3,
        ),
        "hard_sigmoid": lambda: (np.clip(x + 3, 0, 6) / 6, _inside(x, -3, 3, 1 / 6), zero),
        "hard_tanh": lambda: (np.clip(x, -1, 1), _inside(x, -1, 1, 1), zero),
        "hard_silu": lambda: (
            np.where(x >= 3, x, _inside(x, -3, 3, np.clip(x, -3, 3) * (np.clip(x, -3, 3) + 3) / 6)),
            np.where(x >= 3, 1, _inside(x, -3, 3, np.clip(x, -3, 3) / 3 + 0.5)),
            _inside(x, -3, 3, 1 / 3),
        ),
        "squareplus": lambda: tuple(_squareplus(x, n, bound["b"]) for n in range(3)),
        "sparse_plus": lambda: (
            np.where(x >= 1, x, np.clip((x + 1) / 2, 0, 1) ** 2),
            np.clip((x + 1) / 2, 0, 1),
            _inside(x, -1, 1, 0.5),
        ),
    }[name]()[order]


def errors_in_ulps(got, want, dtype):
    """|got - want| in last places of `want` as a `dtype`; 0 where both overflow or a subnormal was flushed."""
    info = jnp.finfo(dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        got, want = np.asarray(got).astype(np.float64), np.asarray(want, np.float64)
        ulp = np.exp2(np.maximum(np.frexp(want)[1] - 1, int(info.minexp)) - int(info.nmant))
        error = np.abs(got - want)
        overflow = np.abs(want) >= float(info.max) + ulp / 2
    error = np.where(overflow & (got == np.copysign(INF, want)), 0.0, error)
    error = np.where(error <= SMALLEST[jnp.dtype(dtype).name], 0.0, error)
    return np.where(np.isnan(error), INF, error / ulp)


def wide(x):
    with np.errstate(invalid="ignore"):  # signalling NaNs among all patterns
        return np.asarray(x).astype(np.float64)


def check_everything(case, x, dy, ulps):
    """f, f', f'' and the Op at x against the truths, the limits at infinity, and NaN at NaN."""
    dtype = x.dtype
    x64, dy64 = wide(x), wide(dy)
    got = compiled(case)(x, dy)
    assert all(g.dtype == dtype for g in got)
    got = [wide(g) for g in got]
    # XLA reads subnormal inputs as 0; those of float16 are normal in float32
    subnormal = (x64 != 0) & (np.abs(x64) < SMALLEST[dtype.name])
    nan, finite = np.isnan(x64), np.isfinite(x64) & ~subnormal
    assert nan.any()
    for g in got:
        assert np.isnan(g[nan]).all(), "NaN must be loud"
        assert not np.isnan(g[~nan]).any()
    low, high, slope_low, slope_high = (float(jnp.asarray(v, dtype)) for v in LIMITS[case])
    for at, value, slope in ((x64 == -INF, low, slope_low), (x64 == INF, high, slope_high)):
        assert at.any() and (got[0][at] == value).all() and (got[1][at] == slope).all() and (got[2][at] == 0).all()
    for order in range(3):
        error = errors_in_ulps(got[order][finite], truth(case, order, x64[finite]), dtype)
        worst = np.argmax(error)
        assert error[worst] <= ulps[order], f"f{order}({x64[finite][worst]!r}) is {error[worst]} ulp off"
    np.testing.assert_array_equal(got[3], got[0])
    error = errors_in_ulps(got[4][finite], dy64[finite] * truth(case, 1, x64[finite]), dtype)
    worst = np.argmax(error)
    assert error[worst] <= ulps[1] + (dtype in (jnp.float32, jnp.float64)), f"dx at {x64[finite][worst]!r}"


ROOTS = [root.at.high for root in vars(precise).values() if isinstance(root, precise.Root)]
SPECIAL = [*ROOTS, precise.GELU_ROOT.high, precise.SQRT2.high, 1.0, 1.5, 3.0, 6.0]
TRAPS = [-INF, INF, math.nan, -0.0, 0.0, -1e30, 1e30, -float(np.finfo(np.float32).max), float(np.finfo(np.float32).max)]


def sample():
    """float32 inputs: traps, every exponent and sign, the usual range, the tails, all neighbours of roots and kinks."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], 60_000)
    parts = [
        np.array(TRAPS),
        rng.uniform(-20, 20, 60_000),
        rng.uniform(-110, 110, 60_000),
        signs * np.exp2(rng.uniform(-126, 128, 60_000)),
    ]
    for x in SPECIAL:
        bits = np.float32(x).view(np.int32) + np.arange(-300, 301, dtype=np.int32)
        near = np.concatenate([bits.view(np.float32).astype(np.float64), x + rng.uniform(-1, 1, 3000)])
        parts += [near, -near]
    return jnp.asarray(np.concatenate(parts), jnp.float32)


# name: f(-inf), f(inf), f'(-inf), f'(inf); f'' is 0 at both
LIMITS = {
    "sigmoid": (0, 1, 0, 0),
    "log_sigmoid": (-INF, 0, 1, 0),
    "tanh": (-1, 1, 0, 0),
    "relu": (0, INF, 0, 1),
    "relu6": (0, 6, 0, 0),
    "leaky_relu": (-INF, INF, in_float32(0.01), 1),
    "leaky_relu 0": (0, INF, 0, 1),
    "elu": (-1, INF, 0, 1),
    "elu 0.7": (-in_float32(0.7), INF, 0, 1),
    "celu": (-1, INF, 0, 1),
    "celu 0.3": (-in_float32(0.3), INF, 0, 1),
    "selu": (-SELU_SCALE * SELU_ALPHA, INF, 0, SELU_SCALE),
    "gelu": (0, INF, 0, 1),
    "gelu tanh": (0, INF, 0, 1),
    "silu": (0, INF, 0, 1),
    "mish": (0, INF, 0, 1),
    "softplus": (0, INF, 0, 1),
    "softsign": (-1, 1, 0, 0),
    "hard_sigmoid": (0, 1, 0, 0),
    "hard_tanh": (-1, 1, 0, 0),
    "hard_silu": (0, INF, 0, 1),
    "squareplus": (0, INF, 0, 1),
    "squareplus 0.5": (0, INF, 0, 1),
    "sparse_plus": (0, INF, 0, 1),
}


# ---- accuracy


@every_case
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_every_16_bit_input_is_rounded_once(case, dtype):
    """All 65,536 patterns: f, f', f'' and dy f' are correctly rounded, except that a near-tie may go the other way."""
    x = jnp.asarray(np.arange(1 << 16, dtype=np.uint16).view(jnp.dtype(dtype)))
    dy = jnp.asarray(np.random.default_rng(5).uniform(0.5, 1, x.shape), dtype)
    check_everything(case, x, dy, (0.51, 0.51, 0.51))


ULPS = {case: (8, 8, 12) for case in ("gelu tanh", "mish", "silu")}


@every_case
def test_float32_is_within_8_ulp(case):
    """f and f' everywhere, also through the roots, where plain formulas lose all digits; f'' within 12 in three cases."""
    x = sample()
    dy = jnp.asarray(np.random.default_rng(5).uniform(0.5, 1, x.shape), jnp.float32)
    check_everything(case, x, dy, ULPS.get(case, (8, 8, 8)))


@every_case
def test_float64_traps(case):
    x = jnp.asarray([*TRAPS, 1e300, -1e300, float(np.finfo(np.float64).max), -7.0, -0.4, 0.3, 5.0], jnp.float64)
    check_everything(case, x, jnp.full_like(x, 0.75), (150, 150, 150))


def test_the_measure_convicts_plain_formulas():
    """The tester must be able to fail: textbook derivatives are thousands of ulps off at roots and in the tails."""
    x = sample()
    x = x[jnp.abs(x) < 30]

    @jax.jit
    def plain(x):
        s = jax.nn.sigmoid(x)
        gelu, gelu_slope = jax.jvp(lambda x: jax.nn.gelu(x, approximate=False), (x,), (jnp.ones_like(x),))
        return s * (1 + x * (1 - s)), 1 - jnp.tanh(x) ** 2, gelu_slope, gelu, s * (1 - s)

    cases = [("silu", 1), ("tanh", 1), ("gelu", 1), ("gelu", 0), ("sigmoid", 1)]
    for (case, order), got in zip(cases, plain(x), strict=True):
        error = errors_in_ulps(got, truth(case, order, np.asarray(x, np.float64)), jnp.float32)
        assert np.max(error) > 50, case


# truths for float64: exact arithmetic with 420 digits

decimal_context = decimal.Context(prec=420, Emin=-(10**6), Emax=10**6)


def _pi():
    """Machin: pi = 16 artan(1/5) - 4 artan(1/239)."""

    def artan(n):
        term = total = Decimal(1) / n
        k = 1
        while abs(term) > Decimal("1e-415"):
            term, k = -term / (n * n), k + 2
            total += term / k
        return total

    return 16 * artan(5) - 4 * artan(239)


with decimal.localcontext(decimal_context):
    PI = _pi()


def _phi(x):
    """(Phi(x), phi(x)) by Phi(x) = 1/2 + phi(x) sum_n x^(2 n + 1) / (1 3 5 ... (2 n + 1))."""
    density = (-x * x / 2).exp() / (2 * PI).sqrt()
    term = total = x
    n = 1
    while abs(term) > Decimal("1e-410"):
        n += 2
        term = term * x * x / n
        total += term
    return Decimal("0.5") + density * total, density


def decimal_truth(case, x):
    """(f, f', f'') of a Decimal."""
    name, options = CASES[case]
    bound = {k: Decimal(v) for k, v in ACTIVATIONS[name].options(**options).items() if not isinstance(v, bool)}
    one, u = Decimal(1), x.exp()
    s = u / (1 + u)
    ds = s * (1 - s)
    dds = ds * (1 - 2 * s)
    if name == "sigmoid":
        return s, ds, dds
    if name == "log_sigmoid":
        return s.ln(), 1 - s, -ds
    if name == "softplus":
        return (1 + u).ln(), s, ds
    if name == "tanh":
        t = (u * u - 1) / (u * u + 1)
        return t, 1 - t * t, -2 * t * (1 - t * t)
    if name == "silu":
        return x * s, s + x * ds, 2 * ds + x * dds
    if name in ("elu", "celu", "selu"):
        alpha = Decimal(SELU_ALPHA) if name == "selu" else bound["alpha"]
        scale = Decimal(SELU_SCALE) if name == "selu" else one
        width = alpha if name == "celu" else one
        e = scale * alpha * (x / width).exp()
        return (scale * x, scale, one * 0) if x > 0 else (e - scale * alpha, e / width, e / width**2)
    if name == "mish":
        n = u * (u + 2)
        d = n + 2
        g1, g2 = 4 * u * (u + 1) / d**2, 4 * u * ((2 * u + 1) * d - 4 * u * (u + 1) ** 2) / d**3
        return x * n / d, n / d + x * g1, 2 * g1 + x * g2
    if name == "squareplus":
        r = (x * x + bound["b"]).sqrt()
        return (x + r) / 2, (1 + x / r) / 2, bound["b"] / (2 * r**3)
    if case == "gelu tanh":
        c, k = 2 * (2 / PI).sqrt(), Decimal("0.044715")
        v1, v2 = c * (1 + 3 * k * x * x), 6 * c * k * x
        u = (c * (x + k * x**3)).exp()
        s = u / (1 + u)
        ds = s * (1 - s)
        return x * s, s + x * ds * v1, ds * (2 * v1 + x * v2 + x * v1 * v1 * (1 - 2 * s))
    assert name == "gelu"
    p, density = _phi(x)
    return x * p, p + x * density, density * (2 - x * x)


TRANSCENDENTAL = [
    case
    for case, (name, _) in CASES.items()
    if name in "sigmoid log_sigmoid softplus tanh silu elu celu selu mish squareplus gelu".split()
]


@pytest.mark.parametrize("case", TRANSCENDENTAL)
def test_float64_is_within_2e_minus_14(case):
    rng = np.random.default_rng(1)
    far = 36 if case.startswith("gelu") else 700
    around = [sign * (x + d) for x in SPECIAL[:9] for sign in (-1, 1) for d in (0, 1e-9, -0.1, 0.7, -0.74)]
    x = np.concatenate([rng.uniform(-5, 5, 15), rng.uniform(-far, far, 12), around, [1e-5, -1e-5, -1e-9]])
    x64 = jnp.asarray(x, jnp.float64)
    got = [np.asarray(g) for g in compiled(case)(x64, x64)]
    with decimal.localcontext(decimal_context):
        for i, point in enumerate(x):
            for order, want in enumerate(decimal_truth(case, Decimal(float(point)))):
                error = abs(Decimal(float(got[order][i])) - want)
                assert error <= Decimal("2e-14") * abs(want) + Decimal("2.3e-308"), f"f{order}({point!r})"


# ---- the equation is the oracle: derivatives of first, second and third order in float64


def interior(shape=(3, 41)):
    """Points of every branch, none within 0.02 of a kink."""
    x = np.random.default_rng(2).uniform(-7, 7, shape)
    for kink in (-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0):
        x = np.where(np.abs(x - kink) < 0.02, x + 0.05, x)
    return jnp.asarray(x, jnp.float64)


def cotangent(x, seed=3):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(x.shape), x.dtype)


def first_and_second(function, x, dy, tangent):
    """The value, the gradient, and forward over reverse."""
    first = lambda x: jax.vjp(function, x)[1](dy)[0]
    return function(x), *jax.jvp(first, (x,), (tangent,))


@every_case
def test_derivatives_equal_those_of_the_equation(case):
    op, x = op_of(case), interior()
    dy, tangent = cotangent(x), cotangent(x, 4)

    @jax.jit
    def everything(*a):
        return (
            first_and_second(op, *a),
            first_and_second(op.equation, *a),
            op.backward(op.forward(x)[1], dy),
        )

    got, want, (dx,) = everything(x, dy, tangent)
    for order, (a, b) in enumerate(zip(got, want, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=f"order {order}")
    np.testing.assert_allclose(dx, want[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", ["gelu", "tanh", "elu 0.7"])
def test_third_derivatives_are_those_of_the_equation(case):
    op, x = op_of(case), interior()

    def third(function):
        second = jax.grad(lambda x: jax.grad(lambda x: function(x).sum())(x).sum())
        return lambda x: jax.jvp(second, (x,), (x,))[1]

    got, want = jax.jit(lambda x: (third(op)(x), third(op.equation)(x)))(x)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_hessian_of_a_loss_through_the_ops():
    x = interior((5,))

    def hessians(kind):
        ops = [OPS["gelu"], OPS["silu"], OPS["leaky_relu"].bind(slope=0.3)]
        functions = [op if kind == "op" else op.equation for op in ops]
        return jax.hessian(lambda x: sum(jnp.sum(f(2 * x) ** 3) for f in functions))(x)

    got, want = jax.jit(hessians, static_argnums=0)("op"), jax.jit(hessians, static_argnums=0)("equation")
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


# ---- kinks


WITH_KINKS = [case for case, (name, options) in CASES.items() if ACTIVATIONS[name].facts(**options).kinks]


@pytest.mark.parametrize("case", WITH_KINKS)
def test_kinks(case):
    """The Op, the truths and JAX's derivative of the equation take the subgradient that the table says."""
    name, options = CASES[case]
    points, slopes = zip(*ACTIVATIONS[name].facts(**options).kinks, strict=True)
    np.testing.assert_array_equal(truth(case, 1, np.array(points)), slopes)
    op, x = op_of(case), jnp.asarray(points, jnp.float64)
    pull = lambda f: jax.vjp(f, x)[1](jnp.full_like(x, -3.0))[0]
    for dx in jax.jit(lambda: (pull(op), pull(op.equation)))():
        np.testing.assert_allclose(dx, -3 * np.array(slopes), rtol=1e-15)


def test_the_subgradient_is_0_wherever_0_is_one():
    """And what is chosen elsewhere. jax.nn differs at leaky_relu(0) and hard_tanh(+-1), where it has 1."""
    x = jnp.asarray([-3.0, -1.0, -0.0, 0.0, 1.0, 3.0, 6.0], jnp.float32)
    names = ("relu", "relu6", "hard_tanh", "hard_sigmoid", "hard_silu", "leaky_relu", "selu", "elu", "celu")
    slopes = jax.jit(lambda x: [jax.vjp(OPS[name], x)[1](jnp.ones_like(x))[0] for name in names])(x)
    points = (-3, -1, "-0", 0, 1, 3, 6)
    at = {n: dict(zip(points, map(float, slope), strict=True)) for n, slope in zip(names, slopes, strict=True)}
    assert at["relu"][0] == at["relu"]["-0"] == at["relu6"][0] == at["relu6"][6] == 0
    assert at["hard_tanh"][-1] == at["hard_tanh"][1] == at["hard_sigmoid"][-3] == at["hard_sigmoid"][3] == 0
    assert (at["hard_silu"][-3], at["hard_silu"][3]) == (0, 1)
    assert at["leaky_relu"][0] == at["leaky_relu"]["-0"] == in_float32(0.01)
    assert at["selu"][0] == in_float32(SELU_SCALE * SELU_ALPHA) and at["elu"][0] == at["celu"][0] == 1


def test_a_cotangent_of_nan_or_inf_is_not_swallowed():
    x = jnp.asarray([-2.0, 2.0], jnp.float32)
    names = ("relu", "hard_tanh", "gelu")
    pull = jax.jit(lambda dy: [OPS[name].backward(x, dy)[0] for name in names])
    for bad in (math.nan, INF):
        assert not np.isfinite(pull(jnp.full_like(x, bad))).any()


# ---- facts


@every_case
def test_facts(case):
    name, options = CASES[case]
    facts = ACTIVATIONS[name].facts(**options)
    slope = lambda x: np.abs(truth(case, 1, x))
    grid = np.concatenate([np.linspace(-60, 60, 600_001), [-1e8, 1e8, 3 - 1e-9]])
    assert facts.lipschitz * (1 - 1e-6) <= slope(grid).max() <= facts.lipschitz * (1 + 1e-12)
    inside = np.zeros_like(grid, bool)
    for low, high in facts.dead:
        here = (grid >= low) & (grid <= high)
        inside |= here
        assert (slope(grid[here]) == 0).all()
        for edge in (low, high):
            if math.isfinite(edge):
                assert slope(np.array([edge]))[0] == 0
    for low, high in facts.saturation:
        here = (grid > low) & (grid < high)
        inside |= here
        assert here.any() and (slope(grid[here]) <= activations.FADED * facts.lipschitz).all()
        edges = [edge for edge in (low, high) if math.isfinite(edge) and not any(edge in d for d in facts.dead)]
        np.testing.assert_allclose(slope(np.array(edges)), activations.FADED * facts.lipschitz, rtol=1e-9)
    # elsewhere f' is 0 only where it changes sign
    assert (slope(grid[~inside]) >= 0.999 * activations.FADED * facts.lipschitz).mean() > 0.97


def test_facts_follow_the_options_and_have_defaults():
    elu, leaky = ACTIVATIONS["elu"], ACTIVATIONS["leaky_relu"]
    assert elu.facts(alpha=3.0).lipschitz == 3 and elu.facts(alpha=3.0).kinks == ((0.0, 3.0),)
    assert elu.facts(alpha=0.0).dead == leaky.facts(slope=0.0).dead == ((-INF, 0.0),)
    assert leaky.facts(slope=-2.0).lipschitz == 2 and leaky.facts(slope=1.0).kinks == ()
    relu = ACTIVATIONS["relu"]
    assert (relu.lipschitz, relu.saturation, relu.dead, relu.kinks) == (1.0, (), ((-INF, 0.0),), ((0.0, 0.0),))


# ---- options, errors, layers


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64], ids=["bfloat16", "float64"])
@pytest.mark.parametrize(
    ("name", "option"), [("leaky_relu", "slope"), ("elu", "alpha"), ("celu", "alpha"), ("squareplus", "b")]
)
def test_a_numeric_option_can_be_swept_by_vmap(name, option, dtype):
    x = jnp.asarray([-2.5, -0.3, 0.0, 0.4, 3.0], dtype)
    values = jnp.asarray([0.5, 1.0, 2.5], jnp.float32)
    slope = jax.jit(lambda v: jax.vjp(lambda x: OPS[name](x, **{option: v}), x)[1](x)[0])
    got = jax.vmap(slope)(values)
    assert got.dtype == dtype
    for row, v in zip(got, values, strict=True):
        np.testing.assert_allclose(wide(row), wide(slope(v)), rtol=1e-12)
    (static,) = jax.jit(lambda x: OPS[name].backward(x, x, **{option: 2.5}))(x)
    np.testing.assert_allclose(wide(got[2]), wide(static), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: OPS["relu"](jnp.asarray([1, 2], jnp.int32)), InputTypeError, ["relu", "x", "int32", "astype"]),
        (lambda: OPS["celu"](jnp.ones(2, jnp.float32), alpha=0.0), InputError, ["celu", "alpha", "0.0", "relu()"]),
        (lambda: activations.celu(alpha=-1.0), InputError, ["celu", "alpha", "-1.0"]),
        (lambda: activations.squareplus(b=0.0), InputError, ["squareplus", "b", "relu()"]),
        (lambda: activations.leaky_relu(math.nan), InputError, ["leaky_relu", "slope", "nan"]),
        (lambda: activations.elu("1"), InputTypeError, ["elu", "alpha", "number"]),  # pyright: ignore[reportArgumentType]
        (lambda: activations.gelu(approximate=1), InputTypeError, ["gelu", "approximate", "True or False"]),  # pyright: ignore[reportArgumentType]
        (lambda: ACTIVATIONS["elu"].facts(slope=1.0), InputTypeError, ["elu", "slope", "alpha"]),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_row_has_a_layer(name, getkey):
    constructor = getattr(activations, name)
    layer = constructor()
    assert (
        isinstance(layer, Layer)
        and layer.name == name
        and layer == constructor()
        and hash(layer) == hash(constructor())
    )
    assert constructor.__name__ == name and len(inspect.getdoc(constructor) or "") > 30
    params, state = layer.init(getkey(), (5,))
    assert params == {} and state == {}
    x = interior((3, 5))
    dy = cotangent(x)

    @jax.jit
    def both_ways(x, dy):
        y, _, residuals = layer.forward(params, state, x)
        return y, *layer.backward(residuals, dy)

    y, dparams, dx = both_ways(x, dy)
    assert dparams == {}
    np.testing.assert_allclose(y, truth(name, 0, np.asarray(x)), rtol=1e-7)
    np.testing.assert_allclose(dx, np.asarray(dy) * truth(name, 1, np.asarray(x)), rtol=1e-7, atol=1e-12)


def test_layers_take_their_options():
    x = jnp.asarray([[-1.0, 2.0]], jnp.float64)
    layers = (
        activations.leaky_relu(0.5),
        activations.elu(2.0),
        activations.celu(2.0),
        activations.squareplus(b=3.0),
        activations.gelu(approximate=True),
    )
    got, tanh_gelu = jax.jit(lambda x: ([layer.apply({}, {}, x)[0][0] for layer in layers], jax.nn.gelu(x)[0]))(x)
    want = [[-0.5, 2], [2 * math.expm1(-1), 2], [2 * math.expm1(-0.5), 2], [0.5, (2 + math.sqrt(7)) / 2], tanh_gelu]
    np.testing.assert_allclose(got, want, rtol=1e-13)
