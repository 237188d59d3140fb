"""The layers, one file per concept; each constructor returns a `Layer`."""

from fdl.layers.activations import (
    celu,
    elu,
    gelu,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
    sparse_plus,
    squareplus,
    tanh,
)
from fdl.layers.dense import dense
from fdl.layers.dropout import dropout
from fdl.layers.flatten import flatten
from fdl.layers.glu import glu
from fdl.layers.prelu import prelu
from fdl.layers.softmax import log_softmax, softmax
from fdl.layers.sparsemax import sparsemax

__all__ = [
    "celu",
    "dense",
    "dropout",
    "elu",
    "flatten",
    "gelu",
    "glu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparsemax",
    "squareplus",
    "tanh",
]
