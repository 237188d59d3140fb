"""Comparing results entry by entry, with an allowed error that is measured and not given.

t is the truth (the reference in float64), s its rounding scale and s' the candidate's (see `fdl.check.rounding`): u s is the
error that rounding leaves in an entry, for the unit roundoff u.

    formula    in float64                           |c - t| <= FORMULA u64 (s + s')
    rounding   in the precision of the arguments    |c - t| <= ROUNDING (u s r + |p - t|) + min(ROUNDING u s', most)

p is the plain version in that precision, and r >= 1 how much worse than expected it typically is there (coarse matrix units,
sums kept in 16 bits). A wrong formula is wrong in float64, by far more than rounding. A right one that cancels is right in
float64, and in float32 worse than the plain version by what rounding makes of its own steps: it is accepted, and said to be
ill-conditioned, as long as two digits survive, counted from the largest entry of the array: most = LOST max|t|, or ROUNDING u
max|t| if u is coarser. Beyond that, and where it is not finite, it is of no use in that precision, and accused. Digits are asked
of gradients: a value that cancels to nothing is no fault of theirs. An entry where the plain version overflows does not accuse.

At a kink the truth jumps, however little the arguments are moved. There the reference takes one slope, by its convention, and
a candidate may take another one between those on either side: it is counted as a kink and not compared.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from fdl.check.rounding import unit_roundoff

FORMULA = 100.0
ROUNDING = 16.0
LOST = 1e-2

FEW_BITS = 128.0  # roundoffs of 16 bits: a fault that is seen where nothing is computed in more
_SEEN = 1e-2  # an entry decides if an error of 1 % in it would show,
_NOTHING = 1e-6  # or an error of this share of the natural size of its leaf: it is zero up to rounding


@dataclasses.dataclass(frozen=True)
class Item:
    """One array of the results: an output, or the gradient of one argument leaf."""

    kind: str  # "value", "gradient", "second derivative"
    leaf: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.leaf}"

    @property
    def is_derivative(self) -> bool:
        return self.kind != "value"


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What an entry should be, and how far rounding may take it."""

    wanted: np.ndarray
    allowed: np.ndarray
    comparable: np.ndarray  # false where the truth, or the plain version, is not finite
    excused: np.ndarray  # the plain version has no digits here: what is not finite accuses nobody
    expected: np.ndarray  # the error of the plain version, as measured or as it has to be expected
    floor: float  # the part of `allowed` that is there because small numbers are flushed to zero
    usual: np.ndarray | None = None  # how far rounding takes it whatever the plain version does; None where nobody asks
    lost: np.ndarray | None = (
        None  # the plain version is off by more than rounding makes of it: something over- or underflows
    )
    coarse: float = 0.0  # the unit roundoff
    kinks: int = 0  # entries left out because candidate and reference take different slopes at a kink


def of_formula(wanted: np.ndarray, scale: np.ndarray, own_scale: np.ndarray, u: float) -> Truth:
    """The truth in float64, or in the precision that a function has inside whatever its arguments are."""
    margin = FORMULA if u <= unit_roundoff(np.float64) else ROUNDING
    floor = margin * _smallest(np.float64)
    with np.errstate(all="ignore"):
        allowed = margin * u * (scale + own_scale) + floor
    comparable = np.isfinite(wanted) & np.isfinite(allowed)
    return Truth(wanted, allowed, comparable, np.zeros_like(comparable), u * scale, floor, coarse=u)


def of_rounding(
    wanted: np.ndarray,
    scale: np.ndarray,
    own_scale: np.ndarray | None,
    u: float,
    plain: np.ndarray,
    dtype: Any,
    capped: bool = True,
) -> Truth:
    """The truth in the arguments' own precision; `plain` is the reference there. capped: two digits have to survive."""
    limits, floor = jnp.finfo(dtype), ROUNDING * _smallest(dtype)
    comparable = np.isfinite(wanted) & np.isfinite(plain) & np.isfinite(scale) & (np.abs(wanted) <= float(limits.max))
    with np.errstate(all="ignore"):
        error = np.abs(plain - wanted)
        excused = error > 0.1 * np.abs(wanted) + floor
        counted = comparable & (u * scale > floor) & ~excused
        ratio = float(np.median(error[counted] / (u * scale[counted]))) if counted.any() else 1.0
        expected = np.maximum(u * scale * max(1.0, ratio), error)
        usual = ROUNDING * u * scale * max(1.0, ratio) + floor
        allowed = usual + ROUNDING * error
        # a number that the dtype holds, and that the plain version does not reach
        lost = excused | ~np.isfinite(plain)
        lost &= (
            np.isfinite(usual) & (np.abs(wanted) > usual) & ~(error <= usual) & (np.abs(wanted) <= float(limits.max))
        )
        if own_scale is not None and comparable.any():
            most = max(LOST, ROUNDING * u) * np.max(np.abs(wanted[comparable])) if capped else np.inf
            allowed += np.minimum(ROUNDING * u * own_scale, most)
    return Truth(wanted, allowed, comparable, excused, expected, floor, usual, lost, u)


def lost_entries(got: np.ndarray, truth: Truth) -> np.ndarray:
    """The entries that neither the plain version nor the candidate has, though the dtype holds them."""
    if truth.lost is None or truth.usual is None:
        return np.zeros(got.shape, bool)
    with np.errstate(all="ignore"):
        return truth.lost & ~(np.abs(got - truth.wanted) <= truth.usual)


def without_kinks(got: np.ndarray, truth: Truth, low: np.ndarray, high: np.ndarray) -> Truth:
    """The truth without the entries at a kink where `got` is another slope. low, high: what lies around; equal if no kink.

    Several kinks may meet in an entry, and not all ways past them were tried: so a slope counts up to twice as far out.
    """
    with np.errstate(all="ignore"):
        slack = (high - low) / 2 + truth.allowed
        between = (high > low) & (got >= low - slack) & (got <= high + slack)
    between &= wrong_entries(got, truth)
    return dataclasses.replace(truth, comparable=truth.comparable & ~between, kinks=int(between.sum()))


def _smallest(dtype: Any) -> float:
    """What is flushed to zero: float32 below 1.2e-38. float16 keeps its subnormals."""
    limits = jnp.finfo(dtype)
    return float(limits.smallest_subnormal if limits.bits == 16 and limits.nmant > 7 else limits.tiny)


def decides(truth: Truth, natural: float) -> np.ndarray:
    """The entries in which an error of 1 % would have been seen, or which are zero up to rounding for certain."""
    with np.errstate(all="ignore"):
        enough = np.maximum(_SEEN * np.abs(truth.wanted), _NOTHING * natural)
        exactly_zero = (truth.wanted == 0) & (truth.allowed <= truth.floor)
    return truth.comparable & ((truth.allowed <= enough) | exactly_zero)


def decides_in_16_bits(truth: Truth, natural: float) -> np.ndarray:
    """The same for a fault of 128 roundoffs of 16 bits: 6 % in float16, 25 % in bfloat16. A smaller one is not to be seen."""
    with np.errstate(all="ignore"):
        enough = np.maximum(FEW_BITS * truth.coarse * np.abs(truth.wanted), _NOTHING * natural)
    return (
        truth.comparable & (truth.allowed <= enough)
        if truth.coarse >= unit_roundoff(jnp.float16)
        else decides(truth, natural)
    )


def natural_size(wanted: np.ndarray, argument: np.ndarray, others: list[np.ndarray], flow: float) -> float:
    """The size a gradient leaf has by its units: that of its largest entry, or <w, y> / x.

    A gradient that cancels to nothing is zero if rounding in it is nothing against this, and lost in rounding if not.
    """
    size = rms(argument) or max((rms(x) for x in others), default=0.0) or 1.0
    return max(largest(wanted), flow / size) if math.isfinite(flow) else largest(wanted)


def largest(x: np.ndarray) -> float:
    """The size of the largest entry that is finite."""
    return float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x)))


def rms(x: np.ndarray) -> float:
    """Root mean square of what is finite, without overflow."""
    x = np.asarray(x).astype(np.float64)
    x = np.abs(x[np.isfinite(x)])
    top = float(np.max(x, initial=0.0))
    return top * float(np.sqrt(np.mean(np.square(x / top)))) if top > 0 else 0.0


def wrong_entries(got: np.ndarray, truth: Truth) -> np.ndarray:
    with np.errstate(all="ignore"):
        close = np.abs(got - truth.wanted) <= truth.allowed
    return truth.comparable & ~close & ~(truth.excused & ~np.isfinite(got))


# ---- what a wrong array looks like ----


def pattern(got: np.ndarray, truth: Truth, wrong: np.ndarray) -> str:
    """A few words on what is wrong and where: "factor -1.000, all entries", "zero, row 3"."""
    what, where = _what(got, truth, wrong), _where(wrong)
    return ", ".join(part for part in (what, where) if part)


def _what(got: np.ndarray, truth: Truth, wrong: np.ndarray) -> str:
    c, t, allowed = got[wrong], truth.wanted[wrong], truth.allowed[wrong]
    if not np.isfinite(c).any():
        return "not finite"
    if not np.isfinite(c).all():
        return ""
    if not c.any():
        return "zero"
    if got.ndim == 2 and got.shape[0] == got.shape[1] > 1 and np.all(np.abs(got - truth.wanted.T) <= truth.allowed.T):
        return "transposed"
    if not t.all():
        return ""
    factor = float(np.median(c / t))
    if np.all(np.abs(c - factor * t) <= np.maximum(allowed, 1e-3 * np.abs((factor - 1) * t))):
        return (
            f"factor 1 {'+' if factor > 1 else '-'} {abs(factor - 1):.2g}"
            if abs(factor - 1) < 1e-3
            else f"factor {factor:#.4g}"
        )
    return ""


def _where(wrong: np.ndarray) -> str:
    if wrong.ndim == 0:
        return ""
    if wrong.all():
        return "all entries"
    if wrong.sum() == 1:
        return "one entry"
    for axis in range(wrong.ndim):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        some, every = np.asarray(wrong.any(axis=others)), np.asarray(wrong.all(axis=others))
        if wrong.ndim > 1 and some.sum() == 1:
            return f"{'all' if every.any() else 'some'} of {_slice(wrong.ndim, axis)} {int(np.argmax(some))}"
        if wrong.shape[axis] > 2 and not some[0] and every[1:].all():
            return f"all but {_slice(wrong.ndim, axis)} 0"
    return ""


def _slice(rank: int, axis: int) -> str:
    if rank == 2:
        return ("row", "column")[axis]
    return "index" if rank == 1 else f"axis {axis}, index"
