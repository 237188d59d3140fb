"""What the batch itself says: the scale of x, features that never change, labels, and the loss that chance predicts."""

import math
from typing import Any

import jax.numpy as jnp

from fdl.losses.softmax_cross_entropy_with_integer_labels import indices
from fdl.op import Op, accumulator

# Losses over classes: whether they take logits, where they have no option that says so.
_LOGITS = {
    "softmax_cross_entropy": True,
    "softmax_cross_entropy_with_integer_labels": True,
    "sigmoid_binary_cross_entropy": True,
    "cross_entropy": False,
    "amended_cross_entropy": False,
}
_FROM_LOGITS = ("categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy")
_OF_CLASSES = (
    *("softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels"),
    *("categorical_crossentropy", "sparse_categorical_crossentropy"),
)
_OF_TWO = ("sigmoid_binary_cross_entropy", "binary_crossentropy")


def takes_logits(loss: Op) -> bool | None:
    """Whether the loss makes probabilities of what it gets; None for a loss that is about something else."""
    if loss.name in _FROM_LOGITS:
        return bool({name: kept.value for name, kept in loss.options}.get("from_logits", False))
    return _LOGITS.get(loss.name)


def chance_loss(loss: Op, y: Any, target: Any) -> Any:
    """What a model pays that knows nothing: log V, log 2, or the variance of the target; NaN for other losses."""
    dtype = accumulator(y.dtype)
    if loss.name in _OF_CLASSES:
        return jnp.asarray(math.log(y.shape[-1]), dtype)
    if loss.name in _OF_TWO:
        return jnp.asarray(math.log(2), dtype)
    if loss.name == "mean_squared_error":
        return jnp.mean(jnp.var(target.astype(dtype), axis=0))
    return jnp.asarray(jnp.nan, dtype)


def input_facts(x: Any) -> dict[str, Any]:
    """input_rms, feature_rms and feature, constant_features and constant_feature; nothing of tokens."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        nothing, none = jnp.full((), jnp.nan), jnp.full((), -1)
        names = {"input_rms": nothing, "feature_rms": nothing, "feature": none}
        return names | {"constant_features": jnp.zeros((), int), "constant_feature": none}
    rows = x.reshape(x.shape[0], -1).astype(accumulator(x.dtype))  # [N, features]
    mean_square = jnp.mean(rows * rows, axis=0)
    constant = jnp.all(rows == rows[:1], axis=0) & (rows[0] != 0) & (rows.shape[0] > 1)
    return {
        "input_rms": jnp.sqrt(jnp.mean(mean_square)),
        "feature_rms": jnp.sqrt(jnp.max(mean_square)),
        "feature": jnp.argmax(mean_square),
        "constant_features": jnp.sum(constant),
        "constant_feature": jnp.where(jnp.any(constant), jnp.argmax(constant), -1),
    }


def label_facts(y: Any, target: Any) -> dict[str, Any]:
    """label_share, label_classes, label_entropy, label_outside; of a real target only whether it is constant."""
    dtype = accumulator(y.dtype)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        constant = jnp.all(target == target[:1]).astype(dtype)
        unknown = jnp.full((), jnp.nan, dtype)
        share = jnp.where(constant > 0, constant, unknown)
        return {"label_share": share, "label_classes": -1, "label_entropy": unknown, "label_outside": 0}
    labels = indices(target).reshape(-1)
    classes = max(y.shape[-1], 2)
    counts = jnp.sum(labels[:, None] == jnp.arange(classes, dtype=labels.dtype)[None], axis=0)  # [V]
    shares = counts.astype(dtype) / labels.size
    logs = jnp.log(jnp.where(shares > 0, shares, jnp.ones_like(shares)))
    return {
        "label_share": jnp.max(shares),
        "label_classes": jnp.sum(counts > 0),
        "label_entropy": -jnp.sum(shares * logs),
        "label_outside": labels.size - jnp.sum(counts),
    }


def output_facts(y: Any) -> dict[str, Any]:
    """unit_rows and outside_unit: are these probabilities?"""
    wide = y.astype(accumulator(y.dtype))
    outside = ~((wide >= 0) & (wide <= 1))  # NaN too
    off = jnp.abs(jnp.sum(wide, axis=-1) - 1) > 1e-2  # the rounding of a 16-bit softmax over 1000 classes
    rows = ~(off | jnp.any(outside, axis=-1))
    return {"unit_rows": jnp.mean(rows, dtype=wide.dtype), "outside_unit": jnp.mean(outside, dtype=wide.dtype)}


def count(x: Any, mask: Any) -> Any:
    """How many examples count."""
    dtype = accumulator(jnp.float32)
    if mask is None:
        return jnp.asarray(x.shape[0], dtype)
    return jnp.sum(mask.reshape(mask.shape[0], -1).any(axis=1)).astype(dtype)


def where_counted(mask: Any, array: Any) -> Any:
    if mask is None:
        return array
    mask = mask if mask.ndim <= array.ndim else mask.any(axis=tuple(range(array.ndim, mask.ndim)))
    return jnp.where(mask.reshape(mask.shape + (1,) * (array.ndim - mask.ndim)), array, jnp.zeros((), array.dtype))
