"""A zoo of backward passes, wrong and right: what a gradient checker has to catch, and what it must let through.

The wrong ones are of the kinds that were found in public libraries, or that public checkers were measured to miss: a path
left out, a sign, a factor, m for m - 1, a transposition, a sum over a broadcast forgotten, a stale residual, time in the wrong
order, a cotangent ignored or squared, duplicate indices overwritten, one entry of thousands. `Case.term` says which. The right
ones are there where checkers raise false alarms: extreme magnitudes, 16 bits, ties and kinks, cancellation, odd leaves.
"""

from benchmarks.zoo import (
    attention,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    recurrent,
    reductions,
    scale,
)
from benchmarks.zoo.case import Case

_FILES = (elementwise, reductions, linear, normalization, recurrent, indexing, attention, convolution, scale)

CASES: tuple[Case, ...] = tuple(case for file in _FILES for case in file.zoo.cases)
WRONG = tuple(case for case in CASES if case.wrong)
RIGHT = tuple(case for case in CASES if not case.wrong)
