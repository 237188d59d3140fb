"""The table of concepts: one row per Op, with arguments that exercise every part of its backward.

Adding a layer or a loss is a file of its own and one row here; the common tests in test_concepts.py run over the table, and a
file in layers/ or losses/ without a row fails them. Sizes are distinct and odd, biases are not zero.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import fdl
from fdl.layers.activations import ACTIVATIONS
from fdl.layers.gru.layer import cell as gru_cell
from fdl.layers.lstm import cell as lstm_cell
from fdl.layers.rnn import cell as rnn_cell
from fdl.op import Op


@dataclasses.dataclass(frozen=True)
class Concept:
    """op; arguments: (key, dtype) -> its positional arguments; options: combinations to try; file: where it is defined."""

    file: str
    op: Op
    arguments: Callable[[Any, Any], tuple]
    options: tuple[dict[str, Any], ...] = ({},)

    @property
    def name(self) -> str:
        return f"{self.file}:{self.op.name}"


def normal(key: Any, shape: tuple[int, ...], dtype: Any, scale: float = 1.0) -> jax.Array:
    # drawn in float32, so that every precision sees the same numbers
    return (scale * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def away_from_kinks(key: Any, dtype: Any) -> tuple:
    """Both signs and every branch of the piecewise activations, at least 0.05 from -3, -1, 0, 1, 3 and 6."""
    grid = jnp.asarray([-7.3, -3.6, -2.1, -1.4, -0.6, -0.11, 0.13, 0.7, 1.7, 2.4, 3.9, 5.2, 6.8], jnp.float32)
    return ((grid + 0.05 * jax.random.uniform(key, grid.shape, jnp.float32)).reshape(1, -1).astype(dtype),)


def dense_arguments(key, dtype, batch=(7,)):
    k = jax.random.split(key, 3)
    return {"w": normal(k[0], (5, 3), dtype), "b": normal(k[1], (3,), dtype)}, normal(k[2], (*batch, 5), dtype)


def kernel_arguments(key, dtype, x, w, bias=True):
    k = jax.random.split(key, 3)
    params = {"w": normal(k[0], w, dtype)} | ({"b": normal(k[1], w[-1:], dtype)} if bias else {})
    return params, normal(k[2], x, dtype)


def labels(key, shape, classes):
    return jax.random.randint(key, shape, 0, classes, jnp.int32)


def distribution(key, shape, dtype):
    return jax.nn.softmax(jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def two_leaves(key, dtype):
    return ({"a": {"w": normal(key, (5, 3), dtype), "b": normal(split(key)[1], (3,), dtype)}},)


def split(key, n=2):
    return tuple(jax.random.split(key, n))


def normalization(key, dtype, shape, features, names=("scale", "shift")):
    """Parameters of these features, and x with means other than 0."""
    k = jax.random.split(key, 3)
    params = {name: 1 + normal(k[i], features, dtype) for i, name in enumerate(names)}
    return params, (1 + 2 * normal(k[2], shape, jnp.float32)).astype(dtype)


SEEN = (True, False, True, True, False, True, True)

ACTIVATION_OPTIONS = {
    "leaky_relu": ({}, {"slope": 0.3}),
    "elu": ({}, {"alpha": 0.7}),
    "celu": ({}, {"alpha": 0.7}),
    "gelu": ({}, {"approximate": True}),
    "squareplus": ({}, {"b": 1.5}),
}


def apart(key, dtype):
    """(pred, target) whose differences have both signs and stay 0.1 away from 0, +-0.8 and +-1."""
    k = jax.random.split(key, 3)
    grid = jnp.asarray([-3.1, -1.7, -0.6, -0.3, 0.2, 0.5, 1.4, 2.6], jnp.float32)
    difference = jax.random.choice(k[0], grid, (7, 3)) + 0.05 * jax.random.uniform(k[1], (7, 3), jnp.float32)
    target = normal(k[2], (7, 3), jnp.float32)
    return (target + difference).astype(dtype), target.astype(dtype)


def margins(key, dtype, labels=(-1.0, 1.0)):
    """(pred, target) of two classes, on all sides of the kinks at target * pred = -1 and 1, and 0.1 away from them."""
    k = jax.random.split(key, 3)
    grid = jnp.asarray([-2.9, -1.6, -0.4, 0.3, 0.6, 1.5, 2.4], jnp.float32)
    pred = jax.random.choice(k[0], grid, (7, 3)) + 0.05 * jax.random.uniform(k[1], (7, 3), jnp.float32)
    return pred.astype(dtype), jax.random.choice(k[2], jnp.asarray(labels, dtype), (7, 3))


def scores(key, dtype):
    """Scores [7, 5], no two of a row alike."""
    grid = jnp.tile(jnp.asarray([-1.9, -0.7, 0.4, 1.2, 2.6], jnp.float32), (7, 1))
    return jax.random.permutation(key, grid, axis=1, independent=True).astype(dtype)


def apart_cells(key, shape, dtype):
    """No two cells alike, in 16 bits too."""
    count = math.prod(shape)
    return (jax.random.permutation(key, jnp.linspace(-2, 2, count, dtype=jnp.float32)).reshape(shape)).astype(dtype)


def positive(key, shape, dtype, low=0.1):
    return (low + jnp.exp(normal(key, shape, jnp.float32))).astype(dtype)


def one_hot(key, shape, dtype):
    return jax.nn.one_hot(labels(key, shape[:-1], shape[-1]), shape[-1], dtype=dtype)


def chances(key, dtype):
    """Probabilities and soft labels, both away from 0 and 1."""
    return jax.nn.sigmoid(normal(key, (7, 3), dtype)), jax.nn.sigmoid(normal(split(key)[1], (7, 3), dtype))


def logits_and_chances(key, dtype):
    return normal(key, (7, 3), dtype, 2.0), chances(key, dtype)[1]


def masks(key, dtype):
    """Two soft masks of three examples."""
    return tuple(jax.random.uniform(k, (3, 5, 2), jnp.float32).astype(dtype) for k in split(key))


def embeddings(key, dtype, n=7):
    """Of length 0.9: nobody's similarity to itself is at the kink."""
    x = normal(key, (n, 4), jnp.float32)
    return (0.9 * x / jnp.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)


def integers(*values):
    return jnp.asarray(values, jnp.int32)


def pictures(key, dtype):
    """Seven of 5 x 4 with 2 channels, and a key."""
    return normal(key, (7, 5, 4, 2), dtype), split(key)[1]


def last_layer(key, dtype, shape):
    """x, w and targets of 11 classes."""
    k = jax.random.split(key, 3)
    return normal(k[0], (*shape, 5), dtype), normal(k[1], (5, 11), dtype), labels(k[2], shape, 11)


def sequences(cell, mask=True):
    """Parameters of a cell, x [3, 4, 2], its first state, and a mask or none."""

    def arguments(key, dtype):
        k = jax.random.split(key, 3)
        params = {
            name: normal(jax.random.fold_in(k[0], i), shape, dtype, 0.7)
            for i, (name, shape) in enumerate(cell.shapes(2, 5).items())
        }
        state = {name: normal(jax.random.fold_in(k[2], i), (3, 5), dtype, 0.5) for i, name in enumerate(cell.state)}
        seen = jnp.asarray([(1, 1, 1, 1), (1, 1, 0, 0), (0, 1, 0, 1)], jnp.bool_) if mask else None
        return params, normal(k[1], (3, 4, 2), dtype), state, seen, None

    return arguments


CONCEPTS = (
    Concept("layers/dense", fdl.ops.dense, dense_arguments),
    Concept("layers/dense", fdl.ops.dense, lambda key, dtype: dense_arguments(key, dtype, (2, 3))),
    Concept(
        "layers/dense",
        fdl.ops.dense,
        lambda key, dtype: ({"w": normal(key, (5, 3), dtype)}, normal(split(key)[1], (7, 5), dtype)),
    ),
    Concept(
        "layers/embedding",
        fdl.ops.embedding,
        lambda key, dtype: ({"w": normal(key, (11, 5), dtype)}, labels(split(key)[1], (3, 4), 11)),
    ),
    Concept(
        "layers/rnn",
        fdl.ops.rnn,
        sequences(rnn_cell("tanh")),
        ({"keep": "states", "reverse": True, "truncate": 2},),
    ),
    Concept("layers/lstm", fdl.ops.lstm, sequences(lstm_cell(True, "sigmoid", "tanh")), ({"peephole": True},)),
    *(
        Concept("layers/gru", fdl.ops.gru, sequences(gru_cell(variant, "sigmoid", None)), ({"variant": variant},))
        for variant in ("full", "reset_after")
    ),
    Concept(
        "layers/last_step",
        fdl.ops.last_step,
        lambda key, dtype: (normal(key, (3, 4, 5), dtype), jnp.arange(4)[None] < jnp.asarray([[4], [2], [0]])),
    ),
    Concept("layers/flatten", fdl.ops.flatten, lambda key, dtype: (normal(key, (3, 2, 5), dtype),)),
    Concept(
        "layers/conv",
        fdl.ops.conv,
        lambda key, dtype: kernel_arguments(key, dtype, (2, 5, 7, 4), (3, 2, 2, 6)),
        ({"groups": 2}, {"groups": 2, "strides": (2, 3), "dilation": (1, 2), "padding": ((1, 0), (2, 1))}),
    ),
    Concept(
        "layers/conv",
        fdl.ops.conv,
        lambda key, dtype: kernel_arguments(key, dtype, (3, 7, 2), (3, 2, 3), bias=False),
        ({"padding": "VALID"},),
    ),
    Concept(
        "layers/conv_transpose",
        fdl.ops.conv_transpose,
        lambda key, dtype: kernel_arguments(key, dtype, (2, 3, 4, 2), (3, 2, 2, 3)),
        ({"strides": 2},),
    ),
    Concept(
        "layers/dropout",
        fdl.ops.dropout,
        lambda key, dtype: (normal(key, (7, 5), dtype), split(key)[1]),
        ({"rate": 0.3}, {"rate": 0.0}),
    ),
    Concept("layers/random_flip", fdl.ops.random_flip, pictures, ({}, {"rate": 0.9})),
    Concept("layers/random_shift", fdl.ops.random_shift, pictures, ({"pixels": (2, 3)},)),
    Concept(
        "layers/random_crop",
        fdl.ops.random_crop,
        pictures,
        ({"size": (3, 2)}, {"size": (5, 3), "padding": (1, 0)}),
    ),
    Concept(
        "layers/center_crop", fdl.ops.center_crop, lambda key, dtype: pictures(key, dtype)[:1], ({"size": (2, 5)},)
    ),
    *(
        Concept("layers/activations", getattr(fdl.ops, name), away_from_kinks, ACTIVATION_OPTIONS.get(name, ({},)))
        for name in ACTIVATIONS
    ),
    Concept(
        "layers/prelu",
        fdl.ops.prelu,
        lambda key, dtype: ({"slope": normal(key, (5,), dtype)}, normal(split(key)[1], (7, 3, 5), dtype)),
    ),
    *(
        Concept("layers/softmax", op, lambda key, dtype: (normal(key, (7, 5), dtype),), ({}, {"axis": 0}))
        for op in (fdl.ops.softmax, fdl.ops.log_softmax)
    ),
    Concept("layers/sparsemax", fdl.ops.sparsemax, lambda key, dtype: (normal(key, (7, 5), dtype),), ({}, {"axis": 0})),
    Concept("layers/glu", fdl.ops.glu, lambda key, dtype: (normal(key, (6, 4), dtype),), ({}, {"axis": 0})),
    Concept(
        "layers/batch_norm",
        fdl.ops.batch_norm,
        lambda key, dtype: (*normalization(key, dtype, (7, 3, 2, 5), (5,)), None),
        ({}, {"fast": True, "eps": 0.1}),
    ),
    Concept(
        "layers/batch_norm",
        fdl.ops.batch_norm,
        lambda key, dtype: (*normalization(key, dtype, (7, 2, 3), (3,), ("scale",)), jnp.asarray(SEEN)),
    ),
    Concept(
        "layers/batch_norm",
        fdl.ops.batch_norm,
        lambda key, dtype: (*normalization(key, dtype, (7, 2, 3), (2, 3)), jnp.asarray(SEEN)),
        ({"per": "activation"},),
    ),
    Concept(
        "layers/batch_norm",
        fdl.ops.batch_norm_inference,
        lambda key, dtype: (
            *normalization(key, dtype, (7, 2, 5), (5,)),
            normal(split(key)[0], (5,), dtype),
            positive(split(key)[1], (5,), dtype),
        ),
    ),
    Concept(
        "layers/batch_norm",
        fdl.ops.batch_norm_inference,
        lambda key, dtype: (
            *normalization(key, dtype, (7, 2, 3), (2, 3), ("shift",)),
            normal(split(key)[0], (2, 3), dtype),
            positive(split(key)[1], (2, 3), dtype),
        ),
        ({"per": "activation"},),
    ),
    Concept(
        "layers/layer_norm",
        fdl.ops.layer_norm,
        lambda key, dtype: normalization(key, dtype, (7, 2, 5), (5,)),
        ({}, {"fast": True, "eps": 0.1}),
    ),
    Concept(
        "layers/layer_norm",
        fdl.ops.layer_norm,
        lambda key, dtype: normalization(key, dtype, (7, 2, 5), (2, 5), ("shift",)),
        ({"dims": 2},),
    ),
    Concept(
        "layers/rms_norm", fdl.ops.rms_norm, lambda key, dtype: normalization(key, dtype, (7, 2, 5), (5,), ("scale",))
    ),
    Concept(
        "layers/group_norm",
        fdl.ops.group_norm,
        lambda key, dtype: normalization(key, dtype, (5, 3, 2, 6), (6,)),
        ({"groups": 2}, {"groups": 6, "eps": 0.1, "fast": True}),
    ),
    Concept(
        "layers/instance_norm",
        fdl.ops.instance_norm,
        lambda key, dtype: normalization(key, dtype, (5, 3, 2, 3), (3,)),
    ),
    Concept(
        "layers/whiten",
        fdl.ops.whiten,
        lambda key, dtype: normalization(key, dtype, (7, 3, 3), (3,))[1:],
        ({}, {"eps": 0.1}),
    ),
    Concept(
        "layers/max_pool",
        fdl.ops.max_pool,
        lambda key, dtype: (apart_cells(key, (2, 5, 7, 3), dtype),),
        ({}, {"window": (3, 2), "strides": (2, 1), "padding": "SAME"}),
    ),
    Concept(
        "layers/avg_pool",
        fdl.ops.avg_pool,
        lambda key, dtype: (normal(key, (2, 5, 7, 3), dtype),),
        ({}, {"window": (3, 2), "strides": (2, 1), "padding": "SAME"}),
    ),
    Concept(
        "layers/global_avg_pool",
        fdl.ops.global_avg_pool,
        lambda key, dtype: (normal(key, (7, 5, 3), dtype), jnp.asarray(SEEN)[:, None] & (jnp.arange(5) != 3)[None]),
    ),
    Concept(
        "layers/global_max_pool",
        fdl.ops.global_max_pool,
        lambda key, dtype: (apart_cells(key, (3, 5, 2, 3), dtype), None),
    ),
    Concept(
        "losses/amended_cross_entropy",
        fdl.losses.amended_cross_entropy,
        lambda key, dtype: (distribution(key, (3, 4, 5), dtype), distribution(split(key)[1], (3, 5), dtype)),
        ({}, {"diversity": 0.8}),
    ),
    Concept(
        "losses/binary_crossentropy",
        fdl.losses.binary_crossentropy,
        chances,
        ({}, {"label_smoothing": 0.2, "axis": 0}),
    ),
    Concept(
        "losses/binary_crossentropy",
        fdl.losses.binary_crossentropy,
        logits_and_chances,
        ({"from_logits": True}, {"from_logits": True, "label_smoothing": 0.2, "axis": 1}),
    ),
    Concept(
        "losses/binary_focal_crossentropy",
        fdl.losses.binary_focal_crossentropy,
        chances,
        ({}, {"apply_class_balancing": True, "alpha": 0.3, "gamma": 0.7, "label_smoothing": 0.2, "axis": 0}),
    ),
    Concept(
        "losses/binary_focal_crossentropy",
        fdl.losses.binary_focal_crossentropy,
        logits_and_chances,
        (
            {"from_logits": True},
            {"from_logits": True, "apply_class_balancing": True, "gamma": 0.5, "label_smoothing": 0.1, "axis": 0},
        ),
    ),
    Concept(
        "losses/categorical_crossentropy",
        fdl.losses.categorical_crossentropy,
        lambda key, dtype: (positive(key, (7, 5), dtype), distribution(split(key)[1], (7, 5), dtype)),
        ({}, {"label_smoothing": 0.2, "axis": 0}),
    ),
    Concept(
        "losses/categorical_crossentropy",
        fdl.losses.categorical_crossentropy,
        lambda key, dtype: (normal(key, (3, 5, 2), dtype, 2.0), distribution(split(key)[1], (3, 5, 2), dtype)),
        ({"from_logits": True}, {"from_logits": True, "label_smoothing": 0.2, "axis": 1}),
    ),
    Concept(
        "losses/categorical_focal_crossentropy",
        fdl.losses.categorical_focal_crossentropy,
        lambda key, dtype: (positive(key, (7, 5), dtype), distribution(split(key)[1], (7, 5), dtype)),
        ({}, {"alpha": (0.1, 0.2, 0.3, 0.4, 0.5), "gamma": 0.7, "label_smoothing": 0.2}),
    ),
    Concept(
        "losses/categorical_focal_crossentropy",
        fdl.losses.categorical_focal_crossentropy,
        lambda key, dtype: (normal(key, (3, 5, 2), dtype, 2.0), distribution(split(key)[1], (3, 5, 2), dtype)),
        ({"from_logits": True}, {"from_logits": True, "alpha": (0.1, 0.2, 0.3, 0.4, 0.5), "gamma": 1.5, "axis": 1}),
    ),
    Concept(
        "losses/categorical_generalized_cross_entropy",
        fdl.losses.categorical_generalized_cross_entropy,
        lambda key, dtype: (distribution(key, (7, 3, 5), dtype), labels(split(key)[1], (7, 3), 5)),
        ({}, {"q": 0.8}),
    ),
    Concept(
        "losses/categorical_hinge",
        fdl.losses.categorical_hinge,
        lambda key, dtype: (scores(key, dtype), one_hot(split(key)[1], (7, 5), dtype)),
    ),
    Concept(
        "losses/categorical_hinge",
        fdl.losses.categorical_hinge,
        lambda key, dtype: (scores(key, dtype), distribution(split(key)[1], (7, 5), dtype)),
    ),
    Concept(
        "losses/circle",
        fdl.losses.circle,
        lambda key, dtype: (embeddings(key, dtype), integers(0, 1, 0, 2, 1, 2, 0), None, None),
        # with gamma 80 an exponent of 300 alone has an error of 200 eps in float32
        (
            {"gamma": 8.0},
            {"gamma": 5.0, "margin": -0.3, "remove_diagonal": False},
            {"gamma": 8.0, "stop_weights": True},
        ),
    ),
    Concept(
        "losses/circle",
        fdl.losses.circle,
        lambda key, dtype: (
            embeddings(key, dtype, 3),
            integers(0, 1, 2),
            embeddings(split(key)[1], dtype, 5),
            integers(2, 0, 1, 0, 2),
        ),
        ({"gamma": 8.0, "margin": 0.25, "remove_diagonal": False},),
    ),
    Concept(
        "losses/contrastive",
        fdl.losses.contrastive,
        lambda key, dtype: (*apart(key, dtype), jnp.asarray([1, 0, 0, 1, 0, 0, 1], jnp.int32)),
        ({}, {"margin": 4.0}),
    ),
    Concept(
        "losses/cosine_similarity",
        fdl.losses.cosine_similarity,
        lambda key, dtype: (normal(key, (7, 5), dtype), normal(split(key)[1], (7, 5), dtype)),
        ({}, {"axis": 0}),
    ),
    Concept(
        "losses/cross_entropy",
        fdl.losses.cross_entropy,
        lambda key, dtype: (distribution(key, (7, 5), dtype), distribution(split(key)[1], (7, 5), dtype)),
        ({}, {"base": 2}),
    ),
    Concept(
        "losses/ctc",
        fdl.losses.ctc,
        lambda key, dtype: (
            normal(key, (4, 7, 5), dtype),
            integers((1, 1, 2), (3, 0, 0), (0, 0, 0), (4, 2, 4)),
            None,
            None,
        ),
    ),
    Concept(
        "losses/ctc",
        fdl.losses.ctc,
        lambda key, dtype: (
            normal(key, (3, 7, 5), dtype),
            integers((1, 1, 2, 9), (3, 2, 0, 0), (-1, 0, 0, 0)),
            integers(6, 2, 7),
            integers(3, 2, 0),
        ),
    ),
    Concept(
        "losses/dice",
        fdl.losses.dice,
        masks,
        ({}, {"axis": None, "smooth": 1.0}, {"axis": 1}, {"axis": (-1, 0), "smooth": 0.3}),
    ),
    Concept("losses/euclidean_distance", fdl.losses.euclidean_distance, apart),
    Concept("losses/hinge", fdl.losses.hinge, margins),
    Concept(
        "losses/hinge",
        fdl.losses.hinge,
        lambda key, dtype: margins(key, dtype, (0.0, 1.0)),
        ({"binary_labels": True},),
    ),
    Concept("losses/huber", fdl.losses.huber, apart, ({}, {"delta": 0.8})),
    Concept(
        "losses/kl_divergence",
        fdl.losses.kl_divergence,
        lambda key, dtype: (distribution(key, (7, 5), dtype), distribution(split(key)[1], (7, 5), dtype)),
    ),
    Concept(
        "losses/linear_cross_entropy",
        fdl.losses.linear_cross_entropy,
        lambda key, dtype: (*last_layer(key, dtype, (7,)), None, None),
        ({}, {"chunk": 4}, {"chunk": 3, "label_smoothing": 0.1, "z_loss": 0.01}, {"chunk": 11, "ignore_index": 3}),
    ),
    Concept(
        "losses/linear_cross_entropy",
        fdl.losses.linear_cross_entropy,
        lambda key, dtype: (
            *last_layer(key, dtype, (2, 3)),
            normal(split(key, 5)[3], (11,), dtype),
            jnp.abs(normal(split(key, 5)[4], (2, 3), dtype)),
        ),
        ({"chunk": 4, "label_smoothing": 0.1, "z_loss": 0.01, "ignore_index": 3},),
    ),
    Concept("losses/log_cosh", fdl.losses.log_cosh, apart),
    Concept(
        "losses/mean",
        fdl.losses.mean,
        lambda key, dtype: (normal(key, (7, 3), dtype), jnp.abs(normal(split(key)[1], (7,), dtype))),
    ),
    Concept("losses/mean", fdl.losses.mean, lambda key, dtype: (normal(key, (7,), dtype), None)),
    Concept("losses/mean_absolute_error", fdl.losses.mean_absolute_error, apart),
    Concept(
        "losses/mean_absolute_percentage_error",
        fdl.losses.mean_absolute_percentage_error,
        lambda key, dtype: tuple(x - jnp.asarray(9, dtype) for x in apart(key, dtype)),  # targets below 0, away from it
    ),
    Concept(
        "losses/mean_absolute_percentage_error",
        fdl.losses.mean_absolute_percentage_error,
        lambda key, dtype: (apart(key, dtype)[0], positive(split(key)[1], (7, 3), dtype, 6.0)),
    ),
    Concept(
        "losses/mean_squared_error",
        fdl.losses.mean_squared_error,
        lambda key, dtype: (normal(key, (7, 3), dtype), normal(split(key)[1], (7, 3), dtype)),
    ),
    Concept(
        "losses/mean_squared_logarithmic_error",
        fdl.losses.mean_squared_logarithmic_error,
        lambda key, dtype: (positive(key, (7, 3), dtype, -0.6), positive(split(key)[1], (7, 3), dtype, -0.6)),
    ),
    Concept("losses/modified_huber", fdl.losses.modified_huber, margins),
    Concept(
        "losses/modified_huber",
        fdl.losses.modified_huber,
        lambda key, dtype: margins(key, dtype, (0.0, 1.0)),
        ({"binary_labels": True},),
    ),
    Concept(
        "losses/poisson",
        fdl.losses.poisson,
        lambda key, dtype: (positive(key, (7, 3), dtype), positive(split(key)[1], (7, 3), dtype)),
    ),
    Concept("losses/pseudo_huber", fdl.losses.pseudo_huber, apart, ({}, {"delta": 0.8})),
    Concept("losses/quantile", fdl.losses.quantile, apart, ({}, {"q": 0.9})),
    Concept("losses/sigmoid_binary_cross_entropy", fdl.losses.sigmoid_binary_cross_entropy, logits_and_chances),
    Concept(
        "losses/softmax_cross_entropy",
        fdl.losses.softmax_cross_entropy,
        lambda key, dtype: (normal(key, (7, 5), dtype, 2.0), distribution(split(key)[1], (7, 5), dtype)),
    ),
    Concept(
        "losses/softmax_cross_entropy_with_integer_labels",
        fdl.losses.softmax_cross_entropy_with_integer_labels,
        lambda key, dtype: (normal(key, (7, 3, 5), dtype, 2.0), labels(split(key)[1], (7, 3), 5)),
    ),
    Concept(
        "losses/sparse_categorical_crossentropy",
        fdl.losses.sparse_categorical_crossentropy,
        lambda key, dtype: (positive(key, (7, 3, 5), dtype), labels(split(key)[1], (7, 3), 5)),
        ({}, {"ignore_class": 1}),
    ),
    Concept(
        "losses/sparse_categorical_crossentropy",
        fdl.losses.sparse_categorical_crossentropy,
        lambda key, dtype: (normal(key, (3, 5, 2), dtype, 2.0), labels(split(key)[1], (3, 2), 5)),
        ({"from_logits": True, "axis": 1}, {"from_logits": True, "axis": 1, "ignore_class": 0}),
    ),
    Concept("losses/squared_hinge", fdl.losses.squared_hinge, margins),
    Concept(
        "losses/squared_hinge",
        fdl.losses.squared_hinge,
        lambda key, dtype: margins(key, dtype, (0.0, 1.0)),
        ({"binary_labels": True},),
    ),
    Concept(
        "losses/sum",
        fdl.losses.sum,
        lambda key, dtype: (normal(key, (7, 3), dtype), normal(split(key)[1], (7,), dtype)),
    ),
    Concept("losses/sum", fdl.losses.sum, lambda key, dtype: (normal(key, (7,), dtype), None)),
    Concept(
        "losses/triplet_hinge",
        fdl.losses.triplet_hinge,
        lambda key, dtype: (*apart(key, dtype), normal(split(key)[1], (7, 3), dtype)),
        ({}, {"squared": True, "margin": 0.2}),
    ),
    Concept(
        "losses/tversky",
        fdl.losses.tversky,
        masks,
        ({}, {"alpha": 0.2, "beta": 0.9, "axis": None}, {"alpha": 0.7, "beta": 0.3, "axis": (1,), "smooth": 0.5}),
    ),
    Concept(
        "losses/weighted_mean",
        fdl.losses.weighted_mean,
        lambda key, dtype: (
            normal(key, (7, 3), dtype),
            normal(split(key)[1], (7,), dtype),
            jnp.arange(21).reshape(7, 3) % 4 != 1,
        ),
    ),
    Concept(
        "losses/weighted_mean", fdl.losses.weighted_mean, lambda key, dtype: (normal(key, (7,), dtype), None, None)
    ),
    Concept("regularizers", fdl.regularizers.l1(0.3), two_leaves, ({}, {"filter": lambda path, array: path == "a/b"})),
    Concept(
        "regularizers",
        fdl.regularizers.l2(0.3),
        two_leaves,
        ({}, {"half": True}, {"filter": lambda path, array: path == "a/b"}),
    ),
    Concept("regularizers", fdl.regularizers.elastic_net(0.3, 0.2), two_leaves, ({}, {"half": True})),
    Concept("regularizers", fdl.regularizers.orthogonal(0.3), two_leaves, ({}, {"mode": "columns"})),
)
