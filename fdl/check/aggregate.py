"""What all entries of an array say together: a fault that rounding hides in each of them alone.

Rounding allows an entry of a bfloat16 array half of itself. A factor of 1.1 on all of them is seen all the same: rounding
errors have all signs, and what the entries have in common stands out of their sum. With the error e, the truth t and the
allowed error a of every entry (see `fdl.check.compare`), y = e / a, and a pattern z, the sum is held against what rounding
makes of it, entry by entry independent but for a share that they may have in common:

    |<z, y>|  <=  INDEPENDENT |z|_2 + COMMON |z|_1      patterns z: t / a, a common factor; 1, a common shift; sign(t)
                                                        of all entries, of one row along any axis, of t > 0 or t < 0

The share in common is there because a scalar that is rounded once, a constant cast to few bits, or a sum kept in few bits
moves all entries alike. The smallest error of all of about 1,000 entries of every gradient for which "quick" says wrong, and
of one entry of typical size (with the rounding that is measured before an accusation, key 0, to within 7 %):

| gradient of         | bfloat16 | float16 | float32 | one entry in bfloat16 |
|---------------------|----------|---------|---------|-----------------------|
| x: tanh             | 5.9 %    | 0.77 %  | 1.0e-6  | 66 %                  |
| w, x: dense         | 4.6 %    | 0.62 %  | 8e-7    | 50 %                  |
| w, x: conv          | 5.3 %    | 0.68 %  | 1.0e-6  | 70 %                  |
| logits: softmax CE  | 8.2 %    | 1.0 %   | 1.6e-6  | 150 %                 |
| x: layer norm       | 6.2 %    | 0.88 %  | 1.2e-6  | 80 %                  |
| x: batch norm       | 6.7 %    | 0.88 %  | 1.2e-6  | 70 %                  |
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from fdl.check.compare import Truth

INDEPENDENT = 1.0
COMMON = 1 / 16
_ENOUGH = 16  # entries
_MOST_ROWS = 64  # of an axis


@dataclasses.dataclass(frozen=True)
class Common:
    """What is wrong in all entries of a part of an array: `share` of the truth, where rounding explains `explained`."""

    share: float
    explained: float
    shift: bool  # the same number added to all of them; else a factor
    where: str
    over: float  # the sum over what is allowed
    entries: int
    index: tuple[int, ...]  # the entry that is best known, what it is and what it should be
    got: float
    wanted: float

    @property
    def said(self) -> str:
        most = f"where rounding explains {self.explained:.2g}"
        if self.shift:
            return f"{self.entries} entries{self.where} together are off by {self.share:.2g}, {most}"
        factor = f"{1 + self.share:.4g}" if abs(self.share) >= 1e-3 else f"1 {self.share:+.2g}"
        return f"factor {factor} of {self.entries} entries{self.where} together, {most}"


def common_error(got: np.ndarray, truth: Truth) -> Common | None:
    """The clearest error that entries have in common beyond what rounding explains, if there is one."""
    found = max(_sums(got, truth), key=lambda common: common.over, default=None)
    return found if found is not None and found.over > 1 else None


def _sums(got: np.ndarray, truth: Truth) -> Iterator[Common]:
    """One for every pattern."""
    usable = truth.comparable & ~truth.excused & np.isfinite(got) & (truth.allowed > 2 * truth.floor)
    if usable.sum() < _ENOUGH:
        return
    with np.errstate(all="ignore"):
        t = np.where(usable, truth.wanted / truth.allowed, 0.0)
        y = np.where(usable, (got - truth.wanted) / truth.allowed, 0.0)
        unit = np.where(usable, 1 / truth.allowed, 0.0)
    best = np.unravel_index(int(np.argmax(np.abs(t))), t.shape)
    one = tuple(int(i) for i in best), float(got[best]), float(truth.wanted[best])
    for part, where in _parts(truth.wanted):
        part &= usable
        if (entries := int(part.sum())) < _ENOUGH:
            continue
        for z, effect, shift in ((t, t, False), (np.sign(t), t, False), (np.ones_like(t), unit, True)):
            z = np.where(part, z, 0.0)
            allowed = float(INDEPENDENT * np.sqrt(np.sum(z * z)) + COMMON * np.sum(np.abs(z)))
            size = float(np.sum(z * effect))
            if allowed > 0 and size > 0:
                total = float(np.sum(z * y))
                yield Common(total / size, allowed / size, shift, where, abs(total) / allowed, entries, *one)


def _parts(wanted: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    everything = np.ones(wanted.shape, bool)
    yield everything, ""
    yield wanted > 0, " that are positive"
    yield wanted < 0, " that are negative"
    if wanted.ndim < 2:
        return
    for axis in range(wanted.ndim):
        for index in range(min(wanted.shape[axis], _MOST_ROWS)):
            part = np.zeros(wanted.shape, bool)
            part[(slice(None),) * axis + (index,)] = True
            yield part, f" at {index} along axis {axis}"
