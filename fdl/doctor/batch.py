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


def chance_loss(loss: Op, y: Any, target: Any, mask: Any = None) -> Any:
    """What a model pays that knows nothing: log V, log 2, or the variance of the target; NaN for other losses."""
    dtype = accumulator(y.dtype)
    if loss.name in _OF_CLASSES:
        return jnp.asarray(math.log(y.shape[-1]), dtype)
    if loss.name in _OF_TWO:
        return jnp.asarray(math.log(2), dtype)
    if loss.name == "mean_squared_error":
        where = None if mask is None else jnp.broadcast_to(_lined_up(mask, target), target.shape)
        return jnp.mean(jnp.var(target.astype(dtype), axis=0, where=where))
    return jnp.asarray(jnp.nan, dtype)


def input_facts(x: Any, mask: Any = None) -> dict[str, Any]:
    """input_rms, feature_rms and feature, constant_features and constant_feature; nothing of tokens."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        nothing, none = jnp.full((), jnp.nan), jnp.full((), -1)
        names = {"input_rms": nothing, "feature_rms": nothing, "feature": none}
        return names | {"constant_features": jnp.zeros((), int), "constant_feature": none}
    rows = where_counted(mask, x).reshape(x.shape[0], -1).astype(accumulator(x.dtype))  # [N, features]
    if mask is None:
        counts, high, low = jnp.full(rows.shape[1], rows.shape[0]), jnp.max(rows, axis=0), jnp.min(rows, axis=0)
    else:
        counts = jnp.sum(jnp.broadcast_to(_lined_up(mask, x), x.shape).reshape(rows.shape), axis=0)
        high, low = (
            end(counted_only(mask, x, fill).reshape(rows.shape).astype(rows.dtype), axis=0)
            for end, fill in ((jnp.max, -jnp.inf), (jnp.min, jnp.inf))
        )
    squares = jnp.sum(rows * rows, axis=0)
    mean_square = squares / jnp.maximum(counts, 1).astype(rows.dtype)
    same = (high == low) & (counts > 1)
    # blank: 0, and the least value of all where other features have it too, as pixels do after one shift of them all
    least = jnp.min(low)
    shared = jnp.any(~same & (low == least))
    constant = same & (high != 0) & ~(shared & (low == least))
    return {
        "input_rms": jnp.sqrt(jnp.sum(squares) / jnp.sum(counts).astype(rows.dtype)),
        "feature_rms": jnp.sqrt(jnp.max(mean_square)),
        "feature": jnp.argmax(mean_square),
        "constant_features": jnp.sum(constant),
        "constant_feature": jnp.where(jnp.any(constant), jnp.argmax(constant), -1),
    }


def label_facts(y: Any, target: Any, mask: Any = None) -> dict[str, Any]:
    """label_share, label_classes, label_entropy, label_outside; of a real target only whether it is constant."""
    dtype = accumulator(y.dtype)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        first = target[:1] if mask is None else target[jnp.argmax(_of_examples(mask))][None]
        constant = jnp.all(counted_only(mask, target == first, True)).astype(dtype)
        unknown = jnp.full((), jnp.nan, dtype)
        share = jnp.where(constant > 0, constant, unknown)
        return {"label_share": share, "label_classes": -1, "label_entropy": unknown, "label_outside": 0}
    labels = indices(target)
    counted = jnp.ones(labels.shape, bool) if mask is None else jnp.broadcast_to(_lined_up(mask, labels), labels.shape)
    labels, counted, total = labels.reshape(-1), counted.reshape(-1), jnp.sum(counted)
    classes = max(y.shape[-1], 2)
    hits = labels[:, None] == jnp.arange(classes, dtype=labels.dtype)[None]
    counts = jnp.sum(hits & counted[:, None], axis=0)  # [V]
    shares = counts.astype(dtype) / total.astype(dtype)
    logs = jnp.log(jnp.where(shares > 0, shares, jnp.ones_like(shares)))
    return {
        "label_share": jnp.max(shares),
        "label_classes": jnp.sum(counts > 0),
        "label_entropy": -jnp.sum(shares * logs),
        "label_outside": total - jnp.sum(counts),
    }


def output_facts(y: Any, mask: Any = None) -> dict[str, Any]:
    """unit_rows and outside_unit: are these probabilities?"""
    wide = y.astype(accumulator(y.dtype))
    outside = ~((wide >= 0) & (wide <= 1))  # NaN too
    off = jnp.abs(jnp.sum(wide, axis=-1) - 1) > 1e-2  # the rounding of a 16-bit softmax over 1000 classes
    rows = ~(off | jnp.any(outside, axis=-1))
    where = lambda a: None if mask is None else jnp.broadcast_to(_lined_up(mask, a), a.shape)
    shares = [jnp.mean(a, dtype=wide.dtype, where=where(a)) for a in (rows, outside)]
    return {"unit_rows": shares[0], "outside_unit": shares[1]}


def count(x: Any, mask: Any) -> Any:
    """How many examples count."""
    dtype = accumulator(jnp.float32)
    if mask is None:
        return jnp.asarray(x.shape[0], dtype)
    return jnp.sum(_of_examples(mask)).astype(dtype)


def where_counted(mask: Any, array: Any) -> Any:
    return counted_only(mask, array, 0)


def counted_only(mask: Any, array: Any, fill: Any) -> Any:
    """The array, with `fill` in place of what is masked."""
    if mask is None:
        return array
    return jnp.where(_lined_up(mask, array), array, jnp.asarray(fill, array.dtype))


def counted_places(mask: Any, array: Any) -> Any:
    """The mask over the leading axes that it shares with an array: [N, T], or [N] behind a layer that ended the sequence."""
    return mask if mask.shape == array.shape[: mask.ndim] else _of_examples(mask)


def _of_examples(mask: Any) -> Any:
    return mask.reshape(mask.shape[0], -1).any(axis=1)


def _lined_up(mask: Any, array: Any) -> Any:
    mask = counted_places(mask, array)
    return mask.reshape(mask.shape + (1,) * (array.ndim - mask.ndim))
