"""Are damaged and hostile files of data refused, in words, without a hang and without the memory that they claim to need?

Claim: 300 malformed files of every kind that fdl reads (IDX, CIFAR-10, tables, text, .npy, .npz, each plain and gzip) are refused
with `DataError` in one line, and of mutated files every one is refused so or read; none takes longer than 5 s, and none more than 32 MB
of memory, though they claim up to 2^64 bytes or unpack to 30 MB (CIFAR-10, which has no header: twice the 31 MB of a whole file more).

    python -m benchmarks readers [--full]

Method: sound files are made by code and damaged by rules (cut, lengthened, headers that lie, bombs, wrong numbers, wrong kinds) and,
for the mutations, by seeded random changes: bits flipped, pieces cut, doubled, moved, replaced, alone or two together. The memory is what
tracemalloc counts, of every malformed file and of every tenth mutation; a hang is ended by an alarm. The default runs 3,000 mutations,
--full 100,000.

Result: for each reader how many files were refused and read, the longest time and the most memory. The exit code is 1 if one file
got another answer.
"""

import contextlib
import gzip
import io
import signal
import struct
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._harness import Row, Settings, judged

SECONDS = 5
SPARE = 32e6  # bytes of memory, whatever the file
MUTATIONS = {False: 3_000, True: 100_000}


class Kind(NamedTuple):
    """A reader, and a sound file that it reads; `most`: bytes that such a file may hold without a header that says so."""

    name: str
    read: Callable[[Path], Any]
    sound: bytes
    most: int = 0


class Answer(NamedTuple):
    """What became of a file: "refused", "read", or what went wrong; seconds; bytes of memory, 0 if not counted."""

    verdict: str
    seconds: float
    memory: int = 0


def run(settings: Settings) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for kind in kinds():
            rows.append(_row("malformed", kind.name, [answer(kind, path, file) for file in malformed(kind)], "refused"))
        count = MUTATIONS[settings.full] // len(rows)
        for kind in kinds():
            rng = np.random.default_rng(len(rows))
            files = (mutated(rng, kind.sound, bool(n % 4 == 3)) for n in range(count))
            rows.append(_row("mutated", kind.name, [answer(kind, path, f, n % 10 == 0) for n, f in enumerate(files)]))
    return rows


def _row(work: str, name: str, answers: list[Answer], wanted: str | None = None) -> Row:
    verdicts = [a.verdict for a in answers]
    wrong = [v for v in verdicts if (v != wanted if wanted else v not in ("refused", "read"))]
    slowest, largest = max(a.seconds for a in answers), max(a.memory for a in answers)
    refused, read = verdicts.count("refused"), verdicts.count("read")
    measured = f"{refused} of {len(answers)} refused{'' if wanted else f', {read} read'}"
    text = f"at most {slowest:.2f} s and {largest / 1e6:.1f} MB"
    row = judged(
        f"{work} files: {name}", measured, not wrong, "all refused" if wanted else "refused or read", unit="file"
    )
    row.note = "; ".join(wrong[:5]) or text
    row.figures = {"files": len(answers), "refused": refused, "read": read, "seconds": slowest, "bytes": largest}
    return row


def answer(kind: Kind, path: Path, file: bytes, count_memory: bool = True) -> Answer:
    """Reads the file."""
    from fdl.errors import DataError

    path.write_bytes(file)
    if count_memory:
        tracemalloc.start()
    start, verdict = time.perf_counter(), "read"
    try:
        with _alarm():
            kind.read(path)
    except DataError as error:
        said = str(error)
        verdict = (
            "refused" if str(path) in said and "\n" not in said else f"not one line with the file's name: {said!r}"
        )
    except BaseException as error:  # whatever else is a finding
        if isinstance(error, KeyboardInterrupt):
            raise
        verdict = f"{type(error).__name__}: {error} for {file[:60]!r}"
    seconds, memory = time.perf_counter() - start, 0
    if count_memory:
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if memory > 2 * kind.most + SPARE:
        verdict = f"{memory / 1e6:.0f} MB for {file[:60]!r}"
    return Answer(verdict, seconds, memory)


class _TooLong(BaseException):
    """Not an Exception, so that no reader takes it for damage."""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise _TooLong(f"longer than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


# ---- sound files


def kinds() -> list[Kind]:
    from fdl import data
    from fdl.data.cifar10 import records
    from fdl.data.idx import unsigned_bytes

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 28, 28), np.uint8)
    x, y = rng.normal(size=(9, 4)).astype(np.float32), rng.integers(0, 3, 9)
    lines = ["a,b,c,kind", *(",".join([*map(str, row), f"k{label}"]) for row, label in zip(x[:, :3], y, strict=True))]
    saved, archive, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(saved, x)
    np.savez(archive, x=x, y=y)
    np.savez_compressed(packed, x=x, y=y)
    plain = [
        Kind(
            "idx of images",
            lambda path: unsigned_bytes(path, (None, 28, 28)),
            b"\0\0\x08\3" + _sizes(images) + images.tobytes(),
        ),
        Kind("idx", data.idx, b"\0\0\x0d\2" + _sizes(x) + x.astype(">f4").tobytes()),
        Kind("cifar10", records, b"".join(bytes([n]) + rng.bytes(3072) for n in (3, 9)), 30_730_000),
        Kind("csv", lambda path: data.csv(path, target="kind"), "\n".join(lines).encode() + b"\n"),
        Kind("text", data.text, "fünf Wörter: αβγ 漢字 😀\r\nand a line\n".encode() * 3),
        Kind("npy", data.npy, saved.getvalue()),
    ]
    zipped = [Kind(f"{kind.name}, gzip", kind.read, gzip.compress(kind.sound, mtime=0), kind.most) for kind in plain]
    return [
        *plain,
        *zipped,
        Kind("npz", data.npz, archive.getvalue()),
        Kind("npz, packed", data.npz, packed.getvalue()),
    ]


def _sizes(array: Any) -> bytes:
    return struct.pack(f">{array.ndim}I", *array.shape)


# ---- malformed files


def malformed(kind: Kind) -> Iterator[bytes]:
    """Files that this reader has to refuse."""
    packed = kind.sound.startswith(b"\x1f\x8b")
    for data in (b"", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(30)):
        yield data
    if packed:
        yield from _spoilt_gzip(kind.sound)
    pack = (lambda data: gzip.compress(data, 1)) if packed else bytes
    sound = gzip.decompress(kind.sound) if packed else kind.sound
    family = kind.name.partition(",")[0]
    for data in _SPOILT[family](sound):
        yield pack(data)
    if family not in ("csv", "text"):
        for data in (b"<html>404 Not Found</html>", b"\x89PNG\r\n\x1a\n" + bytes(500), b"\xff" * 200, sound + b"\0"):
            yield pack(data)
        for length in {1, 2, 3, len(sound) // 3, len(sound) // 2 + 1, len(sound) - 1}:
            yield pack(sound[:length])


def _spoilt_gzip(sound: bytes) -> Iterator[bytes]:
    for length in (3, 10, 18, len(sound) // 2, len(sound) - 8, len(sound) - 4, len(sound) - 1):
        yield sound[:length]
    for at in (2, -8, -7, -5, -4, -1):
        yield _flipped(sound, at)
    yield sound + b"more"
    yield gzip.compress(sound)


def _spoilt_idx(sound: bytes) -> Iterator[bytes]:
    for byte in (0, 1, 2, 3, 4, 5, 8, 11):
        for bit in (0, 7):
            yield _flipped(sound, byte, bit)
    for sizes in ((0xFFFFFFFF,) * 3, (2**26, 28, 28), (0, 28, 28), (2**31, 2**31, 4)):
        yield sound[:4] + struct.pack(">3I", *sizes) + bytes(1000)
    yield sound[:4] + sound[4:16] + bytes(30_000_000)


def _spoilt_numbers(sound: bytes) -> Iterator[bytes]:
    # 0d with its last bit flipped is 0c, and the numbers are integers
    yield from (file for file in _spoilt_idx(sound) if file[2] != 0x0C)
    for bad in (np.nan, np.inf, -np.inf):
        yield sound[:-8] + struct.pack(">2f", bad, 1)


def _spoilt_cifar10(sound: bytes) -> Iterator[bytes]:
    for label in (10, 128, 255):
        yield bytes([label]) + sound[1:]
        yield sound[:3073] + bytes([label]) + sound[3074:]
    yield sound[:3072]
    yield bytes(3073 * 10_001)
    yield sound[1:]


def _spoilt_csv(sound: bytes) -> Iterator[bytes]:
    lines = sound.decode().split("\n")
    first = lines[1].split(",")
    words = "abc 1_0 nan inf -inf 1e400 1e39 0x10 ٣ 1e . + --1 1,5 ? True None".split()
    for cell in (*words, "", " ", "1 2", "1\0", '"', '1"2"'):
        yield "\n".join([lines[0], ",".join([cell, *first[1:]]), *lines[2:]]).encode()
    yield lines[0].encode()
    yield "\n".join(lines[1:]).encode()
    yield sound.replace(b"a,b", b"a,a")
    yield sound.replace(b"a,b", b",b")
    yield sound.replace(b",kind", b";kind")
    yield sound.replace(b",", b" ")
    yield sound.replace(b",kind", b",type")
    yield sound.replace(b"\n", b"\n\n")
    yield sound.replace(b"\n", b"\r")
    yield sound + b"1,2\n"
    yield sound + b"1,2,3,4,k0\n"
    yield sound + b"1,2,3,7\n"
    yield sound + b'"1,2,3,k0\n' * 50_000
    yield sound + b"\xff\xfe,2,3,k0\n"
    yield sound.decode().encode("utf-16")
    yield b"a," * 1_000_000
    yield b"kind\n" + b"x\n" * 100
    yield b"PK\3\4" + bytes(100)


def _spoilt_text(sound: bytes) -> Iterator[bytes]:
    for at, byte in ((1, 0xFF), (1, 0xC0), (5, 0x80), (-1, 0xE2), (10, 0)):
        wrong = bytearray(sound)
        wrong[at] = byte
        yield bytes(wrong)
    yield b"\xef\xbb\xbf"
    yield sound.decode().encode("utf-16")
    yield sound.decode().encode("utf-32")
    yield sound + b"\xf4\x90\x80\x80"
    yield sound + b"\xed\xa0\x80"


def _spoilt_npy(sound: bytes) -> Iterator[bytes]:
    full = "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 4), }"
    for descr in ("|O", "<U9", "<c8", ">f9", "x"):
        yield _header(full.replace("<f4", descr)) + sound[-144:]
    for shape in ("(-9, 4)", "(9, 0)", "(999999999999,)", "(9, 5)", "(9, 3)", f"({'9,' * 3000})"):
        yield _header(full.replace("(9, 4)", shape)) + sound[-144:]
    for order in ("0", "True, 'more': 1"):
        yield _header(full.replace("False", order)) + sound[-144:]
    for header in (full.replace("'shape'", "'descr'"), full[:-1], "__import__('os')", "(" * 5000, "-" * 9000):
        yield _header(header) + sound[-144:]
    yield b"\x93NUMPY\3\0" + struct.pack("<I", 2**32 - 1) + sound
    yield b"\x93NUMPY\4" + sound[7:]
    yield _header(full.replace("9, 4", "2**40")) + bytes(100)
    yield _header(full.replace("9, 4", "7")) + bytes(30_000_000)
    for bad in (np.nan, np.inf):
        yield sound[:-4] + struct.pack("<f", bad)


def _header(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def _spoilt_npz(sound: bytes) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        x, y = archive.read("x.npy"), archive.read("y.npy")
    for spoilt in _spoilt_npy(x):
        yield _zipped(x=spoilt, y=y)
    yield _zipped(x=x)
    yield _zipped(x=x, y=y[:-1])
    yield _zipped(x=x, y=y + b"\0")
    yield _zipped(x=x, y=b"")
    bomb = x + bytes(30_000_000)
    yield _zipped(x=bomb, y=y).replace(struct.pack("<I", len(bomb)), struct.pack("<I", len(x)))
    yield _zipped(method=zipfile.ZIP_BZIP2, x=x, y=y)
    end = sound.rfind(b"PK\5\6")
    for at in (0, 4, 8, 10, 12, 16):
        yield _flipped(sound, end + at)
    entry = sound.rfind(b"PK\1\2")
    for at in (0, 8, 10, 16, 20, 24, 28, 42, 46):
        yield _flipped(sound, entry + at)
    yield sound[:end] + b"PK\5\6" + b"\xff" * 18


def _zipped(method: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


_SPOILT: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "idx of images": _spoilt_idx,
    "idx": _spoilt_numbers,
    "cifar10": _spoilt_cifar10,
    "csv": _spoilt_csv,
    "text": _spoilt_text,
    "npy": _spoilt_npy,
    "npz": _spoilt_npz,
}


def _flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    wrong = bytearray(data)
    wrong[at] ^= 1 << bit
    return bytes(wrong)


# ---- mutations


def mutated(rng: np.random.Generator, data: bytes, twice: bool) -> bytes:
    """The file after a random change, or two."""
    at, to = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    some = rng.bytes(int(rng.integers(1, 40)))
    kind = int(rng.integers(7))
    if kind < 2:  # most of what is checked stands at the beginning
        near = int(rng.choice([32, len(data)]))
        wrong = bytearray(data)
        for place in rng.integers(0, min(near, len(data)), int(rng.integers(1, 4))):
            wrong[place] = int(rng.integers(256)) if kind else wrong[place] ^ 1 << int(rng.integers(8))
        changed = bytes(wrong)
    else:
        changed = (data[:at], data[:at] + data[to:], data[:to] + data[at:], data[:at] + some + data[at:], some + data)[
            kind - 2
        ]
    return mutated(rng, changed, False) if twice and changed else changed
