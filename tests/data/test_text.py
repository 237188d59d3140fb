"""The reader of texts: what it reads, and that every damaged file is refused with its name, the place and the reason."""

import gzip
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fdl.data import text
from fdl.data.text import LARGEST
from fdl.errors import DataError, InputError, InputTypeError

rng = np.random.default_rng(0)


def of(path: Path, data: bytes):
    (path / "text").write_bytes(data)
    return text(path / "text")


def refusal(path: Path, data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        of(path, data)
    assert str(path / "text") in str(caught.value)
    return str(caught.value)


# ---- what is read


def test_ids_and_vocabulary(tmp_path):
    found = of(tmp_path, "bad cab\nÄß漢😀".encode())
    assert found.vocabulary == tuple("\n abcdÄß漢😀") and found.ids.dtype == np.int32
    assert [found.vocabulary[i] for i in found.ids] == list("bad cab\nÄß漢😀") and len(found) == 12
    assert found.decode(found.ids) == "bad cab\nÄß漢😀" and found.decode([]) == ""
    np.testing.assert_array_equal(found.encode("😀 b"), [9, 1, 3])
    assert found.encode("").shape == (0,) and "12 characters, 10 different" in repr(found)


@pytest.mark.parametrize("packed", [False, True])
def test_marks_and_ends_of_lines(tmp_path, packed):
    data = b"\xef\xbb\xbfone\r\ntwo\rthree\n\xef\xbb\xbf"
    found = of(tmp_path, gzip.compress(data) if packed else data)
    assert found.decode(found.ids) == "one\ntwo\nthree\n\ufeff"


def test_split_and_streams(tmp_path):
    found = of(tmp_path, b"abcdefghijk")
    first, rest = found.split()
    assert (first.decode(first.ids), rest.decode(rest.ids)) == ("abcdefghi", "jk")
    assert first.vocabulary == rest.vocabulary == found.vocabulary
    x, y = found.streams(3)
    assert [found.decode(row) for row in x] == ["abc", "def", "ghi"]
    assert [found.decode(row) for row in y] == ["bcd", "efg", "hij"]


def test_without_a_path_it_is_the_source_of_fdl():
    found = text()
    assert len(found) > 100_000 and "\r" not in found.vocabulary
    own = found.decode(found.ids)
    # file by file in the order of the names, whatever the folder
    places = [
        own.index(start) for start in ('"""Dense layer', '"""Embedding: a row', '"""Hinge loss', '"""The last step')
    ]
    assert places == sorted(places)
    np.testing.assert_array_equal(text().ids, found.ids)


def test_the_real_file():
    data = os.environ.get("FDL_DATA_DIR")
    if data is None:
        pytest.skip("set FDL_DATA_DIR to the folder that holds tinyshakespeare")
    found = text(Path(data) / "tinyshakespeare" / "input.txt")
    assert len(found) == 1_115_394 and len(found.vocabulary) == 65
    assert found.decode(found.ids[:14]) == "First Citizen:"


# ---- what is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "at byte 0: the file is empty"),
        (b"\xef\xbb\xbf", "at byte 3: the file is empty but for its byte order mark"),
        (b"one\ntw\xffo", "at byte 6: line 2: the byte ff is not UTF-8 (invalid start byte)"),
        (b"\xef\xbb\xbfa\n\xc3\x28", "at byte 5: line 2: the byte c3 is not UTF-8 (invalid continuation byte)"),
        (b"cut \xe6\xbc", "at byte 4: line 1: the byte e6 is not UTF-8 (unexpected end of data)"),
        (b"\xed\xa0\x80", "at byte 0: line 1: the byte ed is not UTF-8"),
        (b"a\n\nb\0c", "at byte 4: line 3: the byte 00 is NUL"),
        ("text".encode("utf-16"), "at byte 0: the file begins with the mark of UTF-16"),
        ("text".encode("utf-16-be"), "at byte 0: line 1: the byte 00 is NUL"),
    ],
)
def test_what_is_no_text(tmp_path, data, words):
    assert words in refusal(tmp_path, data)
    if data:
        assert words.partition(": ")[2] in refusal(tmp_path, gzip.compress(data))


def test_damaged_gzip(tmp_path):
    assert refusal(tmp_path, gzip.compress(b"")).endswith("the file is empty")
    data = gzip.compress(b"some text, and more of it")
    assert "cut short" in refusal(tmp_path, data[:-9])
    assert "is damaged" in refusal(tmp_path, data[:-8] + b"\0\0\0\0" + data[-4:])
    assert "is damaged" in refusal(tmp_path, data + b"more")


def test_a_file_beyond_the_largest_takes_no_memory(tmp_path):
    with open(tmp_path / "text", "wb") as file:
        file.truncate(LARGEST + 1)  # holes: nothing is written
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"at byte {LARGEST}: the text goes on beyond the {LARGEST} bytes"):
            text(tmp_path / "text")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_packed_text_is_not_unpacked_beyond_the_largest(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["fdl.data.text"], "LARGEST", 1000)
    assert "at byte 1000 of the unpacked contents: the text goes on" in refusal(tmp_path, gzip.compress(b"a" * 1001))
    assert len(of(tmp_path, gzip.compress(b"a" * 1000))) == 1000


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("", "is not a file"), ("pipe", "is not a file"), ("none", "cannot be read (No such file")):
        with pytest.raises(DataError) as caught:
            text(tmp_path / name)
        assert words in str(caught.value) or "Is a directory" in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataError, match="is not a path"):
        text("a\0b")
    with pytest.raises(InputTypeError, match="path is int 3, wanted the path"):
        text(3)  # pyright: ignore[reportArgumentType]


def test_arguments_that_do_not_fit(tmp_path):
    found = of(tmp_path, b"abc")
    with pytest.raises(InputError, match="character 1 is 'z'"):
        found.encode("az")
    with pytest.raises(InputTypeError, match="wanted a string"):
        found.encode(b"a")  # pyright: ignore[reportArgumentType]
    for ids in ([0, 3], [-1]):
        with pytest.raises(InputError, match="wanted 0 to 2"):
            found.decode(ids)
    with pytest.raises(InputTypeError, match="wanted integers"):
        found.decode([0.5])
    for fraction in (0.0, 1.0, -1.0, 0.1, float("nan")):
        with pytest.raises(InputError, match="leaves a part empty"):
            found.split(fraction)
    with pytest.raises(InputError, match="ask for fewer streams"):
        found.streams(3)


def test_random_bytes_are_refused_in_words_or_read_as_they_stand(tmp_path):
    sound = "Ein Text, mit Zeilen\nund ä ö ü, 漢字.\n".encode() * 3
    refused = 0
    for _ in range(200):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), 2):
            data[place] = int(rng.integers(256))
        if b"\r" in data:
            continue
        try:
            found = of(tmp_path, bytes(data))
        except DataError as error:
            refused += 1
            assert "at byte" in str(error)
            continue
        assert found.decode(found.ids).encode() == bytes(data)
    assert refused > 50
