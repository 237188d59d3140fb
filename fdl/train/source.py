"""Where a run's batches come from: arrays that stay on the device, or a stream of chunks of larger ones.

A position is a number of steps since the start of the run. A source says which arrays hold the batches at a position, and
how far they reach; within them the loop numbers the steps from `start`, and their order is a function of (key, `epoch`).
"""

from typing import Any, NamedTuple

import numpy as np

from fdl.train.loop import batches_in


class Block(NamedTuple):
    x: Any
    target: Any
    weights: Any
    start: int  # the position of its first step
    end: int | None  # the position after its last step; None: it serves any later one
    epoch: int  # which order: that of this block, counted over the run


class InMemory:
    """x, target, weights whole on the device: one block for the whole run."""

    def __init__(self, x: Any, target: Any, weights: Any, batch_size: int):
        self._block = Block(x, target, weights, 0, None, 0)
        self.per_epoch = batches_in(x.shape[0], batch_size)

    def block(self, position: int) -> Block:
        return self._block

    def close(self) -> None:
        pass


class Streamed:
    """The chunks of an `fdl.data.Stream`: the next one is read and put on the device while this one is trained on."""

    def __init__(self, stream: Any, seed: int, batch_size: int, put: Any):
        self._stream, self._seed, self._put = stream, seed, put
        ends = np.cumsum([batches_in(size, batch_size) for size in stream.sizes])
        self._ends = [int(end) for end in ends]
        self.per_epoch = self._ends[-1]
        self._chunks: Any = None  # a generator
        self._block: Block | None = None

    def block(self, position: int) -> Block:
        epoch, within = divmod(position, self.per_epoch)
        index = next(i for i, end in enumerate(self._ends) if within < end)
        order = epoch * len(self._ends) + index
        if self._block is None or self._block.epoch != order:
            if self._block is None or self._block.epoch != order - 1:
                self.close()
                self._chunks = self._stream.prefetched(self._seed, epoch, index, self._put)
            _, _, (x, target, weights) = next(self._chunks)
            first = epoch * self.per_epoch + (self._ends[index - 1] if index else 0)
            self._block = Block(x, target, weights, first, epoch * self.per_epoch + self._ends[index], order)
        return self._block

    def close(self) -> None:
        if self._chunks is not None:
            self._chunks.close()
        self._chunks = self._block = None
