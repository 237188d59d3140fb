"""fdl: deep learning in JAX with every backward pass written by hand, proven equal to `jax.grad`, visible and fast.

This file is the map; nothing is defined here. What a model does not need in order to be written and differentiated (`fdl.check`,
`fdl.convert`, `fdl.data`, `fdl.doctor`, `fdl.export`, `fdl.train`) is imported when first asked for.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from fdl import backprop, losses, ops, regularizers
from fdl.compose import parallel, residual, serial
from fdl.layer import Layer
from fdl.layers import (
    avg_pool,
    batch_norm,
    bidirectional,
    celu,
    center_crop,
    conv,
    conv_transpose,
    dense,
    depthwise_conv,
    dropout,
    elu,
    embedding,
    flatten,
    gelu,
    global_avg_pool,
    global_max_pool,
    glu,
    group_norm,
    gru,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    instance_norm,
    last_step,
    layer_norm,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    lstm,
    max_pool,
    mish,
    prelu,
    random_crop,
    random_flip,
    random_shift,
    relu,
    relu6,
    rms_norm,
    rnn,
    selu,
    separable_conv,
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

if TYPE_CHECKING:
    from fdl import check, convert, data, doctor, export, train

__version__ = "0.1.0"

__all__ = [
    "Layer",
    "Op",
    "Static",
    "avg_pool",
    "backprop",
    "batch_norm",
    "bidirectional",
    "celu",
    "center_crop",
    "check",
    "conv",
    "conv_transpose",
    "convert",
    "data",
    "dense",
    "depthwise_conv",
    "doctor",
    "dropout",
    "elu",
    "embedding",
    "export",
    "flatten",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "glu",
    "group_norm",
    "gru",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "instance_norm",
    "last_step",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "losses",
    "lstm",
    "max_pool",
    "mish",
    "ops",
    "parallel",
    "prelu",
    "regularizers",
    "random_crop",
    "random_flip",
    "random_shift",
    "relu",
    "relu6",
    "residual",
    "rms_norm",
    "rnn",
    "selu",
    "separable_conv",
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


def __getattr__(name: str) -> ModuleType:
    if name in ("check", "convert", "data", "doctor", "export", "train"):
        return importlib.import_module(f"fdl.{name}")
    raise AttributeError(f"module 'fdl' has no attribute {name!r}")
