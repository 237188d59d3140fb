"""Every activation, its first and its second derivative, as formulas that hold at every input.

`<name>`, `<name>_f1`, `<name>_f2` take float32 or float64 and the options in order, already in the dtype of x. They
hold where the textbook formula (equations.py) overflows, cancels or gives inf * 0: at large and infinite x they
return the limit, in the tails they keep relative accuracy, and NaN gives NaN.

Three devices recur.
- a = |x| and e = exp(-a): one exponential that cannot overflow serves both signs.
- A tail like a e is formed by `Exponential.times`, since e alone is flushed to zero while a e is still normal.
- a is cut at a value where exp(-a) is 0 in float64 too, so that an infinite x gives 0 and not inf * 0.
"""

import jax
import jax.numpy as jnp

from fdl.layers.activations import precise
from fdl.layers.activations.equations import SELU_ALPHA, SELU_SCALE

_FAR = 800.0  # exp(-_FAR) is 0 in float64


def _loud(x, value):
    """`value`, but NaN where x is NaN."""
    return jnp.where(jnp.isnan(x), x, jnp.asarray(value, x.dtype))


def _piece(x, inside, value):
    """`value` where `inside`, else 0; NaN where x is NaN."""
    return jnp.where(inside, jnp.asarray(value, x.dtype), _loud(x, 0.0))


# ---- sigmoid, log_sigmoid, softplus, tanh


def sigmoid(x):
    return jax.lax.logistic(x)


def sigmoid_f1(x):
    e = jnp.exp(-jnp.abs(x))
    return e / ((1 + e) * (1 + e))


def sigmoid_f2(x):
    return -sigmoid_f1(x) * jnp.tanh(x / 2)  # 1 - 2 s = -tanh(x / 2)


def log_sigmoid(x):
    return jnp.minimum(x, 0) - precise.log1p(jnp.exp(-jnp.abs(x)))


def log_sigmoid_f1(x):
    return jax.lax.logistic(-x)


def log_sigmoid_f2(x):
    return -sigmoid_f1(x)


def softplus(x):
    return jnp.maximum(x, 0) + precise.log1p(jnp.exp(-jnp.abs(x)))


softplus_f1 = sigmoid
softplus_f2 = sigmoid_f1


def tanh(x):
    return jnp.tanh(x)


def tanh_f1(x):
    # 1 - tanh^2 cancels: it is 0 from |x| = 9 on in float32, where f' is 6e-8
    exponential = precise.exp_minus(2 * jnp.abs(x))
    e = exponential.value
    return exponential.times(4) / ((1 + e) * (1 + e))


def tanh_f2(x):
    a = 2 * jnp.minimum(jnp.abs(x), _FAR)
    exponential = precise.exp_minus(a)
    e = exponential.value
    return exponential.times(8 * jnp.sign(x) * jnp.expm1(-a)) / ((1 + e) * (1 + e) * (1 + e))


# ---- piecewise linear


def relu(x):
    return jnp.maximum(x, 0)


def relu_f1(x):
    return _piece(x, x > 0, 1.0)


def zero_f2(x, *options):
    return _loud(x, 0.0)


def relu6(x):
    return jnp.clip(x, 0, 6)


def relu6_f1(x):
    return _piece(x, (x > 0) & (x < 6), 1.0)


def leaky_relu(x, slope):
    below = jnp.where(slope == 0, 0 * slope, slope * x)  # 0 * -inf is NaN
    return jnp.where(x <= 0, below, x)


def leaky_relu_f1(x, slope):
    return jnp.where(x <= 0, slope, _loud(x, 1.0))


def hard_tanh(x):
    return jnp.clip(x, -1, 1)


def hard_tanh_f1(x):
    return _piece(x, jnp.abs(x) < 1, 1.0)


def hard_sigmoid(x):
    return jnp.clip(x + 3, 0, 6) / 6


def hard_sigmoid_f1(x):
    return _piece(x, jnp.abs(x) < 3, 1 / 6)


# ---- exponential on the left


def elu(x, alpha):
    return jnp.where(x > 0, x, alpha * jnp.expm1(x))


def elu_f1(x, alpha):
    return jnp.where(x > 0, jnp.ones_like(x), elu_f2(x, alpha))


def elu_f2(x, alpha):
    return jnp.where(x > 0, jnp.zeros_like(x), precise.exp_minus(jnp.maximum(-x, 0)).times(alpha))


def celu(x, alpha):
    return jnp.where(x > 0, x, alpha * jnp.expm1(x / alpha))


def celu_f1(x, alpha):
    return jnp.where(x > 0, jnp.ones_like(x), precise.exp_ratio(x, alpha).value)


def celu_f2(x, alpha):
    return jnp.where(x > 0, jnp.zeros_like(x), precise.exp_ratio(x, alpha).times(1 / alpha))


def selu(x):
    return jnp.where(x > 0, SELU_SCALE * x, (SELU_SCALE * SELU_ALPHA) * jnp.expm1(x))


def selu_f1(x):
    return jnp.where(x > 0, jnp.full_like(x, SELU_SCALE), selu_f2(x))


def selu_f2(x):
    left = precise.exp_minus(jnp.maximum(-x, 0)).times(SELU_SCALE * SELU_ALPHA)
    return jnp.where(x > 0, jnp.zeros_like(x), left)


# ---- gates x s(x) with s a logistic function: silu and gelu's tanh form. With e = exp(-v(a)), v(a) = a for silu,
# f(a) = a / (1 + e), f(-a) = -a e / (1 + e); f(x) - f(-x) = x, so f'(x) + f'(-x) = 1 and f'' is even


def _gate(x, a, exponential):
    return jnp.where(x >= 0, x, -exponential.times(a)) / (1 + exponential.value)


def _gate_f1(x, exponential, numerator):
    """From f'(-a) = e numerator / (1 + e)^2."""
    d = 1 + exponential.value
    below = exponential.times(numerator) / (d * d)
    return jnp.where(x >= 0, 1 - below, below)


def _gate_f2(exponential, numerator):
    """f''(x) = e numerator / (1 + e)^3."""
    d = 1 + exponential.value
    return exponential.times(numerator) / (d * d * d)


def _silu_parts(x):
    a = jnp.minimum(jnp.abs(x), _FAR)
    return a, precise.exp_minus(a)


def silu(x):
    return _gate(x, *_silu_parts(x))


def silu_f1(x):
    a, exponential = _silu_parts(x)
    return _gate_f1(x, exponential, precise.SILU1.around(a, 1 + exponential.value - a))


def silu_f2(x):
    a, exponential = _silu_parts(x)
    e = exponential.value
    return _gate_f2(exponential, precise.SILU2.around(a, 2 * (1 + e) - a * (1 - e)))


_C = precise.C.high
_K = 0.044715


def _gelu_tanh_parts(x):
    a = jnp.minimum(jnp.abs(x), 30)  # exp(-v(30)) is 0 in float64
    return a, precise.exp_minus_v(a)


def gelu_tanh(x):
    return _gate(x, *_gelu_tanh_parts(x))


def gelu_tanh_f1(x):
    a, exponential = _gelu_tanh_parts(x)
    slope = _C + (3 * _C * _K) * (a * a)  # v'
    return _gate_f1(x, exponential, precise.GELU_TANH1.around(a, 1 + exponential.value - a * slope))


def gelu_tanh_f2(x):
    # f'' = e / (1 + e)^3 ((2 v' + a v'') (1 + e) - a v'^2 (1 - e))
    a, exponential = _gelu_tanh_parts(x)
    e, square = exponential.value, a * a
    slope_squared = _C + square * (6 * _C * _K + square * (9 * _C * _K * _K))  # v'^2 / C
    numerator = (2 + (12 * _K) * square) * (1 + e) - a * slope_squared * (1 - e)
    return _gate_f2(exponential, _C * precise.GELU_TANH2.around(a, numerator))


# ---- gelu: x Phi(x), f' = Phi(x) + x phi(x), f'' = phi(x) (2 - x^2)

_INV_SQRT_2PI = 0.3989422804014327


def _gelu_parts(x):
    a = jnp.minimum(jnp.abs(x), 40)  # exp(-40^2 / 2) is 0 in float64
    return a, precise.gaussian(a)


def gelu(x):
    a, exponential = _gelu_parts(x)
    mills = precise.mills(a)
    return jnp.where(x >= 0, x * (1 - exponential.times(mills)), -exponential.times(a * mills))


def gelu_f1(x):
    a, exponential = _gelu_parts(x)
    below = exponential.times(precise.gelu_slope(a))
    return jnp.where(x >= 0, 1 - below, below)


def gelu_f2(x):
    a, exponential = _gelu_parts(x)
    high, low = precise.SQRT2.rounded(x.dtype)
    conjugate = high + a
    square_gap = (high - a) * conjugate + low * conjugate  # 2 - a^2 = (sqrt 2 - a)(sqrt 2 + a)
    return exponential.times(_INV_SQRT_2PI * square_gap)


# ---- mish: x tanh(softplus(x)) = x u (u + 2) / (u (u + 2) + 2) with u = exp(x); for x > 0 divided through by u^2


def _mish_parts(x):
    a, exponential = _silu_parts(x)
    e = exponential.value
    return a, exponential, e, jnp.where(x >= 0, 1 + 2 * e * (1 + e), 2 + e * (2 + e))


def mish(x):
    a, exponential, e, denominator = _mish_parts(x)
    return jnp.where(x >= 0, x * (1 + 2 * e), -exponential.times(a * (2 + e))) / denominator


def mish_f1(x):
    a, exponential, e, denominator = _mish_parts(x)
    left = exponential.times(precise.MISH1.around(a, (4 + e * (6 + e * (4 + e))) - 4 * a * (1 + e)))
    right = (1 + 2 * e) * denominator + 4 * (a * e) * e * (1 + e)
    return jnp.where(x >= 0, right, left) / (denominator * denominator)


def mish_f2(x):
    a, exponential, e, denominator = _mish_parts(x)
    common = 2 * (1 + e) * denominator
    left = precise.MISH2_LEFT.around(a, common - a * (2 + e * (2 - e * (3 + 2 * e))))
    right = precise.MISH2_RIGHT.around(a, common - a * (2 + e * (3 - e * (2 + 2 * e))))
    factor = jnp.where(x >= 0, e * right, left)
    return exponential.times(4 * factor) / (denominator * denominator * denominator)


# ---- rational and algebraic


def softsign(x):
    x = jnp.clip(x, -jnp.finfo(x.dtype).max, jnp.finfo(x.dtype).max)  # inf / inf
    return x / (1 + jnp.abs(x))


def softsign_f1(x):
    r = 1 / (1 + jnp.abs(x))
    return r * r


def softsign_f2(x):
    r = 1 / (1 + jnp.abs(x))
    return -2 * jnp.sign(x) * r * (r * r)


def _hypotenuse(x, b):
    a = jnp.abs(x)
    # a * a overflows beyond the first branch, where b no longer counts
    return a, jnp.where(a > jnp.finfo(x.dtype).max ** 0.5 / 2, a, jnp.sqrt(a * a + b))


def squareplus(x, b):
    a, s = _hypotenuse(x, b)
    return jnp.where(x >= 0, x / 2 + s / 2, (b / 4) / (s / 2 + a / 2))  # (s - a)(s + a) = b


def squareplus_f1(x, b):
    a, s = _hypotenuse(x, b)
    below = (b / s) / (s + a) / 2
    return jnp.where(x >= 0, 1 - below, below)


def squareplus_f2(x, b):
    _, s = _hypotenuse(x, b)
    return (b / s) / s / s / 2


def hard_silu(x):
    middle = x * (x + 3) / 6
    return jnp.where(x <= -3, jnp.zeros_like(x), jnp.where(x >= 3, x, middle))


def hard_silu_f1(x):
    middle = (2 * x + 3) / 6
    return jnp.where(x <= -3, jnp.zeros_like(x), jnp.where(x >= 3, jnp.ones_like(x), middle))


def hard_silu_f2(x):
    return _piece(x, jnp.abs(x) < 3, 1 / 3)


def sparse_plus(x):
    half = (x + 1) / 2
    return jnp.where(x <= -1, jnp.zeros_like(x), jnp.where(x >= 1, x, half * half))


def sparse_plus_f1(x):
    return jnp.clip((x + 1) / 2, 0, 1)


def sparse_plus_f2(x):
    return _piece(x, jnp.abs(x) < 1, 0.5)
