"""Long runs: what a step costs, and how much memory the process holds, as the number of steps grows.

Claim: the cost of a step does not grow with the number of steps, nor the memory with the number of epochs.

Work: `fdl.train.fit` on a 64-32-10 network, batch 32, on the digits that come with fdl, for 1,000 to 100,000 steps (with --full 1,000,000:
22,223 epochs), compiled before. Microseconds per step, everything included, and the resident memory after each run. The target: a
step of the longest run takes at most 1.2 times one of 10,000 steps, and the process has grown by at most 8 MiB beyond what its history
of losses takes.
"""

import os
import time
from typing import Any

from benchmarks._harness import Row, Settings, Trial, result_of

BASE = 10_000
DEARER, GROWN = 1.2, 8  # at most: times the cost of a step, MiB


def run(settings: Settings) -> list[Row]:
    lengths = [1_000, BASE, 100_000, *([1_000_000] if settings.full else [])]
    found = result_of(long_runs, {"lengths": lengths})
    rows = []
    for steps, (epochs, cost, memory) in found.items():
        row = Row(f"{steps:,} steps", "step", "fdl", "fdl", "measured", f"{epochs:,} epochs, {memory / 2**20:.0f} MiB")
        row.measured = f"{cost * 1e6:.1f} us/step"
        row.figures = {"steps": steps, "epochs": epochs, "seconds": cost, "bytes": memory}
        rows.append(row)
    (_, cost, memory), (_, base_cost, base_memory) = found[lengths[-1]], found[BASE]
    dearer, grown = cost / base_cost, (memory - base_memory) / 2**20
    work = f"{BASE:,} to {lengths[-1]:,} steps"
    growth = Row(work, "", "fdl", "fdl", "measured", "", f"{dearer:.2f} x a step, {grown:+.1f} MiB")
    growth.wanted, growth.reached = f"<= {DEARER} x, <= {GROWN} MiB", dearer <= DEARER and grown <= GROWN
    growth.figures = {"dearer": dearer, "grown": grown}
    return [*rows, growth]


def long_runs(lengths: list[int]) -> Trial:
    """{steps: (epochs, seconds per step, bytes resident without the history)}"""
    import jax
    import optax

    import fdl

    data, _ = fdl.data.digits()
    data = jax.device_put(data)
    model = fdl.serial(fdl.dense(32), fdl.relu(), fdl.dense(10))
    loss, optimizer = fdl.losses.softmax_cross_entropy_with_integer_labels, optax.sgd(0.01)

    def train(steps: int) -> Any:
        how = {"batch_size": 32, "key": jax.random.key(0), "progress": False}
        return fdl.train.fit(model, loss, optimizer, data, steps=steps, **how)

    train(lengths[0])
    found: dict[int, tuple[int, float, int]] = {}
    for steps in lengths:
        start = time.perf_counter()
        result = train(steps)
        cost, losses = (time.perf_counter() - start) / steps, result.history["loss"]
        found[steps] = (len(losses), cost, _resident() - losses.nbytes)
        del result, losses
    return Trial(found)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
