"""The readers of arrays, .npy, .npz and IDX: what they read, and that every damaged file is refused with its name and the reason."""

import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from fdl.data import idx, npy, npz
from fdl.errors import DataError, InputTypeError

rng = np.random.default_rng(0)
X = rng.normal(size=(11, 3, 2)).astype(np.float32)
Y = rng.integers(0, 5, 11)


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def archive(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def idx_of(array) -> bytes:
    kind = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    big = array.astype(array.dtype.newbyteorder(">"))
    return bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


def of(read, path, data: bytes, **settings):
    (path / "file").write_bytes(data)
    return read(path / "file", **settings)


def refusal(read, path, data: bytes, **settings) -> str:
    with pytest.raises(DataError) as caught:
        of(read, path, data, **settings)
    assert str(caught.value).startswith(f"{path / 'file'}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_of_every_kind(tmp_path, dtype):
    want = (100 * rng.normal(size=(3, 1, 4))).astype(dtype)
    for data in (idx_of(want), gzip.compress(idx_of(want))):
        got = of(idx, tmp_path, data)
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype and got.dtype.isnative
    np.testing.assert_array_equal(of(idx, tmp_path, idx_of(want[0, 0])), want[0, 0])


ARRAYS = [X, np.asfortranarray(X), Y, X.astype(">f8"), X.astype(">f2"), Y > 2, Y.astype("u1"), np.asarray(3.5), Y[:1]]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_npy(tmp_path, array):
    for data in (saved(array), gzip.compress(saved(array))):
        got = of(npy, tmp_path, data)
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype.newbyteorder("=") and got.dtype.isnative and got.shape == array.shape
    mapped = of(npy, tmp_path, saved(array), memory_map=True)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    x, y = of(npz, tmp_path, archive(save, x=X, y=Y, more=Y))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    _, more = of(npz, tmp_path, archive(save, inputs=X, more=Y), x="inputs", y="more")
    np.testing.assert_array_equal(more, Y)


def test_an_archive_with_64_bit_fields_and_a_comment(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, array in (("x", X), ("y", Y)):
            with zipped.open(f"{name}.npy", "w", force_zip64=True) as entry:
                entry.write(saved(array))
        zipped.comment = b"PK a comment"
    np.testing.assert_array_equal(of(npz, tmp_path, file.getvalue())[0], X)


# ---- what is refused


def header(text: str, version=1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + length + text.encode("latin-1")


FULL = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"


def test_headers_are_matched_in_any_order_and_spacing(tmp_path):
    data = header('{"shape":(1),"descr":"<f4","fortran_order":False}', 2) + bytes(4)
    np.testing.assert_array_equal(of(npy, tmp_path, data), np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"\x93NUMPY", "at byte 0: the file begins with 93 4e"),
        (b"PK\3\4" + bytes(100), "wanted 93 4e 55 4d 50 59"),
        (b"\x93NUMPY\4\0" + bytes(100), "the version"),
        (header(FULL)[:40], "short of the header"),
        (header(FULL + " " * 10_000, 2), "wanted at most 10000"),
        (header("__import__('os').system('true')"), "at byte 10: the header is"),
        (header(FULL.replace("False", "0")), "the header is"),
        (header(FULL.replace("(1,)", "(-1,)")), "the header is"),
        (header(FULL.replace("'shape'", "'descr'")), "the header is"),
        (header(FULL.replace("<f4", "|O")), "objects are never unpickled"),
        (header(FULL.replace("<f4", "<U4")), "the entries are '<U4'"),
        (header(FULL.replace("<f4", "<c8")), "the entries are '<c8'"),
        (header(FULL.replace("(1,)", "(3, 0)")), "none of them empty"),
        (header(FULL.replace("(1,)", "(" + "1," * 33 + ")")), "at most 32 axes"),
        (header(FULL.replace("(1,)", "(999999999999,)")), "more than this file can hold"),
        (saved(np.asarray([{}])), "objects are never unpickled"),
        (saved(X)[:-1], "1 bytes short of the 11 x 3 x 2 entries of float32"),
        (saved(X) + b"\0", "the file goes on after"),
        (gzip.compress(saved(X), mtime=0)[:-1], "cut short"),
        (saved(np.asarray([[1.0, 2.0], [3.0, np.nan]])), "the array holds nan, first at [1, 1]"),
        (saved(np.asarray(-np.inf)), "the array holds -inf, first at []"),
        (saved(Y > 2)[:-1] + b"\2", "a boolean is neither 0 nor 1"),
    ],
)
def test_what_is_no_npy(tmp_path, data, words):
    assert words in refusal(npy, tmp_path, data)


def test_memory_maps_of_what_cannot_be_mapped(tmp_path):
    assert "cannot be memory-mapped" in refusal(npy, tmp_path, gzip.compress(saved(X)), memory_map=True)
    for data, follow in ((saved(X)[:-1], X.nbytes - 1), (saved(X) + b"\0", X.nbytes + 1)):
        reason = f"{follow} bytes follow, wanted {X.nbytes} for the 11 x 3 x 2 entries of float32"
        assert reason in refusal(npy, tmp_path, data, memory_map=True)
    assert "more than this file can hold" in refusal(npy, tmp_path, saved(X)[:130], memory_map=True)


@pytest.mark.parametrize("read", [npy, idx], ids=["npy", "idx"])
def test_arrays_cut_short_or_longer(tmp_path, read):
    data = (saved if read is npy else idx_of)(X)
    for length in sorted({*range(1, 20), *rng.integers(1, len(data), 20).tolist(), len(data) - 1}):
        assert "at byte" in refusal(read, tmp_path, data[:length])
    assert "goes on after" in refusal(read, tmp_path, data + b"\0")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (idx_of(X)[:2] + b"\x0a" + idx_of(X)[3:], "at byte 0: the file begins with 00 00 0a 03"),
        (b"\0\0\x08\0", "R from 1 to 32"),
        (b"\0\0\x08\x21" + bytes(132), "R from 1 to 32"),
        (b"\0\0\x08\1" + bytes(4), "at byte 4: the header says 0 along axis 0, wanted at least 1"),
        (b"\0\0\x0e\2\xff\xff\xff\xff\xff\xff\xff\xff", "more than the 1073741824 that are read"),
        (b"\0\0\x0d\1\0\0\0\2" + struct.pack(">2f", 1, np.nan), "at byte 12: the entry [1] is nan"),
    ],
)
def test_what_is_no_idx(tmp_path, data, words):
    assert words in refusal(idx, tmp_path, data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_damaged_byte_of_an_archive_is_noticed(tmp_path, save):
    """Refused, or read right: some bytes (dates, systems, versions) say nothing about the contents."""
    data = archive(save, x=X, y=Y)
    refused = 0
    for at in range(0, len(data), 1 if save is np.savez_compressed else 3):
        wrong = bytearray(data)
        wrong[at] ^= 1 << int(rng.integers(8))
        try:
            x, y = of(npz, tmp_path, bytes(wrong))
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
            continue
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)
    assert refused > len(data) // 5
    for length in rng.integers(1, len(data), 30):
        refusal(npz, tmp_path, data[:length])
    refusal(npz, tmp_path, data + b"\0")


def rezipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            zipped.writestr(f"{name}.npy", data)
    return file.getvalue()


def test_what_archives_may_not_be(tmp_path):
    assert "has no array 'y'; it has x, z" in refusal(npz, tmp_path, archive(x=X, z=Y))
    assert "x has 11 examples, y has 10" in refusal(npz, tmp_path, archive(x=X, y=Y[:-1]))
    assert "y is a single number" in refusal(npz, tmp_path, archive(x=X, y=3))
    assert "y holds inf, first at [4]" in refusal(
        npz, tmp_path, archive(x=X, y=np.where(np.arange(11) == 4, np.inf, 0))
    )
    assert "never unpickled" in refusal(npz, tmp_path, archive(x=np.asarray([{}] * 11), y=Y))
    assert "of y.npy: the file goes on after" in refusal(npz, tmp_path, rezipped(x=saved(X), y=saved(Y) + b"\0"))
    assert "short of the 11 entries" in refusal(npz, tmp_path, rezipped(x=saved(X), y=saved(Y)[:-1]))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr("x.npy", saved(X))
        zipped.writestr("y.npy", saved(Y))
    assert "x.npy is packed by method 14" in refusal(npz, tmp_path, file.getvalue())
    with pytest.raises(InputTypeError, match="x is int 3"):
        npz(tmp_path / "file", x=3)  # pyright: ignore[reportArgumentType]


def test_a_bomb_takes_no_memory(tmp_path):
    """An entry that unpacks to far more than the directory and its header say."""
    bomb = saved(X) + bytes(50_000_000)
    data = rezipped(x=bomb, y=saved(Y)).replace(struct.pack("<I", len(bomb)), struct.pack("<I", len(saved(X))))
    huge = header(FULL.replace("(1,)", "(900000000,)")) + bytes(20_000_000)
    packed = gzip.compress(huge, 1)
    tracemalloc.start()
    try:
        assert "is damaged (" in refusal(npz, tmp_path, data)
        assert "can hold" in refusal(npy, tmp_path, packed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6
