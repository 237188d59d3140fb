"""The function in use as a `jax.export` artefact, which runs without fdl, and a JSON manifest that says what it is.

    made = fdl.export.inference("digits.jaxexport", model, params, state, (64,))        # and digits.jaxexport.json

Without fdl, with jax and flatbuffers installed:

    import pathlib, jax.export
    f = jax.export.deserialize(bytearray(pathlib.Path("digits.jaxexport").read_bytes()))
    y = f.call(x)          # x: float32[n, 64]

The function is `model.apply(params, state, x)[0]`, without a mask, after `fdl.batch_norm.fold`. The parameters are constants
inside: one file, one argument. It has their size and some kilobytes of program: 12.95 MB for a convnet with 12.93 MB of parameters,
25 kB for recurrent layers with 9. Lowered for cpu, cuda and tpu together it is 2 kB larger than for one, and no slower to load.

The batch size is a symbol, n, unless it is given: the artefact takes any, and compiles once for each that it sees. A convolution
that would take many examples at a time takes one there: 64 images through two of LeNet-5's took 1.16 ms, 1.14 with the batch
size fixed; through four of 32 and 64 channels 24.7 and 24.9.

JAX reads an artefact for at least six months of its releases, so keep the parameters as well (`save_params`).
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import is_array, refuse, refuse_type, require_count, shown
from fdl.export.files import damaged, library, read, write
from fdl.layer import Layer, Params, State, input_spec
from fdl.layers.batch_norm.fold import fold as folded_into_layers

PLATFORMS = ("cpu", "cuda", "tpu")
_FORMAT = "fdl inference 1"
_LARGEST = 2**31 - 2**24  # bytes of parameters: the file's offsets have 32 bits, one of them a sign


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `inference` wrote. folded: the batch_norm layers that are now part of the layer before them.

    >>> model = fdl.dense(2)
    >>> params, state = model.init(jax.random.key(0), (3,))
    >>> exported = fdl.export.inference("dense.jaxexport", model, params, state, (3,))
    >>> exported.folded  # the batch norms that became part of the layer before
    ()
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def folded(self) -> tuple[str, ...]:
        return tuple(self.manifest["folded"])

    def __str__(self) -> str:
        made = self.manifest
        folded = f"; folded into the layer before: {', '.join(self.folded)}" if self.folded else ""
        return (
            f"{self.path}: {_text(made['input'])} -> {_text(made['output'])}, {made['bytes']:,} bytes with "
            f"{made['parameters']:,} parameters, for {', '.join(made['platforms'])}{folded}"
        )


@dataclasses.dataclass(frozen=True)
class Inference:
    """A loaded artefact: y = f(x).

    >>> model = fdl.dense(2)
    >>> params, state = model.init(jax.random.key(0), (3,))
    >>> _ = fdl.export.inference("dense.jaxexport", model, params, state, (3,))
    >>> fdl.export.load_inference("dense.jaxexport").path.name
    'dense.jaxexport'
    """

    path: Path
    manifest: dict[str, Any]
    _call: Any = dataclasses.field(repr=False)

    def __call__(self, x: Any) -> jax.Array:
        wanted = self.manifest["input"]
        fits = is_array(x) and str(x.dtype) == wanted["dtype"] and len(x.shape) == len(wanted["shape"])
        if not fits or any(n != w for n, w in zip(x.shape, wanted["shape"], strict=True) if w != "n") or not x.shape[0]:
            refuse("export.load_inference", f"x is {shown(x)}, wanted {_text(wanted)}")
        return self._call(x)


def inference(
    path: str | os.PathLike,
    model: Layer,
    params: Params,
    state: State,
    shape: Any,
    *,
    batch: int | None = None,
    dtype: Any = jnp.float32,
    platforms: Sequence[str] | None = None,
    fold: bool = True,
) -> Exported:
    """Writes the model in use as `path`, a `jax.export` artefact, and `path`.json, its manifest.

    shape, dtype: of ONE example (or a `jax.ShapeDtypeStruct` of it, for token ids). batch: the number of examples, by default any; a
    model that remembers something of each example has a number of its own, and starts every call from `state`. platforms: of
    "cpu", "cuda", "tpu" and "rocm", by default these three, whatever the machine has. fold: whether a batch_norm becomes part of the
    dense or convolutional layer before it, which changes roundings.

    The manifest holds the SHA-256 of the artefact, versions, shapes and dtypes, the layers, and how to load it. Errors: InputError
    or InputTypeError for a model, parameters or shapes that do not fit, more than 2 GB, a path that cannot be written.

        >>> model = fdl.dense(2)
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> fdl.export.inference("dense.jaxexport", model, params, state, (3,)).path.name
        'dense.jaxexport'
    """
    where, path = "export.inference", Path(path)
    if not isinstance(model, Layer):
        refuse_type(where, f"model is {shown(model)}, wanted an fdl.Layer")
    library(where, "flatbuffers")
    spec = input_spec(where, shape, dtype)
    number = _batch(where, batch, model)
    if (size := sum(leaf.nbytes for leaf in jax.tree.leaves((params, state)))) > _LARGEST:
        refuse(where, f"params and state have {size:,} bytes, wanted at most {_LARGEST:,}; use save_params")
    used, used_params, used_state = folded_into_layers(model, params, state) if fold else (model, params, state)
    function = jax.jit(lambda x: used.apply(used_params, used_state, x)[0])
    platforms = _platforms(where, platforms)
    try:
        x = jax.ShapeDtypeStruct((number, *spec.shape), spec.dtype)
        exported = jax.export.export(function, platforms=platforms)(x)
    except Exception as error:  # with which types JAX refuses is not documented
        if batch is None:
            error.add_note("fdl.export.inference: where the number of examples has to be known, pass batch=")
        raise
    data = bytes(exported.serialize())
    kept = [name for name, _ in _leaves(used)]
    manifest = {
        "format": _FORMAT,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "input": _described(exported.in_avals[0]),
        "output": _described(exported.out_avals[0]),
        "platforms": list(exported.platforms),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(used_params)),
        "layers": [{"name": name, "kind": layer.name} for name, layer in _leaves(used)],
        "folded": [name for name, _ in _leaves(model) if name not in kept],
        "versions": _versions(),
        "calling_convention": exported.calling_convention_version,
        "load": [
            "import pathlib, jax.export",
            f"f = jax.export.deserialize(bytearray(pathlib.Path({path.name!r}).read_bytes()))",
            f"y = f.call(x)  # x: {_text(_described(exported.in_avals[0]))}; needs jax and flatbuffers",
        ],
    }
    write(where, path, data)
    write(where, manifest_of(path), (json.dumps(manifest, indent=1) + "\n").encode())
    return Exported(path, manifest)


def load_inference(path: str | os.PathLike) -> Inference:
    """The function in an artefact, after the artefact was compared with its manifest.

    Errors: DataError for files that are not there, are damaged or do not belong together, or an artefact for other platforms.

        >>> model = fdl.dense(2)
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> _ = fdl.export.inference("dense.jaxexport", model, params, state, (3,))
        >>> fdl.export.load_inference("dense.jaxexport")(jnp.ones((5, 3), jnp.float32)).shape
        (5, 2)
    """
    where, path = "export.load_inference", Path(path)
    library(where, "flatbuffers")
    manifest, data = _read_manifest(path), read(path)
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        damaged(path, f"is not the artefact of {manifest_of(path).name}: the SHA-256 differs; copy both files again")
    here = jax.export.default_export_platform()
    if here not in manifest["platforms"]:
        damaged(
            path, f"is for {', '.join(manifest['platforms'])}, and this is {here}; export it with platforms=({here!r},)"
        )
    try:
        exported = jax.export.deserialize(bytearray(data))
    except Exception as error:  # whatever a later JAX says of an older artefact
        versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
        damaged(path, f"jax {jax.__version__} cannot read it, which was made with {versions}: {error}")
    return Inference(path, manifest, jax.jit(exported.call))


def manifest_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


# ---- writing ----


def _batch(where: str, batch: int | None, model: Layer) -> Any:
    if batch is not None:
        require_count(where, "batch", batch)
    if model.examples is not None and batch not in (None, model.examples):
        refuse(where, f"batch is {batch}, but the model remembers something of {model.examples} examples; leave it out")
    return batch or model.examples or jax.export.symbolic_shape("n")[0]


def _platforms(where: str, platforms: Sequence[str] | None) -> tuple[str, ...]:
    if platforms is None:
        return PLATFORMS
    known = (*PLATFORMS, "rocm")  # JAX takes any text, for a platform that never comes
    if isinstance(platforms, str) or not platforms or not set(platforms) <= set(known):
        refuse(where, f"platforms is {platforms!r}, wanted some of {known}")
    return tuple(platforms)


def _leaves(model: Layer) -> tuple[tuple[str, Layer], ...]:
    return model.leaves or ((model.name, model),)


def _described(aval: Any) -> dict[str, Any]:
    return {"shape": [n if isinstance(n, int) else str(n) for n in aval.shape], "dtype": str(aval.dtype)}


def _text(described: dict[str, Any]) -> str:
    return f"{described['dtype']}[{', '.join(map(str, described['shape']))}]"


def _versions() -> dict[str, str]:
    import fdl

    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    return {"fdl": fdl.__version__, **found, "python": platform.python_version()}


# ---- reading ----


def _read_manifest(path: Path) -> dict[str, Any]:
    beside = manifest_of(path)
    try:
        manifest = json.loads(read(beside))
    except ValueError:
        manifest = None
    needed = {"sha256": str, "platforms": list, "input": dict, "versions": dict}
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        damaged(beside, f"is not a manifest of {_FORMAT!r}; write it again with fdl.export.inference")
    for name, kind in needed.items():
        if not isinstance(manifest.get(name), kind):
            damaged(beside, f"{name!r} is {manifest.get(name)!r}; write it again with fdl.export.inference")
    return manifest
