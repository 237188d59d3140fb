"""A text as a model of characters takes it: the number of every character, and the vocabulary.

The file is UTF-8, plain or gzip. A byte order mark at its beginning is not part of the text. Lines end in one character, \\n:
\\r\\n and \\r become \\n, as Python's `open` reads them, so that a text is the same on every system. Everything else is kept as it
stands: no letter is folded, no accent composed. The vocabulary holds the characters of the whole text in the order of their
code points, and both parts of a split share it, so that what is held out has no unknown character.

Refused are what no text holds, or no memory should: bytes that are not UTF-8, NUL, and more than LARGEST bytes.
"""

import codecs
import dataclasses
import importlib.resources
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fdl.data._files import Contents, contents, file_of
from fdl.errors import DataError, refuse, refuse_type, require_count, shown

# A character takes 4 bytes as its number, and up to 4 more on the way there
LARGEST = 2**28
TOO_LARGE = f"the text goes on beyond the {LARGEST} bytes that are read; cut it into pieces"
OWN = ("layers", "losses")  # the folders of fdl whose files are the text where none is given


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Text:
    """ids int32 [T], the place of every character in the vocabulary."""

    ids: NDArray[np.int32]
    vocabulary: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Text({len(self.ids)} characters, {len(self.vocabulary)} different ones)"

    def encode(self, text: str) -> NDArray[np.int32]:
        """The numbers of these characters. Errors: InputError, naming the place of a character that is not in the vocabulary."""
        if not isinstance(text, str):
            refuse_type("data.text.encode", f"text is {shown(text)}, wanted a string")
        known, points = _points("".join(self.vocabulary)), _points(text)
        ids = np.searchsorted(known, points)
        unknown = np.flatnonzero(known[np.minimum(ids, len(known) - 1)] != points)
        if len(unknown):
            at = int(unknown[0])
            refuse("data.text.encode", f"character {at} is {text[at]!r}, which is not in the vocabulary; leave it out")
        return ids.astype(np.int32)

    def decode(self, ids: Any) -> str:
        """The characters of these numbers. Errors: InputError for numbers outside of the vocabulary, InputTypeError for no integers."""
        ids = np.asarray(ids)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            refuse_type("data.text.decode", f"ids is {shown(ids)}, wanted integers")
        outside = np.flatnonzero((ids < 0) | (ids >= len(self.vocabulary)))
        if len(outside):
            wanted = f"0 to {len(self.vocabulary) - 1}"
            refuse("data.text.decode", f"number {int(outside[0])} is {ids.ravel()[outside[0]]}, wanted {wanted}")
        return "".join([self.vocabulary[i] for i in ids.ravel().tolist()])

    def split(self, fraction: float = 0.9) -> "tuple[Text, Text]":
        """(the beginning, the rest) with the same vocabulary: the first `fraction` of the characters, rounded down.

        Errors: InputError where one of the parts would be empty.
        """
        if not isinstance(fraction, int | float) or isinstance(fraction, bool):
            refuse_type("data.text.split", f"fraction is {shown(fraction)}, wanted a number between 0 and 1")
        cut = int(len(self.ids) * fraction) if 0 < fraction < 1 else 0
        if not 0 < cut < len(self.ids):
            refuse("data.text.split", f"fraction is {fraction} of {len(self.ids)} characters, and leaves a part empty")
        return Text(self.ids[:cut], self.vocabulary), Text(self.ids[cut:], self.vocabulary)

    def streams(self, count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(x, y), both [count, T]: the text in so many pieces of equal length, and the character that follows each one.

        A recurrent model reads them side by side, a few steps at a time, and keeps its state in between. Less than `count`
        characters at the end are left out. Errors: InputError for a text with less than two characters for each.
        """
        require_count("data.text.streams", "count", count)
        steps = (len(self.ids) - 1) // count
        if steps < 1:
            refuse("data.text.streams", f"count is {count} for {len(self.ids)} characters; ask for fewer streams")
        x, y = (self.ids[start : start + count * steps].reshape(count, steps) for start in (0, 1))
        return x, y


def text(path: str | os.PathLike[str] | None = None) -> Text:
    """The text of a file; without a path fdl's own: the source of its layers and losses, file after file by name.

    Errors: DataError, naming the file, the offset, the line and the reason, for a file that is missing, empty, damaged, larger than
    LARGEST, not UTF-8, or that holds NUL; InputTypeError for what is no path.

        >>> text = fdl.data.text("notes.txt")
        >>> text
        Text(76 characters, 8 different ones)
    """
    if path is None:
        return _of(_own())
    return _of(_read(file_of("data.text", path, "a text file")))


def _read(path: Path) -> str:
    with contents(path) as file:
        if os.path.getsize(path) > LARGEST:
            file.refuse(TOO_LARGE, LARGEST)
        data = file.upto(LARGEST + 1)
        if len(data) > LARGEST:
            file.refuse(TOO_LARGE, LARGEST)
        start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            file.refuse("the file begins with the mark of UTF-16; save it as UTF-8", 0)
        try:
            characters = data[start:].decode("utf-8")
        except UnicodeDecodeError as error:
            _refuse_byte(file, data, start + error.start, f"is not UTF-8 ({error.reason}); save the file as UTF-8")
        if (at := data.find(0)) >= 0:
            _refuse_byte(file, data, at, "is NUL, which no text holds")
        if not characters:
            file.refuse(f"the file is empty{' but for its byte order mark' if start else ''}")
    return characters.replace("\r\n", "\n").replace("\r", "\n")


def _refuse_byte(file: Contents, data: bytearray, at: int, reason: str) -> None:
    line = data.count(b"\n", 0, at) + 1
    file.refuse(f"line {line}: the byte {data[at]:02x} {reason}", at)


def _own() -> str:
    package = importlib.resources.files("fdl")
    sources = [found for name in OWN for found in _sources(package.joinpath(name), (name,))]
    if not sources:
        raise DataError("fdl", "is installed without its source, which is the text where no path is given; give a path")
    return "".join(file.read_text(encoding="utf-8") for _, file in sorted(sources, key=lambda found: found[0]))


def _sources(folder: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """((name, folders), file) of every Python file below: in the order of the names, whatever the folder."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, (*path, entry.name))
        elif entry.name.endswith(".py"):
            yield (entry.name, *path), entry


def _of(characters: str) -> Text:
    points = _points(characters)
    known, ids = np.unique(points, return_inverse=True)
    return Text(ids.astype(np.int32), tuple(map(chr, known.tolist())))


def _points(characters: str) -> NDArray[np.uint32]:
    # a surrogate cannot come from a file; in a string it counts as the character that it is
    return np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
