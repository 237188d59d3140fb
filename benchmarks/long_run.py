"""Long runs: what a step costs, and how much memory the process holds, as the number of steps grows.

Claim: the cost of a step does not grow with the number of steps, nor the memory with the number of epochs.

Work: `fdl.train.fit` on a 64-32-10 network, batch 32, on the digits that come with fdl, for 1,000 to 100,000 steps (with --full 1,000,000:
22,223 epochs), compiled before. Microseconds per step, everything included, and the resident memory after each run. "grows" if a
step of the longest run takes more than 1.2 times one of 10,000 steps, or the process has grown by more than 8 MiB beyond what its history
of losses takes.
"""

import os
import time
from typing import Any

from benchmarks._harness import Row, Settings, Trial, result_of


def run(settings: Settings) -> list[Row]:
    lengths = [1_000, 10_000, 100_000, *([1_000_000] if settings.full else [])]
    return [
        Row("64-32-10 relu B32", "", "fdl", "fdl", status, text)
        for status, text in result_of(long_runs, {"lengths": lengths})
    ]


def long_runs(lengths: list[int]) -> Trial:
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
    found: list[tuple[str, str]] = []
    cost, memory = {}, {}
    for steps in lengths:
        start = time.perf_counter()
        result = train(steps)
        cost[steps] = (time.perf_counter() - start) / steps
        memory[steps] = _resident() - result.history["loss"].nbytes
        text = f"{steps:,} steps, {len(result.history['loss']):,} epochs: {cost[steps] * 1e6:.1f} us/step, {memory[steps] / 2**20:.0f} MiB"
        found.append(("measured", text))
        del result
    longest = lengths[-1]
    dearer, grown = cost[longest] / cost[10_000], (memory[longest] - memory[10_000]) / 2**20
    flat = dearer < 1.2 and grown < 8
    text = f"from 10,000 to {longest:,} steps: {dearer:.2f} times the cost of a step, {grown:+.1f} MiB"
    found.append(("flat" if flat else "grows", text))
    return Trial(found)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
