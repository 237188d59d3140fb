"""Losses: `loss(pred, target, **options)` returns one value per example; `mean(values, weights)` makes it one number."""

from fdl.errors import refuse
from fdl.losses.mean import mean
from fdl.losses.mean_squared_error import mean_squared_error
from fdl.losses.softmax_cross_entropy import softmax_cross_entropy
from fdl.losses.softmax_cross_entropy_with_integer_labels import softmax_cross_entropy_with_integer_labels
from fdl.op import Op

__all__ = [
    "get",
    "mean",
    "mean_squared_error",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]

_BY_NAME = {
    op.name: op for op in (mean_squared_error, softmax_cross_entropy, softmax_cross_entropy_with_integer_labels)
}
_ALIASES = {"mse": "mean_squared_error"}


def get(name: str) -> Op:
    """A loss by its name or by Keras's abbreviation of it: `get("mse")`."""
    loss = _BY_NAME.get(_ALIASES.get(name, name)) if isinstance(name, str) else None
    if loss is None:
        refuse("losses.get", f"no loss {name!r}; there are {', '.join([*_BY_NAME, *_ALIASES])}")
    return loss
