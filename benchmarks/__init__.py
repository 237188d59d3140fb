"""Claims against named peers, one script per claim: how fast (checked for equal results before it is timed), how right.

    python -m benchmarks [NAME ...] [--full] [--list] [--repeats N] [--out FILE.json]
    python -m benchmarks [NAME ...] [--show] [--plot FILE.png] [--readme [FILE.md]] [--stored FILE.json]

The first form runs them, all if there is no NAME, and prints one table; --out puts what was measured into a file, in the
place of the sections of the benchmarks that ran. The exit code is 1 if a result differs from its reference, if fdl is
wrong, or if a variant cannot be run (a peer that is not installed is listed, no more), 2 if the command itself is wrong. A
missed target of speed or memory is shown and does not change the exit code: times depend on the machine and on what else
it is doing.

The second form runs nothing: it shows what is stored, draws it, or writes it into the README. The results of one full run
are in results.json, beside this file.

A benchmark is a file of this folder whose name does not begin with an underscore. Its docstring says what is claimed,
against whom and how; its `run(settings)` returns rows, for claims about speed those of `_harness.compare`, where the
method is described.
"""
