"""A file of delimited text as records: lines of cells, all with as many cells as the first. RFC 4180, taken strictly.

UTF-8, with a byte order mark or without; lines end in \\n or \\r\\n. A cell that begins with a quote ends with one, may hold the delimiter
and line ends, and "" stands for a quote in it; a quote elsewhere is refused. Empty lines may stand at the end only. The memory
grows with a piece of the file and the longest record, not with the file.
"""

import codecs
import re
from collections.abc import Iterator
from typing import NoReturn

from fdl.data._files import MOST_PACKED, Contents
from fdl.errors import DataError

DELIMITERS = ",;\t"
PIECE = 2**18
LONGEST = 2**24  # bytes of a line, characters of a record
# Tables are packed to a tenth or so; what unpacks to more than 200 times its size and to more than this is no table but a bomb
MOST_RATIO, MOST_UNPACKED = 200, 2**26

Batch = tuple[list[int], list[list[str]]]  # the number of each record's first line, and its cells


def refuse_line(file: Contents, line: int, reason: str) -> NoReturn:
    raise DataError(str(file.path), f"line {line}: {reason}")


def records(file: Contents, delimiter: str | None) -> Iterator[Batch]:
    """Batches of records. Without a delimiter it is the one of DELIMITERS that the first line holds outside of quotes.

    Errors: DataError, with the number of the line.
    """
    width, split, blank = 0, re.compile(""), 0
    open_parts: list[str] = []  # of a record with a quote that is not closed yet
    opened = length = 0
    for number, lines in _lines(file):
        numbers: list[int] = []
        rows: list[list[str]] = []
        for n, line in enumerate(lines, number):
            quotes = '"' in line
            if open_parts:
                open_parts.append(line)
                length += len(line) + 1
                if length > LONGEST:
                    refuse_line(file, opened, f"a quote in this line is not closed within {LONGEST} characters")
                if line.count('"') % 2 == 0:
                    continue
                line, n, open_parts, quotes = "\n".join(open_parts), opened, [], True
            else:
                if not line.strip():
                    blank = blank or n
                    continue
                if blank:
                    refuse_line(file, blank, "is empty, and more lines follow; leave it out")
                if not width:
                    delimiter = delimiter or _sniffed(file, n, line)
                    split = _cells(delimiter)
                if quotes and line.count('"') % 2:
                    open_parts, opened, length = [line], n, len(line)
                    continue
            row = _quoted(file, n, line, split) if quotes else line.split(delimiter)
            width = width or len(row)
            if len(row) != width:
                refuse_line(
                    file, n, f"has {len(row)} cells, the first line has {width} (the delimiter is {delimiter!r})"
                )
            numbers.append(n)
            rows.append(row)
        if rows:
            yield numbers, rows
    if open_parts:
        refuse_line(file, opened, "a quote in this line is never closed")
    if not width:
        file.refuse("the file has no lines with text")


def _lines(file: Contents) -> Iterator[tuple[int, list[str]]]:
    """(number of the first, lines without their ends): whole lines, a piece of the file at a time."""
    rest, number, start, last = b"", 1, 0, False
    most = max(MOST_UNPACKED, file.most // MOST_PACKED * MOST_RATIO) if file.packed else file.most
    while not last:
        read = file.upto(PIECE)
        last = len(read) < PIECE
        if file.offset > most:
            file.refuse(f"unpacks to more than {MOST_RATIO} times its size, as no table does; unpack it yourself")
        data = rest + read
        if not start:
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                file.refuse("the file begins with the mark of UTF-16; save it as UTF-8", 0)
            if data.startswith(codecs.BOM_UTF8):
                data, start = data[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
        cut = len(data) if last else data.rfind(b"\n") + 1
        if not cut:
            if len(data) > LONGEST:
                refuse_line(file, number, f"is longer than {LONGEST} bytes; is this a table?")
            rest = data
            continue
        lines = _decoded(file, data[:cut], number, start).split("\n")
        if not lines[-1]:
            del lines[-1]  # after the last line end
        yield number, lines
        number, start, rest = number + len(lines), start + cut, data[cut:]


def _decoded(file: Contents, data: bytes, number: int, start: int) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + data.count(b"\n", 0, error.start)
        reason = f"line {line}: the byte {data[error.start]:02x} is not UTF-8 ({error.reason}); save the file as UTF-8"
        file.refuse(reason, start + error.start)
    text = text.replace("\r\n", "\n")
    for character, what in (
        ("\0", "NUL, which no text holds"),
        ("\r", "\\r without \\n; save it with \\n at line ends"),
    ):
        if (at := text.find(character)) >= 0:
            refuse_line(file, number + text.count("\n", 0, at), f"holds {what}")
    return text


def _sniffed(file: Contents, n: int, line: str) -> str:
    bare = re.sub('"[^"]*"?', "", line)
    found = [delimiter for delimiter in DELIMITERS if delimiter in bare]
    if len(found) != 1:
        got = f"holds {' and '.join(map(repr, found))}" if found else "holds no comma, semicolon or tab"
        refuse_line(file, n, f"{got}; pass delimiter= to say what separates the cells")
    return found[0]


def _cells(delimiter: str) -> re.Pattern[str]:
    d = re.escape(delimiter)
    return re.compile(rf'(?: *"([^"]*(?:""[^"]*)*)" *|([^"{d}]*))({d}|\Z)')


def _quoted(file: Contents, n: int, line: str, pattern: re.Pattern[str]) -> list[str]:
    cells, at = [], 0
    while match := pattern.match(line, at):
        quoted, bare, separator = match.groups()
        cells.append(bare if quoted is None else quoted.replace('""', '"'))
        at = match.end()
        if not separator:
            return cells
    refuse_line(
        file, n, f"cell {len(cells) + 1}: a quote where none may stand; quote the whole cell and double its quotes"
    )
