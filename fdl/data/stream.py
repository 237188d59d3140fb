"""Arrays that do not fit on the device, as a sequence of chunks that do: read in blocks, in a new order every epoch.

An epoch is cut as follows. The rows stand in blocks of `block_size`, each read in one piece, as disks and memory like it; the last one
may be shorter. The blocks are put in an order of this epoch, written one after the other, and the rows that result are cut into
chunks: all of the same size, a multiple of block_size and at most chunk_size, and a last one with what is left. So an epoch has chunks
of at most two sizes, the same in every epoch, and a program is compiled at most twice. The trainer shuffles the rows inside of a chunk.

Which rows are in a chunk is a pure function of (seed, epoch, index): a run that goes on from the middle of an epoch sees what an
uninterrupted one sees. It is made of the raw numbers of Philox, the same in every version of numpy, and a stable sort.
Rows of one block stay together: sort a file by class and a block holds one class, so shuffle such a file once, or take small blocks.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fdl.data._finite import first_not_finite
from fdl.errors import refuse, refuse_type, require_array, require_bool, require_count, shown

_ALIGNMENT = 64  # bytes


class Chunk(NamedTuple):
    """Some examples: arrays with as many rows; weights is None where the stream has none.

    >>> stream = fdl.data.stream(np.zeros((10, 3), np.float32), np.zeros((10,), np.int32))
    >>> stream.load(seed=0, epoch=0, index=0).x.shape
    (10, 3)
    """

    x: Any
    target: Any
    weights: Any = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Stream:
    """Chunks of examples; made by `fdl.data.stream`.

    >>> stream = fdl.data.stream(np.zeros((10, 3), np.float32), np.zeros((10,), np.int32))
    >>> stream.examples
    10
    """

    x: Any
    target: Any
    weights: Any
    chunk_size: int
    block_size: int
    check: bool

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.x.shape[0]

    @property
    def specs(self) -> Chunk:
        """Shape and dtype of all examples, as they are on the device: float64 becomes float32 unless JAX has 64 bits enabled."""
        return Chunk(*map(_spec, (self.x, self.target, self.weights)))

    def __repr__(self) -> str:
        return f"Stream({self.examples} examples in {len(self.sizes)} chunks of at most {self.sizes[0]}, in blocks of {self.block_size})"

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many examples each chunk of an epoch has. At most two sizes; the smaller one is the last."""
        blocks = math.ceil(self.examples / self.block_size)
        chunks = math.ceil(blocks / max(1, self.chunk_size // self.block_size))
        size = math.ceil(blocks / chunks) * self.block_size
        whole, rest = divmod(self.examples, size)
        return (size,) * whole + ((rest,) if rest else ())

    def rows(self, seed: int, epoch: int, index: int) -> list[tuple[int, int]]:
        """(first, end) of the pieces of contiguous rows that make up a chunk, in order."""
        self._require_place(seed, epoch, index)
        starts = _order(seed, epoch, math.ceil(self.examples / self.block_size)) * self.block_size
        lengths = np.minimum(self.block_size, self.examples - starts)
        ends = np.cumsum(lengths)  # in the order of this epoch
        first = self.sizes[0] * index
        end = first + self.sizes[index]
        pieces = []
        for block in range(int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, end, "left")) + 1):
            before = int(ends[block] - lengths[block])
            at = int(starts[block])
            pieces.append((at + max(0, first - before), at + min(int(lengths[block]), end - before)))
        return pieces

    def load(self, seed: int, epoch: int, index: int) -> Chunk:
        """The chunk as numpy arrays of its own. Errors: InputError for NaN or infinity, naming the row, where `check` is on."""
        pieces = self.rows(seed, epoch, index)
        weights = None if self.weights is None else _gathered(self.weights, pieces)
        chunk = Chunk(_gathered(self.x, pieces), _gathered(self.target, pieces), weights)
        if self.check:
            for name, array in zip(Chunk._fields, chunk, strict=True):
                if array is not None:
                    _require_finite(name, array, None if name == "weights" else weights, pieces)
        return chunk

    def prefetched(
        self, seed: int, first_epoch: int = 0, first_index: int = 0, put: Callable[[Chunk], Any] | None = None
    ) -> Generator[tuple[int, int, Any], None, None]:
        """(epoch, index, chunk) without end, epoch after epoch, from this place on.

        While the caller works with a chunk, a thread loads the next one and hands it to `put` (default: jax.device_put), so that two
        chunks are in memory at a time. What the thread raises is raised here. Closing the iterator ends the thread, once it has
        loaded what it is at.
        """
        self._require_place(seed, first_epoch, first_index)
        return self._chunks(seed, first_epoch, first_index, put or _on_device)

    def _chunks(
        self, seed: int, epoch: int, index: int, put: Callable[[Chunk], Any]
    ) -> Generator[tuple[int, int, Any], None, None]:
        import jax

        wide = jax.config.read("jax_enable_x64")

        def fetch(epoch: int, index: int) -> tuple[int, int, Any]:
            with jax.enable_x64(wide):  # which a context manager sets for its own thread alone
                return epoch, index, put(self.load(seed, epoch, index))

        with ThreadPoolExecutor(1, thread_name_prefix="fdl.data.stream") as thread:
            pending = thread.submit(fetch, epoch, index)
            while True:
                found = pending.result()
                index += 1
                if index == len(self.sizes):
                    epoch, index = epoch + 1, 0
                pending = thread.submit(fetch, epoch, index)
                yield found
                del found  # the caller's is the only one

    def _require_place(self, seed: int, epoch: int, index: int) -> None:
        for name, value, end in (("seed", seed, 2**64), ("epoch", epoch, 2**64), ("index", index, len(self.sizes))):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < end:
                refuse("data.stream", f"{name} is {shown(value)}, wanted a whole number from 0 to {end - 1}")


def stream(
    x: Any, target: Any, weights: Any = None, *, chunk_size: int = 65536, block_size: int = 256, check: bool = True
) -> Stream:
    """Examples for `fdl.train.fit` that need not fit on the device, nor in memory.

    x, target, weights: numpy arrays or np.memmap (`fdl.data.npy(path, memory_map=True)` opens one), or what else has a shape, a dtype
    and slices of rows; examples first. chunk_size: how many examples are on the device at a time, twice, as the next chunk is
    loaded meanwhile. block_size: how many neighbours are read in one piece and stay in one chunk.
    check: look for NaN and infinities whenever a chunk is loaded; an example of weight 0 may hold them.

    Errors: InputError, InputTypeError for arrays of different lengths or of no numbers, and for sizes below 1.

        >>> x, y = np.zeros((1000, 3), np.float32), np.zeros((1000,), np.int32)
        >>> fdl.data.stream(x, y, chunk_size=256).sizes
        (256, 256, 256, 232)
    """
    arrays: dict[str, Any] = {"x": x, "target": target} | ({} if weights is None else {"weights": weights})
    for name, array in arrays.items():
        require_array("data.stream", name, array)
        if np.dtype(array.dtype).kind not in "biuf" and "float" not in str(array.dtype):  # bfloat16 is of no numpy kind
            refuse_type("data.stream", f"{name} is {shown(array)}, wanted numbers")
        if array.ndim == 0 or array.shape[0] != x.shape[0] or 0 in array.shape:
            refuse(
                "data.stream",
                f"x is {shown(x)} and {name} is {shown(array)}; wanted one row for each example, at least one",
            )
    require_count("data.stream", "chunk_size", chunk_size)
    require_count("data.stream", "block_size", block_size)
    require_bool("data.stream", "check", check)
    return Stream(x, target, weights, chunk_size, min(block_size, chunk_size), check)


def _spec(array: Any) -> Any:
    import jax

    if array is None:
        return None
    return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))


def _order(seed: int, epoch: int, blocks: int) -> NDArray[np.intp]:
    """A permutation of the blocks."""
    key = np.asarray([seed, epoch], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(blocks), kind="stable")


def _gathered(array: Any, pieces: list[tuple[int, int]]) -> NDArray[Any]:
    shape = (sum(end - first for first, end in pieces), *array.shape[1:])
    rows = _aligned(shape, np.dtype(array.dtype).newbyteorder("="))
    at = 0
    for first, end in pieces:
        rows[at : at + end - first] = array[first:end]
        at += end - first
    return rows


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array that begins where JAX on a CPU takes it as it is; others are copied, which waits for the program that runs."""
    size = math.prod(shape) * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def _require_finite(
    name: str, array: NDArray[Any], weights: NDArray[Any] | None, pieces: list[tuple[int, int]]
) -> None:
    if first_not_finite(array) is None:
        return
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if weights is not None:
        bad &= weights.reshape(len(weights), -1).any(axis=1)
    if bad.any():
        numbers = np.concatenate([np.arange(*piece) for piece in pieces])
        row = int(numbers[bad].min())
        refuse(
            "data.stream",
            f"{name}[{row}] holds NaN or infinity ({int(bad.sum())} such example(s) in this chunk); "
            "clean the data, or give these examples the weight 0",
        )


def _on_device(chunk: Chunk) -> Chunk:
    import jax

    return jax.device_put(chunk)
