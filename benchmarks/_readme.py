"""Blocks of a Markdown file that stand between `<!-- figures NAME -->` and `<!-- end -->`, made from what is stored.

A table in the README that a person typed is wrong as soon as something is measured again.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks._explained import unexplained
from benchmarks._figures import RENDERERS, Stored, Unavailable
from benchmarks._store import Refused

_MARK = re.compile(r"^<!-- (?:figures (?P<name>\S+)|end) -->$")


def blocks(text: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, line after the last) of what stands between each pair of marks. Refused if they do not pair."""
    name, first = None, 0
    for number, line in enumerate(text.split("\n")):
        found = _MARK.match(line.strip())
        if not found:
            continue
        if found["name"]:
            if name is not None:
                raise Refused(f"line {number + 1}: figures {found['name']} begins before figures {name} ends")
            name, first = found["name"], number + 1
        elif name is not None:
            yield name, first, number
            name = None
    if name is not None:
        raise Refused(f"line {first}: figures {name} has no <!-- end -->")


def rewritten(text: str, stored: Stored) -> tuple[str, list[str]]:
    """The text with its blocks made anew, and the names of those that changed."""
    lines, changed = text.split("\n"), []
    for name, first, after in reversed(list(blocks(text))):
        if name not in RENDERERS:
            raise Refused(f"line {first}: no figures are called {name}; there are: {', '.join(RENDERERS)}")
        if name == "missed" and (wrong := unexplained(stored)):
            raise Refused("; ".join(wrong))
        try:
            made = ["", *RENDERERS[name](stored).split("\n"), ""]
        except Unavailable as error:
            raise Refused(f"line {first}: figures {name}: {error}") from error
        if lines[first:after] != made:
            changed.insert(0, name)
        lines[first:after] = made
    return "\n".join(lines), changed


def rewrite(path: Path, stored: Stored) -> list[str]:
    """Does that to a file; it is not touched if nothing changes."""
    try:
        text, changed = rewritten(path.read_text(encoding="utf-8"), stored)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error}") from error
    except Refused as error:
        raise Refused(f"{path}, {error}") from error
    if changed:
        path.write_text(text, encoding="utf-8")
    return changed
