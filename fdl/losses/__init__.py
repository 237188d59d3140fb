"""Losses: `loss(pred, target, **options)` returns one value per example; `mean(values, weights)` makes it one number.

So do `sum(values, weights)` and `weighted_mean(values, weights, mask)`, which divides by the number of examples.
"""

from fdl.errors import refuse
from fdl.losses.amended_cross_entropy import amended_cross_entropy
from fdl.losses.binary_crossentropy import binary_crossentropy
from fdl.losses.binary_focal_crossentropy import binary_focal_crossentropy
from fdl.losses.categorical_crossentropy import categorical_crossentropy
from fdl.losses.categorical_focal_crossentropy import categorical_focal_crossentropy
from fdl.losses.categorical_generalized_cross_entropy import categorical_generalized_cross_entropy
from fdl.losses.categorical_hinge import categorical_hinge
from fdl.losses.circle import circle
from fdl.losses.contrastive import contrastive
from fdl.losses.cosine_similarity import cosine_similarity
from fdl.losses.cross_entropy import cross_entropy
from fdl.losses.ctc import ctc
from fdl.losses.dice import dice
from fdl.losses.euclidean_distance import euclidean_distance
from fdl.losses.hinge import hinge
from fdl.losses.huber import huber
from fdl.losses.kl_divergence import kl_divergence
from fdl.losses.linear_cross_entropy import linear_cross_entropy
from fdl.losses.log_cosh import log_cosh
from fdl.losses.mean import mean
from fdl.losses.mean_absolute_error import mean_absolute_error
from fdl.losses.mean_absolute_percentage_error import mean_absolute_percentage_error
from fdl.losses.mean_squared_error import mean_squared_error
from fdl.losses.mean_squared_logarithmic_error import mean_squared_logarithmic_error
from fdl.losses.modified_huber import modified_huber
from fdl.losses.poisson import poisson
from fdl.losses.pseudo_huber import pseudo_huber
from fdl.losses.quantile import quantile
from fdl.losses.sigmoid_binary_cross_entropy import sigmoid_binary_cross_entropy
from fdl.losses.softmax_cross_entropy import softmax_cross_entropy
from fdl.losses.softmax_cross_entropy_with_integer_labels import softmax_cross_entropy_with_integer_labels
from fdl.losses.sparse_categorical_crossentropy import sparse_categorical_crossentropy
from fdl.losses.squared_hinge import squared_hinge
from fdl.losses.sum import sum
from fdl.losses.triplet_hinge import triplet_hinge
from fdl.losses.tversky import tversky
from fdl.losses.weighted_mean import weighted_mean
from fdl.op import Op

__all__ = [
    "amended_cross_entropy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "categorical_hinge",
    "circle",
    "contrastive",
    "cosine_similarity",
    "cross_entropy",
    "ctc",
    "dice",
    "euclidean_distance",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "linear_cross_entropy",
    "log_cosh",
    "mean",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "modified_huber",
    "poisson",
    "pseudo_huber",
    "quantile",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "sparse_categorical_crossentropy",
    "squared_hinge",
    "sum",
    "triplet_hinge",
    "tversky",
    "weighted_mean",
]

_BY_NAME = {
    op.name: op
    for op in (
        amended_cross_entropy,
        binary_crossentropy,
        binary_focal_crossentropy,
        categorical_crossentropy,
        categorical_focal_crossentropy,
        categorical_generalized_cross_entropy,
        categorical_hinge,
        circle,
        contrastive,
        cosine_similarity,
        cross_entropy,
        ctc,
        dice,
        euclidean_distance,
        hinge,
        huber,
        kl_divergence,
        linear_cross_entropy,
        log_cosh,
        mean_absolute_error,
        mean_absolute_percentage_error,
        mean_squared_error,
        mean_squared_logarithmic_error,
        modified_huber,
        poisson,
        pseudo_huber,
        quantile,
        sigmoid_binary_cross_entropy,
        softmax_cross_entropy,
        softmax_cross_entropy_with_integer_labels,
        sparse_categorical_crossentropy,
        squared_hinge,
        triplet_hinge,
        tversky,
    )
}
_ABBREVIATIONS = {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}
# Keras takes them in capitals too, and the names of its classes: MeanSquaredError
_ALIASES = {name.title().replace("_", ""): name for name in _BY_NAME}
_ALIASES |= {"KLDivergence": "kl_divergence", "CTC": "ctc"}
_ALIASES |= _ABBREVIATIONS | {short.upper(): name for short, name in _ABBREVIATIONS.items()}


def get(name: str) -> Op:
    """A loss by its name or by Keras's abbreviation of it: `get("mse")`.

    >>> fdl.losses.get("mse")
    Op(mean_squared_error)
    """
    loss = _BY_NAME.get(_ALIASES.get(name, name)) if isinstance(name, str) else None
    if loss is None:
        refuse("losses.get", f"no loss {name!r}; there are {', '.join([*_BY_NAME, *_ABBREVIATIONS])}")
    return loss
