"""Parameters and state in a safetensors file, under the names of their layers.

    params["dense_0"]["w"]                  params/dense_0/w
    params["block"]["dense_1"]["b"]         params/block/dense_1/b
    state["batch_norm_1"]["mean"]           state/batch_norm_1/mean

Any program reads it: `safetensors.numpy.load_file("digits.safetensors")["params/dense_0/w"]` (bfloat16, which that module
lacks, by `safetensors.torch` or `safetensors.flax`). Every bit comes back here, of bfloat16 and of the 8-bit floats too.

Beside the caller's metadata, strings by name, the header holds one entry "fdl", a JSON object: the version, the order of the
names (one that has no array is an empty dict), and a SHA-256 of all arrays, since the format itself has no checksum.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from fdl.errors import is_array, refuse, refuse_type, shown
from fdl.export.files import damaged, library, read, write
from fdl.layer import Params, State

Tree = dict[str, Any]

_OURS = "fdl"  # the entry of the metadata that is not the caller's
_ROOTS = ("params", "state")
_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "C64": np.complex64,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U64": np.uint64,
        "U32": np.uint32,
        "U16": np.uint16,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}


def save_params(
    path: str | os.PathLike, params: Params, state: State | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes nested dicts of arrays as one safetensors file, whole or not at all.

    metadata: strings by name, which `load_metadata` returns. Errors: InputError or InputTypeError for an entry that is no dict or
    array, has a dtype that the format lacks or a name with a slash, and for a path that cannot be written.

        >>> params, state = fdl.dense(2).init(jax.random.key(0), (3,))
        >>> fdl.export.save_params("model.safetensors", params, state, metadata={"trained on": "digits"})
        >>> sorted(fdl.export.load_params("model.safetensors")[0])
        ['b', 'w']
    """
    where = "export.save_params"
    safetensors = library(where, "safetensors.numpy")
    trees = {"params": params} | ({} if state is None else {"state": state})
    entries = dict(entry for root, tree in trees.items() for entry in _entries(where, root, tree))
    arrays = {name: _as_stored(where, name, leaf) for name, leaf in entries.items() if leaf is not None}
    ours = {"format": 1, "fdl": _version(), "names": list(entries), "sha256": _digest(arrays)}
    data = safetensors.save(arrays, metadata=_checked_metadata(where, metadata) | {_OURS: json.dumps(ours)})
    write(where, Path(path), data)


def load_params(path: str | os.PathLike, like: tuple[Any, Any] | None = None) -> tuple[Params, State]:
    """(params, state) as they were saved, every bit of them; the state is {} where none was saved.

    like: (params, state) of the same names, shapes and dtypes, such as `model.init(key, shape)` or its `jax.eval_shape`. Errors:
    DataError for a file that is no such file, is damaged or cut short, or differs from `like`, with the name of the entry.

        >>> params, state = fdl.dense(2).init(jax.random.key(0), (3,))
        >>> _ = fdl.export.save_params("model.safetensors", params, state)
        >>> fdl.export.load_params("model.safetensors")[0]["w"].shape
        (3, 2)
    """
    where, path = "export.load_params", Path(path)
    arrays, metadata = _read(where, path)
    names = _names(path, arrays, metadata)
    if like is not None:
        _compare(where, path, arrays, names, like)
    trees: Tree = {}
    for name in names:
        *folders, last = name.split("/")
        tree = trees
        for folder in folders:
            tree = tree.setdefault(folder, {})
            if not isinstance(tree, dict):
                damaged(path, f"the entry {name!r} is inside {folder!r}, which is an array")
        tree[last] = _on_device(path, name, arrays[name]) if name in arrays else {}
    return trees.get("params", {}), trees.get("state", {})


def load_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata that `save_params` was given.

    >>> params, state = fdl.dense(2).init(jax.random.key(0), (3,))
    >>> _ = fdl.export.save_params("model.safetensors", params, state, metadata={"trained on": "digits"})
    >>> fdl.export.load_metadata("model.safetensors")["trained on"]
    'digits'
    """
    metadata = _read("export.load_metadata", Path(path))[1]
    return {name: text for name, text in metadata.items() if name != _OURS}


# ---- writing ----


def _entries(where: str, path: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """(name, array) of every leaf, and (name, None) of every empty dict."""
    if is_array(tree):
        yield path, tree
        return
    if not isinstance(tree, dict):
        refuse_type(where, f"{path} is {shown(tree)}, wanted an array or a dict of them; convert it with jnp.asarray")
    if not tree:
        yield path, None
    for name, inner in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            refuse(where, f"{path} has an entry named {name!r}, wanted a text without slashes; rename it")
        yield from _entries(where, f"{path}/{name}", inner)


def _as_stored(where: str, name: str, leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        refuse_type(where, f"{name} is {shown(leaf)}, a key; save jax.random.key_data of it")
    if np.dtype(leaf.dtype).newbyteorder("=") not in _DTYPES.values():
        refuse_type(where, f"{name} is {shown(leaf)}, wanted one of {', '.join(map(str, _DTYPES.values()))}")
    return np.asarray(leaf, np.dtype(leaf.dtype).newbyteorder("<"), order="C")


def _checked_metadata(where: str, metadata: Mapping[str, str] | None) -> dict[str, str]:
    metadata = dict(metadata or {})
    for name, text in metadata.items():
        if not isinstance(name, str) or not isinstance(text, str):
            refuse_type(where, f"metadata has {name!r}: {shown(text)}, wanted texts by name; use str or json.dumps")
    if _OURS in metadata:
        refuse(where, f"metadata has an entry named {_OURS!r}, which is fdl's own; rename it")
    return metadata


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _version() -> str:
    import fdl

    return fdl.__version__


# ---- reading ----


def _read(where: str, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata), checked against the checksum if there is one."""
    safetensors = library(where, "safetensors")
    data = read(path)
    try:
        found = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        damaged(path, f"is no safetensors file, or is cut short ({error})")
    arrays = {}
    for name, entry in found:
        if entry["dtype"] not in _DTYPES:
            damaged(path, f"the entry {name!r} has the dtype {entry['dtype']}, wanted one of {', '.join(_DTYPES)}")
        arrays[name] = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # the library has found it sound
    metadata = header.get("__metadata__", {})
    ours = _ours(path, metadata)
    if "sha256" in ours and ours["sha256"] != _digest(arrays):
        damaged(path, "the arrays are not those that were saved: the SHA-256 differs; copy the file again")
    return arrays, metadata


def _ours(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        ours = json.loads(metadata.get(_OURS, "{}"))
    except ValueError:
        ours = None
    if not isinstance(ours, dict) or ours.get("format", 1) != 1:
        damaged(path, f"its metadata {_OURS!r} is not what this version writes")
    return ours


def _names(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> list[str]:
    """The names of arrays and of empty dicts, in the order in which they were saved."""
    names = _ours(path, metadata).get("names", sorted(arrays))
    if not isinstance(names, list) or not set(arrays) <= {name for name in names if isinstance(name, str)}:
        damaged(path, "the names in its metadata are not those of its arrays")
    for name in names:
        root, *rest = str(name).split("/")
        if root not in _ROOTS or not all(rest) or (name in arrays and not rest):
            damaged(
                path,
                f"the entry {name!r} is neither params/... nor state/...: not written by save_params; read it with "
                "safetensors.numpy.load_file, and fdl.convert for the layouts of other libraries",
            )
    return names


def _compare(where: str, path: Path, arrays: Mapping[str, np.ndarray], names: list[str], like: Any) -> None:
    if not isinstance(like, tuple | list) or len(like) != 2:
        refuse_type(where, f"like is {shown(like)}, wanted (params, state), as model.init returns it")
    wanted = dict(entry for root, tree in zip(_ROOTS, like, strict=True) for entry in _entries(where, root, tree or {}))
    wanted = {name: leaf for name, leaf in wanted.items() if leaf is not None}
    for name in names:
        if name in arrays and name not in wanted:
            damaged(path, f"the entry {name!r} is not in like, which has {', '.join(wanted) or 'nothing'}")
    for name, leaf in wanted.items():
        if name not in arrays:
            damaged(path, f"the entry {name!r} is missing; there are {', '.join(arrays) or 'none'}")
        if (arrays[name].shape, arrays[name].dtype) != (tuple(leaf.shape), leaf.dtype):
            damaged(path, f"the entry {name!r} is {shown(arrays[name])}, wanted {shown(leaf)}")


def _on_device(path: Path, name: str, array: np.ndarray) -> jax.Array:
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        damaged(
            path, f"the entry {name!r} is {shown(array)}, which JAX would cut to 32 bits: enable jax_enable_x64 first"
        )
    return jnp.asarray(array)
