"""What a benchmark imports: equality before time, one process per variant, interleaved repeats, one row per variant.

A benchmark describes a piece of `Work` as a list of `Variant`s; the first one is fdl's and all ratios are against it. A
variant names a function `setup(**arguments)` at the top of its module which returns a `Trial`: the result that must
equal the reference, and the call that is timed.

Method
- Every variant lives in a process of its own, so that no library's threads, allocator or settings touch another's.
  Libraries are imported inside `setup`, never at the top of a benchmark.
- The results are compared first. A variant that differs from the reference is not timed, and the command exits with 1.
- Then the variants take turns, one measurement each per round, in an order that rotates by one every round. One
  measurement repeats the call for at least `SHORTEST` seconds. While one process measures, the others wait for a
  message and use no CPU.
- In every round the share of the machine's CPU time that other processes took is recorded, and only the quieter half of
  the rounds counts. What others took even then is said when it is above `QUIET`: such times mean little.
- The ratio is the median over these rounds of (time of the variant / time of fdl in the same round), so that a machine
  that becomes slower for a while changes both. The time is the median, the spread its interquartile range over the
  median.
- Every process gets the same two settings, without which the same program takes once or twice the time, as it happens:
  glibc keeps the memory that is freed (else each large array is new pages from the kernel), and the threads that share
  XLA's work are spread over the cores (they may stay on one of them for seconds).
- cpu/wall is the CPU time of the whole process over the elapsed time: 1.0 is one busy core. A variant that should use
  every core and shows 1.0 had its threads on one core, and its time means little.
- A peer with several settings (1 thread or all, asynchronous dispatch or not) is judged by its fastest.

A benchmark that does not time returns rows with `measured` (see `Row`); `judged` and `memory_rows` make them.
"""

from benchmarks._compare import Variant, Work, compare
from benchmarks._rows import Row, Settings, judged, memory_rows
from benchmarks._worker import Trial, missing, result_of

__all__ = [
    "Row",
    "Settings",
    "Trial",
    "Variant",
    "Work",
    "compare",
    "judged",
    "memory_rows",
    "missing",
    "result_of",
]
