"""A sample of the malformed and mutated files; and the benchmark notices a reader that fails."""

import numpy as np
import pytest

from benchmarks import readers
from benchmarks.readers import Kind
from fdl.errors import DataError

KINDS = {kind.name: kind for kind in readers.kinds()}


def test_there_are_enough_malformed_files_and_sound_ones_are_read(tmp_path):
    assert sum(len(list(readers.malformed(kind))) for kind in KINDS.values()) >= 300
    for kind in KINDS.values():
        assert readers.answer(kind, tmp_path / "file", kind.sound, False).verdict == "read"


@pytest.mark.parametrize("name", KINDS)
def test_malformed_and_mutated_files_are_answered_in_words(tmp_path, name):
    kind, rng = KINDS[name], np.random.default_rng(1)
    for file in list(readers.malformed(kind))[::5]:
        assert readers.answer(kind, tmp_path / "file", file, False).verdict == "refused", file[:60]
    for n in range(60):
        file = readers.mutated(rng, kind.sound, n % 4 == 3)
        assert readers.answer(kind, tmp_path / "file", file, False).verdict in ("refused", "read"), file[:60]


def test_a_reader_that_fails_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "SPARE", 1e6)

    def verdict(read):
        return readers.answer(Kind("bad", read, b""), tmp_path / "file", b"data").verdict

    def two_lines(path):
        raise DataError(str(path), "this\nand that")

    def elsewhere(path):
        raise DataError("a file", "is damaged")

    assert verdict(lambda path: path.read_text().index("x")).startswith("ValueError")
    assert verdict(two_lines).startswith("not one line") and verdict(elsewhere).startswith("not one line")
    assert verdict(lambda path: bytes(3_000_000)).startswith("3 MB")
    monkeypatch.setattr(readers, "SECONDS", 1)

    def hang(path):
        while True:
            pass

    assert verdict(hang).startswith("_TooLong")
