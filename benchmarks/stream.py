"""Does a stream load the next chunk while the current one is trained on?

Claim: a loop over a stream takes about as long as the slower of loading and training, not as long as both together.

    python -m benchmarks stream [--full]

Method: a file of random pictures, memory-mapped, is read in chunks three times: loading only; training only, on a chunk that
is on the device; and a loop over `Stream.prefetched` that trains on every chunk. How much work a chunk is (matrix products on one core) is
chosen so that training takes as long as loading, where overlap saves the most: half. A second work has a slow disk, played by a wait of
as long as training takes.

overlap = (load + train - loop) / min(load, train): 0 nothing, 1 everything; 0.5 is the target.

Measured on a shared machine of two cores, nothing else running: the claim fails there. From memory: load 0.09 s, train 0.05 s, loop
0.20 s, overlap below 0; from a slow disk 0.34. With a wait in the place of training: load 0.09 s, wait 0.06 s, loop 0.10 to 0.11 s, overlap
0.6 to 0.8. So the thread does load meanwhile; loading from memory and XLA's computation did not run side by side, for a reason not found.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._harness import Row, Settings

LEAST = 0.5
SIZE = (28, 28, 4)


class Times(NamedTuple):
    """Seconds for one pass over all chunks."""

    load: float
    train: float
    loop: float

    @property
    def overlap(self) -> float:
        return (self.load + self.train - self.loop) / min(self.load, self.train)

    def __str__(self) -> str:
        return f"load {self.load:.3f} s, train {self.train:.3f} s, loop {self.loop:.3f} s"


def run(settings: Settings) -> list[Row]:
    return [_row(name, times) for name, times in measure(200_000 if settings.full else 40_000)]


def _row(name: str, times: Times) -> Row:
    row = Row(
        f"stream {name}", "pass", "fdl", "fdl", "measured", str(times), f"overlap {times.overlap:.2f}", f">= {LEAST}"
    )
    row.figures, row.reached = {"overlap": times.overlap, **times._asdict()}, times.overlap >= LEAST
    return row


def measure(examples: int, chunks: int = 10) -> Iterator[tuple[str, Times]]:
    import numpy as np

    import fdl

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        whole = np.lib.format.open_memmap(path, "w+", np.float32, (examples, *SIZE))
        rng = np.random.default_rng(0)
        for start in range(0, examples, 10_000):
            end = min(start + 10_000, examples)
            whole[start:end] = rng.random((end - start, *SIZE), np.float32)
        del whole
        x, y = fdl.data.npy(path, memory_map=True), np.zeros(examples, np.int32)
        stream = fdl.data.stream(x, y, chunk_size=-(-examples // chunks))
        pass_over(stream, lambda chunk: None)  # the file is in memory, the program compiled
        load = pass_over(stream, lambda chunk: None)
        train, seconds = worker(load / chunks)
        alone = seconds * len(stream.sizes)
        yield "from memory", Times(load, alone, pass_over(stream, train))
        slow = lambda chunk: (time.sleep(seconds), fdl.data.Chunk(*chunk))[1]
        load = pass_over(stream, lambda chunk: None, slow)
        yield "from a slow disk", Times(load, alone, pass_over(stream, train, slow))


def pass_over(stream: Any, train: Callable[[Any], Any], put: Callable[[Any], Any] | None = None) -> float:
    chunks = stream.prefetched(0, put=put)
    start = time.perf_counter()
    for _ in stream.sizes:
        train(next(chunks)[2])
    seconds = time.perf_counter() - start
    chunks.close()
    return seconds


def worker(seconds: float) -> tuple[Callable[[Any], Any], float]:
    """(a training that takes about so long on one core, how long it takes)"""
    import jax
    import jax.numpy as jnp

    from fdl.train.loop import cpu_options

    w = jnp.eye(256)

    @functools.partial(jax.jit, compiler_options=cpu_options())
    def program(x, count):
        start = x[:64].reshape(256, -1)[:, :256]
        return jax.lax.fori_loop(0, count, lambda _, h: jnp.tanh(h @ w), start)

    x = jnp.zeros((256, *SIZE))
    timed = lambda count: _seconds(lambda: jax.block_until_ready(program(x, count)))
    timed(1)
    count = max(1, round(50 * seconds / timed(50)))
    train = lambda chunk: jax.block_until_ready(program(chunk.x[:256], count))
    return train, min(timed(count) for _ in range(3))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
