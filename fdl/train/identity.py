"""What a run is, as text that is the same in every process: a checkpoint is continued only by the run that wrote it.

A model is described by its layers and the settings they compute with, `serial(dense_0=dense, dropout_1=dropout(rate=0.2))`. A function
is its name: another one of the same name is not noticed, nor are the settings of an optimizer, which optax keeps to itself.
"""

import dataclasses
import zlib
from typing import Any

import jax
import numpy as np

from fdl.errors import is_array, shown
from fdl.layer import Bound, Layer
from fdl.op import Op, Operand, Static
from fdl.train.run import Recipe


def identity_of(
    recipe: Recipe, data: Any, valid: Any, weights: Any, key: Any, on_divergence: str, monitored: str | None
) -> dict[str, Any]:
    """What has to be the same for a run to be continued. monitored: what decides which epoch is the best."""
    streams = hasattr(data, "prefetched")
    arrays = data.specs if streams else (*data, weights)
    return {
        "model": described(recipe.model),
        "loss": described(recipe.loss),
        "penalty": described(recipe.penalty),
        "gradient": recipe.gradient,
        "precision": recipe.precision,
        "accumulate": recipe.accumulate,
        "batch_size": recipe.batch_size,
        "on_divergence": on_divergence,
        "data": _of_arrays(arrays) + ([repr(data)] if streams else []),  # how a stream is cut decides its order
        "valid": None if valid is None else _of_arrays(valid),
        "the monitored figure": monitored,
        "key": [int(word) for word in np.ravel(jax.random.key_data(key))],
    }


def described(value: Any) -> str:
    """Without addresses, which differ from process to process."""
    if isinstance(value, Layer):
        children = [f"{name}={described(layer)}" for name, layer in value.layers]
        inside = ", ".join(children or _settings_of(value._run))
        return f"{value.name}({inside})" if inside else value.name
    if isinstance(value, Op):
        return f"Op({', '.join([value.name, *_named(value.options)])})"
    if isinstance(value, Bound):
        return f"{described(value.function)}({', '.join(_named(value.settings))})"
    if isinstance(value, Static | Operand):
        return described(value.value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(described, value))}]"
    if is_array(value):
        return f"{shown(value)} {_fingerprint(np.atleast_1d(value))}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return f"{type(value).__name__}({', '.join(_named(fields))})"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return repr(value) if isinstance(value, str | int | float | complex | None) else str(value)


def _settings_of(run: Any) -> list[str]:
    """Of a layer's function; those of its Op are the layer's."""
    if not isinstance(run, Bound):
        return []
    named = []
    for name, kept in run.settings:
        named += _named(kept.value.options) if isinstance(kept.value, Op) else _named([(name, kept)])
    return named


def _named(settings: Any) -> list[str]:
    return [f"{name}={described(value)}" for name, value in settings]


def _of_arrays(arrays: Any) -> list[str | None]:
    return [None if a is None else f"{shown(a)} {_fingerprint(a)}".strip() for a in arrays]


def _fingerprint(array: Any) -> str:
    """A checksum of the first and the last megabyte: another order or another file is noticed, every change is not."""
    if isinstance(array, jax.ShapeDtypeStruct):
        return ""
    rows = max(1, 2**20 // max(1, array[:1].nbytes))
    ends = (np.asarray(array[:rows]), np.asarray(array[-rows:]))
    return f"{zlib.crc32(ends[1].tobytes(), zlib.crc32(ends[0].tobytes())):08x}"
