"""What plain floating point cannot do for the activations: exact splits, exponents in two words, roots of derivatives.

Two losses make a plain formula for a gate x s(x) wrong by hundreds of ulps, and this file removes both.

Exponents. exp(w) turns the rounding of w, a relative eps / 2, into |w| eps / 2 of the result: exp(-x^2 / 2) at x =
-12 is up to 36 ulps off. So w is computed as high + low, low being what the rounding of high lost, and exp(high +
low) = exp(high) (1 + low). A product that must be exact has its factors cut by a bit mask to half the significand
(Dekker 1971); whether the compiler then contracts a multiply and an add into one instruction changes nothing, as the
product was exact already.

Roots. f' of gelu, silu and mish crosses zero as the difference of two numbers of size 1. Within RADIUS of a root r
the difference is d p(d), with d = x - r exact (r in two words; x - r_high is exact by Sterbenz's lemma) and p a
polynomial.

Tails. Phi(-a) and the derivative of x Phi(x) at -a are exp(-a^2 / 2) times functions without an exponential, which
are polynomials in t = (a - k) / (a + k) (Shepherd & Laframboise 1981).

The coefficients were fitted with 60-digit arithmetic by interpolation at Chebyshev nodes; the relative error of each
polynomial is written beside it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

RADIUS = 0.75


class TwoWords(NamedTuple):
    """A real constant as high + low, both float64: about 32 digits."""

    high: float
    low: float

    def rounded(self, dtype: Any) -> tuple[float, float]:
        """(high, low) in `dtype`: high is the constant rounded, low what that lost."""
        high = float(np.asarray(self.high, dtype))
        return high, (self.high - high) + self.low

    def cut(self, dtype: Any) -> tuple[float, float]:
        """(high, low) with only the upper half of the significand in high: high times another such half is exact."""
        bits = 12 if jnp.finfo(dtype).bits == 32 else 26
        mantissa, exponent = np.frexp(self.high)
        high = float(np.ldexp(np.trunc(np.ldexp(mantissa, bits)), exponent - bits))
        return high, (self.high - high) + self.low


class Root(NamedTuple):
    """A root of a function n, with n(r + d) = d p(d) for |d| < RADIUS, to a relative error of `2**log2_error`."""

    at: TwoWords
    coefficients: tuple[float, ...]
    log2_error: float

    def around(self, x, n):
        """n(x), with full relative accuracy also next to the root; `n` is its plain evaluation."""
        high, low = self.at.rounded(x.dtype)
        d = x - high
        p = horner(self._enough(x.dtype), d)
        # not (d - low) p: XLA adds the two constants of (x - high) - low up first, and low is lost
        return jnp.where(jnp.abs(d) < RADIUS, d * p - low * p, n)

    def _enough(self, dtype):
        """The coefficients without those that a float32 cannot see."""
        least = float(jnp.finfo(dtype).eps) / 8 * abs(self.coefficients[0])
        seen = [i for i, c in enumerate(self.coefficients) if abs(c) * RADIUS**i > least]
        return self.coefficients[: seen[-1] + 1]


def horner(coefficients, t):
    """sum_i coefficients[i] t^i."""
    total = jnp.full_like(t, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * t + c
    return total


def split(x):
    """x = high + low exactly, high with the upper half of the significand: high * high is exact."""
    integer, mask = (jnp.int32, -(1 << 12)) if x.dtype == jnp.float32 else (jnp.int64, -(1 << 27))
    bits = jax.lax.bitcast_convert_type(x, integer)
    high = jax.lax.bitcast_convert_type(bits & jnp.asarray(mask, integer), x.dtype)
    return high, x - high


def log1p(e):
    """log(1 + e) for 0 <= e <= 1, as 2 artanh(s / 2), s = e / (1 + e / 2) <= 2/3.

    A third of the time of XLA's log1p on a CPU (2 million float32: 0.6 against 2.2 ms in softplus).
    """
    terms = 7 if e.dtype == jnp.float32 else 17  # the first one left out is below eps / 4
    s = e / (1 + e / 2)
    return s * horner([1 / ((2 * n + 1) * 4**n) for n in range(terms)], s * s)


class Exponential(NamedTuple):
    """exp(-w) = e * unit, where e is not yet flushed to zero when exp(-w) is: factor * exp(-w) may still be normal."""

    e: jax.Array
    unit: jax.Array

    @property
    def value(self):
        return self.e * self.unit

    def times(self, factor):
        """factor * exp(-w)."""
        return (self.e * factor) * self.unit


_SHIFT = 16.0


def exp_minus(high, low=None):
    """exp(-(high + low)) for high >= 0 and a low of the size of the rounding of high."""
    far = high > _SHIFT  # where the subtraction is exact
    e = jnp.exp(jnp.where(far, _SHIFT - high, -high))
    unit = jnp.where(far, jnp.full_like(high, math.exp(-_SHIFT)), jnp.ones_like(high))
    return Exponential(e if low is None else e - e * low, unit)


def gaussian(a):
    """exp(-a^2 / 2) for 0 <= a <= 40."""
    a_high, a_low = split(a)
    square, rest = a_high * a_high, a_low * (a + a_high)
    w = square + rest
    return exp_minus(w / 2, ((square - w) + rest) / 2)


# gelu's tanh form: v(x) = 2 sqrt(2/pi) (x + 0.044715 x^3) = x (C + B x^2)
C = TwoWords(1.5957691216057308, -9.96930880911092e-17)
B = TwoWords(0.07135481627260025, -6.175149918115357e-19)


def exp_minus_v(a):
    """exp(-v(a)) for 0 <= a <= 30."""
    c, c_low = C.cut(a.dtype)
    b, b_low = B.cut(a.dtype)
    a_high, a_low = split(a)
    square, square_low = a_high * a_high, a_low * (a + a_high)  # a^2
    head, tail = split(square)
    product = b * head
    # s = C + B a^2 = s_high + s_low
    s_high, _ = split(c + product)
    s_low = ((c - s_high) + product) + (c_low + b * tail + b_low * square + (b + b_low) * square_low)
    # v = a s
    product = a_high * s_high
    rest = a_high * s_low + a_low * (s_high + s_low)
    w = product + rest
    return exp_minus(w, (product - w) + rest)


def exp_ratio(x, alpha):
    """exp(x / alpha) for x <= 0 < alpha: the rounding of the quotient is put back."""
    x = jnp.clip(x, -2000 * alpha, 0)  # exp is 0 there, and an infinite x would leave inf - inf below
    q = x / alpha
    (q_high, q_low), (alpha_high, alpha_low) = split(q), split(alpha)
    lost = ((x - q_high * alpha_high) - q_high * alpha_low - q_low * alpha_high) - q_low * alpha_low
    return exp_minus(-q, -lost / alpha)


class _Tail(NamedTuple):
    k: float
    ratio: tuple[float, ...]  # Phi(-a) exp(a^2 / 2) (a + k)
    slope: tuple[float, ...]  # (Phi(-a) - a phi(a)) exp(a^2 / 2) / (r - a)


def mills(a):
    """Phi(-a) exp(a^2 / 2) for 0 <= a <= 40, Phi the normal distribution function."""
    tail = _TAIL32 if a.dtype == jnp.float32 else _TAIL64
    r = 1 / (a + tail.k)
    return r * horner(tail.ratio, (a - tail.k) * r)


def gelu_slope(a):
    """(Phi(-a) - a phi(a)) exp(a^2 / 2) for 0 <= a <= 40: the derivative of x Phi(x) at -a without its exponential.

    The root is a factor of its own, so the result has full relative accuracy everywhere.
    """
    tail = _TAIL32 if a.dtype == jnp.float32 else _TAIL64
    high, low = GELU_ROOT.rounded(a.dtype)
    slope = horner(tail.slope, (a - tail.k) / (a + tail.k))
    return (high - a) * slope + low * slope


SQRT2 = TwoWords(1.4142135623730951, -9.667293313452913e-17)
GELU_ROOT = TwoWords(0.7517915246935645, -1.4956759177009883e-17)  # the derivative of x Phi(x) is 0 at minus this

# relative error: ratio 2^-29.6, slope 2^-30.9 for a <= 15, beyond which exp(-a^2 / 2) is 0 in float32
# fmt: off
_TAIL32 = _Tail(
    k=3.0,
    ratio=(
        0.729083717, -0.509332001, 0.230017677, -0.0472627617, -0.0104622887, 0.00696992036, 0.00102415727,
        -0.00103447656, -0.000244709314, 0.000133323949, 5.54918734e-05,
    ),
    slope=(
        0.478297681, -0.119975425, 0.0535961203, -0.0140747931, 0.000203896168, 0.00109506212, -9.30480965e-05,
        -0.000129522799, 2.41950215e-06, 1.76230769e-05, 3.8730609e-06,
    ),
)

# relative error: ratio 2^-51.5, slope 2^-56.3 for a <= 39
_TAIL64 = _Tail(
    k=5.0,
    ratio=(
        0.7691930497500629, -0.6653825028900531, 0.495305615969997, -0.313533156671641, 0.16502036616937343,
        -0.06911863869712301, 0.020795066820094334, -0.002993376883613333, -0.0007978696113208544,
        0.0005448998108227089, -5.937440617755696e-05, -4.976565041874776e-05, 1.6676129498416067e-05,
        3.9871651229775396e-06, -2.757029083229564e-06, -3.440325800941884e-07, 4.151939755132271e-07,
        4.5359556863040614e-08, -5.12176335203692e-08, -7.389204600141193e-09, 2.352082405665796e-09,
    ),
    slope=(
        0.45143549526340543, -0.08979658026980374, 0.060487813553870985, -0.035535121469155675, 0.017807831556882932,
        -0.007334310928988714, 0.0023021837235944445, -0.00044053062527911165, -1.519577495943639e-05,
        4.064699533483498e-05, -9.201158083761803e-06, -1.9928279462535967e-06, 1.3601234577847068e-06,
        2.163122913676731e-08, -1.6867276830859697e-07, 1.2128632917155715e-08, 2.165113351005426e-08,
        -2.162902267309979e-09, -2.7212874248501606e-09, 1.6259420249196775e-10, 2.1990347222068178e-10,
    ),
)

# 1 + e - a, e = exp(-a): the numerator of silu'(-a)
SILU1 = Root(TwoWords(1.2784645427610737, 1.0946994183093437e-16), (
    -1.2784645427610737, 0.1392322713805369, -0.046410757126845635, 0.011602689281711393, -0.0023205378563422806,
    0.0003867563093906588, -5.525090134149927e-05, 6.906362665327931e-06, -7.673736296042405e-07,
    7.67373732151752e-08, -6.976124508769163e-09, 5.813198410644746e-10, -4.4717342752454743e-11,
    3.2223863334301553e-12, -2.1460393196898597e-13,
), -66.6)

# 2 + 2 e - a + a e: the numerator of silu''(a)
SILU2 = Root(TwoWords(2.3993572805154675, 1.8464872855353363e-16), (
    -1.3085810022886, 0.10890236203086624, -0.021171407639144147, 0.001510506983666609, 0.00045436758849058223,
    -0.00020180609562013492, 4.68406085462192e-05, -8.106471848700776e-06, 1.1508741824283168e-06,
    -1.4010296583920475e-07, 1.5010769369681766e-08, -1.440318514667394e-09, 1.2537271313469748e-10,
    -1.0103559675663362e-11, 7.426891540597279e-13,
), -64.8)

# 1 + e - a v'(a), e = exp(-v(a)): the numerator of the derivative of gelu's tanh form at -a
GELU_TANH1 = Root(TwoWords(0.7524614220710163, -3.635560509207687e-17), (
    -2.4606567646302393, -0.09991152322500725, -0.4004476935341723, 0.07595899087138969, -0.03048599056369698,
    0.011295233063905495, -0.0036903774547136095, 0.001152928739075405, -0.0003565105602507637,
    0.00010309344741019376, -2.8089257194762668e-05, 7.552614488648981e-06, -1.992858714845149e-06,
    5.679848585952272e-07, -1.3857208956996904e-07,
), -46.2)

# ((2 v' + a v'') (1 + e) - a v'^2 (1 - e)) / C: the numerator of its second derivative at a
GELU_TANH2 = Root(TwoWords(1.4185040087908283, 8.089265124388305e-17), (
    -3.8630067504731214, -1.9166608585079263, -1.0155734269191627, -0.18289247894581695, -0.04215312549804402,
    -0.0001713444875093049, 0.0011798553633768907, -0.00011206147675813386, 9.730580478358498e-05,
    -8.455182499469717e-05, 1.948099589122838e-05, -3.3418910940558214e-06, 2.1436722738532345e-06,
    -7.370150531646647e-07, 1.0887592228625002e-07,
), -46.2)

# 4 + 6 e + 4 e^2 + e^3 - 4 a (1 + e): the numerator of mish'(-a)
MISH1 = Root(TwoWords(1.1924312145154952, 4.8484829848031044e-17), (
    -6.407964080090054, 2.263207433520231, -1.2861822919775232, 0.5578184889555976, -0.20853483859910538,
    0.0716825366989965, -0.023245295599036778, 0.0071375137579311795, -0.0020670373692523955, 0.0005622866674246308,
    -0.00014329885463222554, 3.4083082003942284e-05, -7.624569254848754e-06, 1.7313634148698672e-06,
    -3.3837613776772933e-07,
), -46.7)

# the numerators of mish''(-a) and of mish''(a)
MISH2_LEFT = Root(TwoWords(2.256376396360793, 1.0703174875019247e-16), (
    -2.8420263316170953, 0.6331401510962474, -0.30985600025105375, 0.11453470310884825, -0.03457804938528035,
    0.00884992411749787, -0.0019156468221156818, 0.00032463714875744377, -2.683896962378592e-05,
    -9.112216557063706e-06, 6.217485152334125e-06, -2.3606618740070597e-06, 7.262202319338619e-07,
    -2.1727523105461815e-07, 5.116300959461322e-08,
), -48.2)
MISH2_RIGHT = Root(TwoWords(1.4905711794854284, 7.126036715834263e-17), (
    -4.249232708977586, 2.0496012841956004, -1.1912887279254352, 0.5294930316785108, -0.19635917189574761,
    0.06306647779966447, -0.017613587030702444, 0.004167122822422187, -0.0007676911687303006, 7.441014465453339e-05,
    1.7730480504812837e-05, -1.317583634412747e-05, 5.030656467410758e-06, -1.697480344892896e-06,
    4.236833541857285e-07,
), -45.4)
# fmt: on
