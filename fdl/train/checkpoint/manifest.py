"""The manifest: what a step holds, to the last bit.

A JSON object whose first line holds the SHA-256 of all that follows. It is read as what it may be, the work of a failing disk:
at most `MOST_BYTES`, checksum first, no duplicate names, no NaN.
"""

import functools
import hashlib
import importlib.metadata
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fdl.errors import refuse, refuse_type, shown
from fdl.train.checkpoint.errors import Damaged
from fdl.train.checkpoint.tree import Leaf, as_bytes

NAME = "manifest.json"
MOST_BYTES = 1 << 28
FORMAT = 1
_PACKAGES = ("fdl", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint")
_FIRST = re.compile(rb'\{"sha256": "([0-9a-f]{64})",\n')
_FLOAT = "__float__"  # the name of the only entry of what stands for a float that JSON has not


def digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def described(leaf: Leaf) -> dict[str, Any]:
    """Name, shape, dtype, checksum; for a typed key those of its data, and its kind."""
    array = leaf.array
    sha = digest(as_bytes(array).data)
    return {"name": leaf.name, "shape": list(array.shape), "dtype": array.dtype.name, "key": leaf.key, "sha256": sha}


def encoded(
    step: int, structure: Any, leaves: Sequence[Mapping[str, Any]], files: Mapping[str, Any], facts: Any
) -> bytes:
    content = {
        "format": FORMAT,
        "step": step,
        "versions": versions(),
        "tree": structure,
        "leaves": leaves,
        "files": files,
        "facts": facts,
    }
    rest = json.dumps(content, indent=1, allow_nan=False)[1:].lstrip("\n").encode()
    return b'{"sha256": "%s",\n' % digest(rest).encode() + rest


@functools.cache
def versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def decoded(data: bytes) -> dict[str, Any]:
    """Errors: Damaged."""
    first = _FIRST.match(data)
    if first is None:
        raise Damaged(f"{NAME} does not begin with its checksum")
    if digest(data[first.end() :]) != first[1].decode():
        raise Damaged(f"{NAME} does not have the checksum that it was written with")
    try:
        content = json.loads(data, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{NAME} is not JSON as it is written here ({error})") from error
    if content.get("format") != FORMAT:
        raise Damaged(f"{NAME} has the format {content.get('format')!r}, this version of fdl reads {FORMAT}")
    _require_fields(content)
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return names


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _require_fields(content: Mapping[str, Any]) -> None:
    """The right kinds of values: a checksum says that nobody damaged the manifest, not that fdl wrote it."""
    leaf = {"name": str, "shape": list, "dtype": str, "key": str | None, "sha256": str}
    file = {"size": int, "sha256": str}
    _require(content, {"step": int, "leaves": list, "files": dict, "facts": dict}, "the manifest")
    for number, entry in enumerate(content["leaves"]):
        _require(entry, leaf, f"leaf {number}")
        if not all(type(size) is int and size >= 0 for size in entry["shape"]):
            raise Damaged(f"{NAME}: leaf {number} has the shape {entry['shape']}")
    for name, entry in content["files"].items():
        _require(entry, file, f"file {name!r}")
    if not _is_structure(content.get("tree"), len(content["leaves"])):
        raise Damaged(f"{NAME}: its tree is none of its leaves")


def _require(entry: Any, kinds: Mapping[str, Any], what: str) -> None:
    if not isinstance(entry, dict):
        raise Damaged(f"{NAME}: {what} is {shown(entry)}, wanted an object")
    for name, kind in kinds.items():
        if name not in entry or not isinstance(entry[name], kind) or isinstance(entry[name], bool):
            raise Damaged(f"{NAME}: {name!r} of {what} is {shown(entry.get(name))}, wanted {kind}")


def _is_structure(node: Any, leaves: int) -> bool:
    if node is None or isinstance(node, bool):
        return node is None
    if isinstance(node, int):
        return 0 <= node < leaves
    if not isinstance(node, list) or not node or node[0] not in ("list", "dict"):
        return False
    if node[0] == "list":
        return all(_is_structure(child, leaves) for child in node[1:])
    pairs = all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str | int) for pair in node[1:])
    return pairs and all(_is_structure(child, leaves) for _, child in node[1:])


def plain(value: Any, path: str = "facts") -> Any:
    """The value as JSON can hold it: tuples become lists, numpy scalars Python's, and NaN and infinities {"__float__": "nan"}.

    Errors: InputError or InputTypeError, with the place, for what JSON cannot hold.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    if isinstance(value, list | tuple):
        return [plain(entry, f"{path}[{i}]") for i, entry in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                refuse_type("train.checkpoint", f"{path} has the key {shown(key)}, wanted text; use str(key)")
        if set(value) == {_FLOAT}:
            refuse("train.checkpoint", f"{path} has {_FLOAT!r} as its only key, which stands for NaN; rename it")
        return {key: plain(entry, f"{path}[{key!r}]") for key, entry in value.items()}
    refuse_type("train.checkpoint", f"{path} is {shown(value)}, wanted what JSON can hold; use .tolist() for an array")


def from_plain(value: Any) -> Any:
    """`plain` undone, but for tuples."""
    if isinstance(value, list):
        return [from_plain(entry) for entry in value]
    if isinstance(value, dict):
        if set(value) == {_FLOAT} and value[_FLOAT] in ("nan", "inf", "-inf"):
            return float(value[_FLOAT])
        return {key: from_plain(entry) for key, entry in value.items()}
    return value
