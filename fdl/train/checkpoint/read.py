"""Reading a step only if every bit of it is right."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fdl.errors import refuse_type, shown
from fdl.train.checkpoint import arrays
from fdl.train.checkpoint import manifest as manifests
from fdl.train.checkpoint.errors import CheckpointError, Damaged
from fdl.train.checkpoint.folder import ARRAYS, files_of, fingerprint, name_of, steps_in
from fdl.train.checkpoint.manifest import NAME
from fdl.train.checkpoint.tree import Leaf, as_value, from_stored, misfit, placed, plain_tree


class Saved(NamedTuple):
    """A step that verified. facts: as they were given, with lists for tuples.

    >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    >>> mse, sgd = fdl.losses.mean_squared_error, optax.sgd(0.1)
    >>> common = {"key": jax.random.key(0), "epochs": 3, "progress": False}
    >>> _ = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), checkpoint="runs/saved", resume=True, **common)
    >>> fdl.train.restore("runs/saved").step
    3
    """

    step: int
    tree: Any
    facts: dict[str, Any]


class Content(NamedTuple):
    """A verified step before it has a place: its leaves on the host and the manifest."""

    leaves: list[Leaf]
    manifest: dict[str, Any]


def restore(folder: str | os.PathLike, like: Any = None, step: int | None = None) -> Saved:
    """The newest step of the folder, or that one; for reading without training. Takes no lock.

    like: a pytree of arrays or ShapeDtypeStructs; the tree comes back in its structure, on its devices. Without it, as dicts and
    lists of numpy arrays (and keys). Every byte is verified. Errors: CheckpointError where there is no such step, where it is
    damaged (older ones: `checkpoints`), or where it is not what `like` describes; it names the file or the leaf.

        >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        >>> mse, sgd = fdl.losses.mean_squared_error, optax.sgd(0.1)
        >>> common = {"key": jax.random.key(0), "epochs": 3, "progress": False}
        >>> _ = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), checkpoint="runs/restored", resume=True, **common)
        >>> fdl.train.restore("runs/restored").step
        3
    """
    path = _existing(folder, "train.restore")
    arrays.require_orbax(path)
    steps = steps_in(path)
    if not steps:
        raise CheckpointError(path, "there is no checkpoint", "train with checkpoint= this folder first")
    if step is not None and step not in steps:
        raise CheckpointError(path, f"there is no step {step}", f"it has {', '.join(map(str, steps))}")
    chosen = steps[-1] if step is None else step
    try:
        content = read(path, chosen)
    except Damaged as error:
        remedy = "pass step= one that fdl.train.checkpoints reports as ok"
        raise CheckpointError(path, f"step {chosen} is damaged: {error}", remedy) from error
    return as_saved(path, content, like)


def checkpoints(folder: str | os.PathLike) -> list[tuple[int, str]]:
    """(step, "ok" or what is wrong with it) for every step of the folder, oldest first; every byte is verified.

    >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    >>> mse, sgd = fdl.losses.mean_squared_error, optax.sgd(0.1)
    >>> common = {"key": jax.random.key(0), "epochs": 3, "progress": False}
    >>> _ = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), checkpoint="runs/listed", resume=True, **common)
    >>> fdl.train.checkpoints("runs/listed")
    [(3, 'ok')]
    """
    path = _existing(folder, "train.checkpoints")
    arrays.require_orbax(path)
    return [(step, damage(path, step) or "ok") for step in steps_in(path)]


def _existing(folder: Any, where: str) -> Path:
    if not isinstance(folder, str | os.PathLike):
        refuse_type(where, f"folder is {shown(folder)}, wanted a path")
    if not os.path.isdir(folder):
        raise CheckpointError(folder, "is not a folder", f"{where} wants the one that was trained into")
    return Path(os.path.abspath(folder))  # which orbax wants


def as_saved(folder: Path, content: Content, like: Any) -> Saved:
    """Errors: CheckpointError for what is not as `like`."""
    step, facts = content.manifest["step"], manifests.from_plain(content.manifest["facts"])
    if like is None:
        return Saved(step, plain_tree(content.manifest["tree"], [as_value(leaf) for leaf in content.leaves]), facts)
    reason = misfit(like, content.leaves)
    if reason is not None:
        remedy = "go on with the model and the optimizer that it was saved from, or use another folder"
        raise CheckpointError(folder, f"step {step} does not fit: {reason}", remedy)
    return Saved(step, placed(like, content.leaves), facts)


def damage(folder: Path, step: int) -> str | None:
    """What is wrong with that step; None if every byte is right."""
    try:
        read(folder, step)
    except Damaged as error:
        return str(error)
    return None


def read(folder: Path, step: int) -> Content:
    """The step, verified: first the bytes of every file, so that orbax never sees a damaged one, then those of every array.

    Errors: Damaged.
    """
    path = folder / name_of(step)
    manifest = read_manifest(folder, step)
    _compare_files(path, manifest["files"])
    try:
        names = [str(i) for i, leaf in enumerate(manifest["leaves"]) if 0 not in leaf["shape"]]
        stored = arrays.read(path / ARRAYS, names)
    except Exception as error:  # whatever orbax and tensorstore raise at what they cannot read
        raise Damaged(f"orbax cannot read the arrays ({type(error).__name__}: {error})") from error
    leaves = [_leaf(stored.get(str(i)), entry) for i, entry in enumerate(manifest["leaves"])]
    return Content(leaves, manifest)


def read_manifest(folder: Path, step: int) -> dict[str, Any]:
    """Errors: Damaged."""
    path = folder / name_of(step) / NAME
    try:
        with path.open("rb") as file:
            data = file.read(manifests.MOST_BYTES + 1)
    except OSError as error:
        raise Damaged(f"{NAME} cannot be read ({error.strerror or error})") from error
    if len(data) > manifests.MOST_BYTES:
        raise Damaged(f"{NAME} is larger than {manifests.MOST_BYTES} bytes")
    manifest = manifests.decoded(data)
    if manifest["step"] != step:
        raise Damaged(f"{NAME} is that of step {manifest['step']}")
    return manifest


def _compare_files(path: Path, expected: Mapping[str, Mapping[str, Any]]) -> None:
    found = {name: file for name, file in files_of(path) if name != NAME and (file.is_symlink() or not file.is_dir())}
    for name in expected:
        if name not in found:
            raise Damaged(f"file {name} is missing")
    for name, file in found.items():
        if name not in expected:
            raise Damaged(f"file {name} is not in the manifest")
        try:
            actual = fingerprint(file)
        except OSError as error:
            raise Damaged(f"file {name} cannot be read ({error.strerror or error})") from error
        for what in ("size", "sha256"):
            if actual[what] != expected[name][what]:
                raise Damaged(f"file {name} has the {what} {actual[what]}, wanted {expected[name][what]}")


def _leaf(stored: np.ndarray | None, entry: Mapping[str, Any]) -> Leaf:
    shape, dtype, name = tuple(entry["shape"]), entry["dtype"], entry["name"]
    try:
        array = np.empty(shape, np.dtype(dtype)) if stored is None else from_stored(np.asarray(stored), shape, dtype)
    except (TypeError, ValueError) as error:
        raise Damaged(f"leaf {name!r} cannot be a {dtype}{list(shape)} ({error})") from error
    if array.shape != shape or array.dtype.name != dtype:
        raise Damaged(f"leaf {name!r} is {shown(array)}, the manifest has {dtype}{list(shape)}")
    leaf = Leaf(name, np.asarray(array, order="C"), entry["key"])
    if manifests.described(leaf)["sha256"] != entry["sha256"]:
        raise Damaged(f"leaf {name!r} does not have the checksum that it was saved with")
    return leaf
