"""fdl: deep learning in JAX with every backward pass written by hand, proven equal to `jax.grad`, visible and fast.

This file is the map; nothing is defined here.
"""

from fdl import backprop, check, data, losses, ops, regularizers, train
from fdl.compose import parallel, residual, serial
from fdl.layer import Layer
from fdl.layers import (
    celu,
    dense,
    dropout,
    elu,
    flatten,
    gelu,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    sparse_plus,
    sparsemax,
    squareplus,
    tanh,
)
from fdl.op import Op, Static
from fdl.summary import summary

__version__ = "0.1.0"

__all__ = [
    "Layer",
    "Op",
    "Static",
    "backprop",
    "celu",
    "check",
    "data",
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
    "losses",
    "mish",
    "ops",
    "parallel",
    "prelu",
    "regularizers",
    "relu",
    "relu6",
    "residual",
    "selu",
    "serial",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparsemax",
    "squareplus",
    "summary",
    "tanh",
    "train",
]
