"""Claims against named peers, one script per claim: how fast (checked for equal results before it is timed), how right.

    python -m benchmarks [NAME ...] [--full] [--list] [--repeats N] [--out FILE.json]

No NAME runs them all. The exit code is 1 if a result differs from its reference, if fdl is wrong, or if a variant cannot
be run (a peer that is not installed is listed, no more), 2 if the command itself is wrong. A missed speed target is shown
and does not change the exit code: times depend on the machine and on what else it is doing.

A benchmark is a file of this folder whose name does not begin with an underscore. Its docstring says what is claimed,
against whom and how; its `run(settings)` returns rows, for claims about speed those of `_harness.compare`, where the
method is described.
"""
