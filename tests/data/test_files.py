"""The readers of MNIST and CIFAR-10: what they read, and that every damaged file is refused with its name and the reason."""

import errno
import gzip
import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fdl.data import cifar10, cifar10_files, mnist
from fdl.errors import DataError, InputTypeError

rng = np.random.default_rng(0)
RECORD = 3073


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


INK = {"train": rng.integers(0, 256, (5, 28, 28), np.uint8), "t10k": rng.integers(0, 256, (3, 28, 28), np.uint8)}
DIGITS = {"train": np.array([3, 0, 9, 1, 7], np.uint8), "t10k": np.array([9, 2, 0], np.uint8)}
MNIST = {f"{part}-images-idx3-ubyte": idx_bytes(INK[part]) for part in INK} | {
    f"{part}-labels-idx1-ubyte": idx_bytes(DIGITS[part]) for part in DIGITS
}
PICTURES = {n: rng.integers(0, 256, (3, 3, 32, 32), np.uint8) for n in (1, 2, 10, 0)}  # 0: to test on
KINDS = {n: np.array(kinds, np.uint8) for n, kinds in {1: (3, 0, 9), 2: (1, 1, 4), 10: (8, 2, 0), 0: (5, 7, 9)}.items()}


def records(n):
    return b"".join(bytes([k]) + p.tobytes() for k, p in zip(KINDS[n], PICTURES[n], strict=True))


CIFAR10 = {f"data_batch_{n}.bin": records(n) for n in (1, 2, 10)} | {"test_batch.bin": records(0)}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def packed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}


def refusal(read: Callable, where: Path, name: str = "") -> str:
    """The message of the refusal, which has to name the file."""
    with pytest.raises(DataError) as caught:
        read(where)
    assert str(where / name) in str(caught.value)
    return str(caught.value)


# ---- what is read


@pytest.mark.parametrize("files", [MNIST, packed(MNIST)], ids=["plain", "gzip"])
def test_mnist(tmp_path, files):
    for (x, y), part in zip(mnist(str(folder(tmp_path, files))), ("train", "t10k"), strict=True):
        assert x.dtype == np.float32 and y.dtype == np.int32 and x.shape == (len(INK[part]), 28, 28, 1)
        np.testing.assert_array_equal(x[..., 0], INK[part].astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(y, DIGITS[part])


@pytest.mark.parametrize("files", [CIFAR10, packed(CIFAR10)], ids=["plain", "gzip"])
def test_cifar10(tmp_path, files):
    for (x, y), batches in zip(cifar10(folder(tmp_path, files)), ((1, 2, 10), (0,)), strict=True):
        assert x.dtype == np.float32 and y.dtype == np.int32 and x.shape == (3 * len(batches), 32, 32, 3)
        want = np.concatenate([PICTURES[n] for n in batches])
        for n, h, w, c in rng.integers(0, (len(want), 32, 32, 3), (50, 4)):
            assert x[n, h, w, c] == np.float32(want[n, c, h, w]) / np.float32(255)
        np.testing.assert_array_equal(y, np.concatenate([KINDS[n] for n in batches]))


def test_names_with_a_dot_and_plain_files_before_packed_ones(tmp_path):
    spoilt = {f"{name}.gz": b"\x1f\x8bnothing" for name in MNIST}
    dotted = {name.replace("-idx", ".idx"): data for name, data in MNIST.items()}
    assert len(mnist(folder(tmp_path, spoilt | dotted))[0][1]) == 5


def test_the_files_of_cifar10_that_are_there(tmp_path):
    names = ("data_batch_10.bin", "data_batch_2.bin", "data_batch_2.bin.gz", "test_batch_first3.bin", "readme.html")
    folder(tmp_path, dict.fromkeys(names, b""))
    found = cifar10_files(tmp_path)
    assert [path.name for path in found["train"]] == ["data_batch_2.bin", "data_batch_10.bin"]
    assert [path.name for path in found["test"]] == ["test_batch_first3.bin"]
    folder(tmp_path, {"test_batch.bin.gz": b""})  # the whole, of which the other is a part
    assert [path.name for path in cifar10_files(tmp_path)["test"]] == ["test_batch.bin.gz"]


def test_the_real_files():
    data = os.environ.get("FDL_DATA_DIR")
    if data is None:
        pytest.skip("set FDL_DATA_DIR to the folder that holds mnist and cifar10")
    (x, y), (xt, yt) = mnist(Path(data) / "mnist")
    assert x.shape == (60_000, 28, 28, 1) and xt.shape == (10_000, 28, 28, 1)
    assert yt[:5].tolist() == [7, 2, 1, 0, 4] and np.bincount(y).tolist()[:3] == [5923, 6742, 5958]
    assert xt.min() == 0 and xt.max() == 1 and abs(xt.mean() - 0.13251) < 1e-5
    (x, y), (xt, yt) = cifar10(Path(data) / "cifar10")
    assert len(x) == len(y) >= 10_000 and x.shape[1:] == xt.shape[1:] == (32, 32, 3)
    assert y[:5].tolist() == [6, 9, 9, 4, 1] and yt[:5].tolist() == [3, 8, 8, 0, 6]


# ---- what is refused

IMAGES, LABELS, BATCH = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "data_batch_2.bin"
SOUND = {IMAGES: (mnist, MNIST), LABELS: (mnist, MNIST), BATCH: (cifar10, CIFAR10)}
every_file = pytest.mark.parametrize("name", SOUND)


def spoil(path: Path, name: str, data: bytes, zipped: bool = False) -> str:
    """The refusal of the folder in which this file holds that, and all others are sound."""
    read, sound = SOUND[name]
    for other in path.iterdir():
        other.unlink()
    if zipped:
        sound, name = packed(sound), f"{name}.gz"
    return refusal(read, folder(path, sound | {name: data}), name)


def cuts(data: bytes) -> list[int]:
    near_the_ends = {n for n in (*range(1, 20), *range(len(data) - 9, len(data))) if 0 < n < len(data)}
    return sorted(near_the_ends | set(rng.integers(1, len(data), 12).tolist()))


@every_file
def test_cut_short(tmp_path, name):
    data = SOUND[name][1][name]
    for length in cuts(data):
        if name == BATCH and length % RECORD == 0:
            continue
        assert re.search(r"at byte \d+: .*(ends here|cut short)", spoil(tmp_path, name, data[:length])), length


@every_file
def test_a_gzip_stream_cut_short(tmp_path, name):
    data = gzip.compress(SOUND[name][1][name], mtime=0)
    for length in cuts(data)[1:]:
        assert re.search("cut short|can hold", spoil(tmp_path, name, data[:length], zipped=True)), length


@every_file
@pytest.mark.parametrize("extra", [b"\0", b"\x05", bytes(1000)])
def test_extra_bytes(tmp_path, name, extra):
    data = SOUND[name][1][name]
    assert re.search("goes on after|into a record", spoil(tmp_path, name, data + extra))
    zipped = spoil(tmp_path, name, gzip.compress(data + extra), zipped=True)
    assert re.search("unpacked contents: .*(goes on after|into a record)", zipped)


@every_file
def test_bytes_after_a_gzip_stream(tmp_path, name):
    data = gzip.compress(SOUND[name][1][name])
    assert "is damaged" in spoil(tmp_path, name, data + b"more", zipped=True)
    assert "goes on after" in spoil(tmp_path, name, 2 * data, zipped=True) if name != BATCH else True


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_every_bit_of_a_header(tmp_path, name):
    data = MNIST[name]
    for byte in range(4 + 4 * data[3]):
        for bit in range(8):
            wrong = bytearray(data)
            wrong[byte] ^= 1 << bit
            message = spoil(tmp_path, name, bytes(wrong))
            assert re.search("begins with|header", message), (byte, bit, message)


@every_file
def test_bits_of_a_gzip_file(tmp_path, name):
    """Refused, or read right: a few bits (the time, the system, what fills a byte) say nothing about the contents."""
    read, sound = SOUND[name][0], packed(SOUND[name][1])
    want, data = read(folder(tmp_path, sound)), sound[f"{name}.gz"]
    refused = 0
    for byte in [*range(12), *rng.integers(12, len(data), 40).tolist(), *range(len(data) - 8, len(data))]:
        wrong = bytearray(data)
        wrong[byte] ^= 1 << int(rng.integers(8))
        folder(tmp_path, {f"{name}.gz": bytes(wrong)})
        try:
            got = read(tmp_path)
        except DataError as error:
            refused += f"{name}.gz: " in str(error)
            continue
        for part, wanted in zip(got, want, strict=True):
            np.testing.assert_array_equal(part[0], wanted[0])
            np.testing.assert_array_equal(part[1], wanted[1])
    assert refused >= 40


@every_file
def test_a_wrong_checksum_or_length_at_the_end_of_gzip(tmp_path, name):
    data = gzip.compress(SOUND[name][1][name])
    for place in (-8, -4):
        wrong = bytearray(data)
        wrong[place] ^= 1
        assert "is damaged" in spoil(tmp_path, name, bytes(wrong), zipped=True)


def test_a_label_that_is_no_class(tmp_path):
    data = bytearray(MNIST[LABELS])
    data[8 + 1] = 10
    message = spoil(tmp_path, LABELS, bytes(data))
    assert "at byte 9 of the contents: the label of example 1 is 10, wanted 0 to 9" in message
    data = bytearray(CIFAR10[BATCH])
    data[2 * RECORD] = 255
    assert f"at byte {2 * RECORD} of the contents: the label of example 2 is 255" in spoil(tmp_path, BATCH, bytes(data))


def test_other_numbers_of_images_and_labels(tmp_path):
    message = spoil(tmp_path, IMAGES, idx_bytes(INK["t10k"][:2]))
    assert "at byte 4: it has 2 images, t10k-labels-idx1-ubyte has 3 labels" in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (MNIST[LABELS], "has 1 axes, not 3"),
        (idx_bytes(INK["t10k"][:, :14]), "at byte 8: the header says 14 along axis 1, wanted 28"),
        (idx_bytes(INK["t10k"][:0]), "at byte 4: the header says 0 along axis 0, wanted at least 1"),
        (b"\x89PNG\r\n\x1a\n" + bytes(3000), "begins with 89 50 4e 47, wanted 00 00 08 03"),
        (b"<html>404 Not Found</html>", "begins with 3c 68 74 6d"),
        (b"\x1f\x8b", "cut short"),
        (b"\x1f", "3 bytes short of the magic number"),
        (
            gzip.compress(gzip.compress(MNIST[IMAGES], mtime=0), mtime=0),
            "of the unpacked contents: the file begins with 1f 8b",
        ),
    ],
)
def test_another_kind_of_file(tmp_path, data, words):
    assert words in spoil(tmp_path, IMAGES, data)


@every_file
def test_empty_a_folder_a_pipe_or_a_dangling_link_in_its_place(tmp_path, name):
    read, _ = SOUND[name]
    assert "the file is empty" in spoil(tmp_path, name, b"")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    refusal(read, tmp_path, name)
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    assert "is not a file" in refusal(read, tmp_path, name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("nowhere")
    assert "cannot be read (No such file" in refusal(read, tmp_path, name)


def test_missing_files_and_folders(tmp_path):
    for name in MNIST:
        folder(tmp_path, MNIST)
        (tmp_path / name).unlink()
        assert f"is missing; wanted {name} or {name}.gz" in refusal(mnist, tmp_path, name)
    assert "has no file data_batch_*.bin" in refusal(cifar10, tmp_path)
    folder(tmp_path, {"data_batch_1.bin": b""})
    assert "has no file test_batch*.bin" in refusal(cifar10, tmp_path)
    for read in (mnist, cifar10):
        assert "is not a folder" in refusal(read, tmp_path / "elsewhere")
        assert "is not a folder" in refusal(read, tmp_path / "data_batch_1.bin")
        with pytest.raises(DataError, match="is not a folder"):
            read("a\0b")
        with pytest.raises(InputTypeError, match="folder is int 3, wanted the path"):
            read(3)  # pyright: ignore[reportArgumentType]


class Failing:
    """A file that cannot be read beyond some bytes."""

    def __init__(self, file, most):
        self.file, self.most, self.name = file, most, "failing"

    def read(self, count=-1):
        if self.file.tell() + max(count, 0) > self.most:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.file.read(count)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@every_file
@pytest.mark.parametrize("zipped", [False, True])
def test_a_disk_that_fails_while_it_is_read(tmp_path, monkeypatch, name, zipped):
    read, sound = SOUND[name]
    folder(tmp_path, packed(sound) if zipped else sound)
    target, fdopen = f"{name}.gz" if zipped else name, os.fdopen

    def opened(descriptor, mode):
        of = os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else ""
        file = fdopen(descriptor, mode)
        return Failing(file, 5) if of.endswith(f"/{target}") or not of else file

    monkeypatch.setattr(os, "fdopen", opened)
    assert re.search(r"at byte \d+.*: cannot be read \(Input/output error\)", refusal(read, tmp_path, target))


def test_files_and_folders_that_may_not_be_read(tmp_path, monkeypatch):
    """The one who runs the tests may read everything, so that the system's answer is played."""

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for read, files, first in ((mnist, MNIST, "train-labels-idx1-ubyte"), (cifar10, CIFAR10, "data_batch_1.bin")):
        where = tmp_path / read.__name__
        where.mkdir()
        folder(where, files)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", forbidden)
            assert "cannot be read (Permission denied)" in refusal(read, where, first)
        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat" if read is mnist else "listdir", forbidden)
            patch.setattr(Path, "iterdir", forbidden)
            assert "cannot be read (Permission denied)" in refusal(read, where)


def damaged(data: bytes) -> bytes:
    """Cut, lengthened, bits flipped, bytes taken out or put in, or other bytes altogether."""
    at, to = sorted(rng.integers(0, len(data), 2).tolist())
    flipped = bytearray(data)
    for place in rng.integers(0, min(len(data), int(rng.choice([16, 10**6]))), 3):
        flipped[place] ^= 1 << int(rng.integers(8))
    some = rng.bytes(int(rng.integers(1, 4000)))
    kinds = (data[:at], data + some, bytes(flipped), data[:at] + data[to:], data[:at] + some + data[at:], some)
    return kinds[int(rng.integers(len(kinds)))]


@every_file
def test_random_damage_is_refused_in_words_or_is_not_in_the_format(tmp_path, name):
    """Pixels hold no checksum: what is read nevertheless has the shape, and labels that are classes."""
    read, sound = SOUND[name]
    refused = 0
    for zipped in [False, True] * 60:
        target = f"{name}.gz" if zipped else name
        (tmp_path / (name if zipped else f"{name}.gz")).unlink(missing_ok=True)
        others = {other: data for other, data in sound.items() if other != name}
        wrong = damaged(gzip.compress(sound[name], 1)) if zipped else damaged(sound[name])
        folder(tmp_path, others | {target: wrong})
        try:
            parts = read(tmp_path)
        except DataError as error:
            refused += str(tmp_path / target) in str(error)
            assert "at byte" in str(error)
            continue
        for x, y in parts:
            assert len(x) == len(y) > 0 and x.min() >= 0 and x.max() <= 1 and y.min() >= 0 and y.max() <= 9
    assert refused > 60


def test_a_small_header_and_much_behind_it(tmp_path):
    folder(tmp_path, MNIST)
    (tmp_path / IMAGES).unlink()
    with gzip.GzipFile(tmp_path / f"{IMAGES}.gz", "wb", 1) as file:
        file.write(MNIST[IMAGES])
        for _ in range(20):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    try:
        message = refusal(mnist, tmp_path, f"{IMAGES}.gz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert f"at byte {len(MNIST[IMAGES])} of the unpacked contents: the file goes on after the 3 x 28 x 28" in message
    assert peak < 1e6


@pytest.mark.parametrize("sizes", [(0xFFFFFFFF, 28, 28), (10**6, 28, 28), (100_000, 28, 28)])
def test_a_huge_header_takes_no_memory(tmp_path, sizes):
    header = b"\0\0\x08\x03" + struct.pack(">3I", *sizes)
    small, bomb = header + bytes(5000), gzip.compress(header + bytes(20_000_000), 1)
    folder(tmp_path, packed(MNIST))
    tracemalloc.start()
    try:
        assert re.search("more than (the 1073741824 that are read|this file can hold)", spoil(tmp_path, IMAGES, small))
        (tmp_path / IMAGES).unlink()
        assert re.search("more than|short of", spoil(tmp_path, IMAGES, bomb, zipped=True))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6


def test_a_bomb_is_not_unpacked_beyond_what_a_file_may_hold(tmp_path):
    folder(tmp_path, CIFAR10)
    with gzip.GzipFile(tmp_path / "data_batch_1.bin.gz", "wb", 1) as file:
        for _ in range(40):
            file.write(bytes(5_000_000))
    (tmp_path / "data_batch_1.bin").unlink()
    tracemalloc.start()
    try:
        message = refusal(cifar10, tmp_path, "data_batch_1.bin.gz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "at byte 30730000 of the unpacked contents: the file goes on after 10000 records" in message
    assert peak < 2 * 30_730_000
