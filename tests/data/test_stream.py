"""Streams: every epoch has every example once, a chunk is a function of (seed, epoch, index), the thread ends and its errors arrive."""

import math
import threading

import jax
import numpy as np
import pytest

from fdl.data import Chunk, stream
from fdl.errors import InputError, InputTypeError

N = 1003
X = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
Y = np.arange(N, dtype=np.int32)


def numbers(data, seed, epoch):
    return [data.load(seed, epoch, index).target for index in range(len(data.sizes))]


@pytest.mark.parametrize(("chunk", "block"), [(256, 32), (100, 32), (100, 100), (1, 1), (7, 3), (5000, 64), (64, 256)])
def test_every_epoch_has_every_example_once_in_chunks_of_two_sizes(chunk, block):
    n = N if chunk > 7 else 23
    data = stream(X[:n], Y[:n], chunk_size=chunk, block_size=block)
    assert sum(data.sizes) == data.examples == n and max(data.sizes) <= max(chunk, min(block, chunk))
    assert len(set(data.sizes[:-1])) <= 1 and data.sizes[-1] <= data.sizes[0]
    for epoch in (0, 5):
        parts = numbers(data, 3, epoch)
        assert tuple(map(len, parts)) == data.sizes
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))


def test_rows_belong_together_and_weights_come_along():
    data = stream(X, Y, Y / 2, chunk_size=200, block_size=16)
    for index in range(len(data.sizes)):
        chunk = data.load(0, 0, index)
        np.testing.assert_array_equal(chunk.x, X[chunk.target])
        np.testing.assert_array_equal(chunk.weights, chunk.target / 2)


def test_a_chunk_is_a_function_of_seed_epoch_and_index():
    data, again = (stream(X, Y, chunk_size=200, block_size=16) for _ in range(2))
    np.testing.assert_array_equal(data.load(1, 4, 2).x, again.load(1, 4, 2).x)
    first = [np.concatenate(numbers(data, *place)).tolist() for place in ((0, 0), (0, 1), (1, 0))]
    assert first[0] != first[1] != first[2] != first[0]
    # as long as this holds, a run of another version of numpy is continued with the same data
    assert data.rows(7, 3, 0)[:3] == [(32, 48), (368, 384), (992, 1003)]


def test_blocks_mix():
    """How far apart neighbours in a chunk come from: by chance N / 3 on average."""
    data = stream(X, Y, chunk_size=500, block_size=1)
    for epoch in range(3):
        order = np.concatenate(numbers(data, 0, epoch)).astype(np.int64)
        assert abs(np.abs(np.diff(order)).mean() - N / 3) < 30


def test_memory_maps_are_read_piece_by_piece_in_native_order(tmp_path):
    mapped = np.memmap(tmp_path / "x", ">f4", "w+", shape=X.shape)
    mapped[:] = X
    data = stream(mapped, Y, chunk_size=100)
    chunk = data.load(0, 0, 1)
    assert type(chunk.x) is np.ndarray and chunk.x.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(chunk.x, X[chunk.target])


def test_specs_are_those_on_the_device():
    specs = stream(X.astype(np.float64), Y).specs
    on_device = jax.device_put(X.astype(np.float64))
    assert (specs.x.shape, specs.x.dtype) == (X.shape, on_device.dtype) and specs.weights is None


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fdl.data.stream")]


def test_prefetched_goes_on_from_a_place_and_closing_it_ends_the_thread():
    data = stream(X, Y, chunk_size=300, block_size=16)
    chunks = data.prefetched(5, 2, len(data.sizes) - 2)
    for place in ((2, len(data.sizes) - 2), (2, len(data.sizes) - 1), (3, 0), (3, 1)):
        epoch, index, chunk = next(chunks)
        assert (epoch, index) == place and isinstance(chunk.x, jax.Array) and chunk.weights is None
        np.testing.assert_array_equal(chunk.x, data.load(5, *place).x)
    assert threads()
    chunks.close()
    assert not threads()


def test_the_next_chunk_is_loaded_meanwhile_and_no_other():
    loaded = []
    second = threading.Event()

    def put(chunk: Chunk):
        loaded.append(len(chunk.x))
        if len(loaded) == 2:
            second.set()
        return chunk

    chunks = stream(X, Y, chunk_size=100).prefetched(0, put=put)
    next(chunks)
    assert second.wait(20)
    chunks.close()
    assert len(loaded) == 2


def test_what_the_thread_raises_arrives():
    x = X.copy()
    x[777, 1] = np.nan
    data = stream(x, Y, chunk_size=100, block_size=16)
    chunks = data.prefetched(0)
    with pytest.raises(InputError, match=r"x\[777\] holds NaN or infinity \(1 such"):
        for _ in range(len(data.sizes)):
            next(chunks)
    assert not threads()

    def put(chunk):
        raise OSError("the device is gone")

    with pytest.raises(OSError, match="is gone"):
        next(data.prefetched(0, put=put))
    assert not threads()


def test_what_weighs_nothing_may_hold_nan_and_checks_can_be_left_out():
    x, weights = X.copy(), np.ones(N, np.float32)
    x[777, 1], weights[777] = np.inf, 0
    load = lambda data: [data.load(0, 0, index) for index in range(len(data.sizes))]
    load(stream(x, Y, weights, chunk_size=100))
    load(stream(x, Y, chunk_size=100, check=False))
    with pytest.raises(InputError, match=r"weights\[3\] holds NaN"):
        load(stream(X, Y, np.where(Y == 3, np.nan, 1.0), chunk_size=100))
    # large numbers whose sum overflows are finite
    load(stream(np.full((N, 3), 3e38, np.float32), Y, chunk_size=100))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: stream([1, 2], Y), InputTypeError, "x is list"),
        (lambda: stream(X, Y[:-1]), InputError, r"x is float32\[1003, 3\] and target is int32\[1002\]"),
        (lambda: stream(X, Y, np.ones(())), InputError, "one row for each example"),
        (lambda: stream(X[:0], Y[:0]), InputError, "at least one"),
        (lambda: stream(X.astype(object), Y), InputTypeError, "wanted numbers"),
        (lambda: stream(X, Y, chunk_size=0), InputError, "chunk_size is 0"),
        (lambda: stream(X, Y, block_size=1.5), InputError, "block_size is 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: stream(X, Y).load(0, 0, 1), InputError, "index is int 1, wanted a whole number from 0 to 0"),
        (lambda: stream(X, Y).prefetched(-1), InputError, "seed is int -1"),
        (lambda: stream(X, Y).prefetched(0, True), InputError, "epoch is bool True"),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_sizes_are_near_each_other_where_there_are_many_blocks():
    data = stream(np.zeros((100_000, 1), np.float32), np.zeros(100_000, np.int32), chunk_size=8192, block_size=256)
    assert data.sizes[0] == 256 * math.ceil(math.ceil(100_000 / 256) / len(data.sizes))
    assert data.sizes[0] - data.sizes[-1] <= 256 * len(data.sizes)
