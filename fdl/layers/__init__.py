"""The layers, one file per concept; each constructor returns a `Layer`."""

from fdl.layers._recurrent.bidirectional import bidirectional
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
from fdl.layers.avg_pool import avg_pool
from fdl.layers.batch_norm import batch_norm
from fdl.layers.center_crop import center_crop
from fdl.layers.conv import conv, depthwise_conv, separable_conv
from fdl.layers.conv_transpose import conv_transpose
from fdl.layers.dense import dense
from fdl.layers.dropout import dropout
from fdl.layers.embedding import embedding
from fdl.layers.flatten import flatten
from fdl.layers.global_avg_pool import global_avg_pool
from fdl.layers.global_max_pool import global_max_pool
from fdl.layers.glu import glu
from fdl.layers.group_norm import group_norm
from fdl.layers.gru import gru
from fdl.layers.instance_norm import instance_norm
from fdl.layers.last_step import last_step
from fdl.layers.layer_norm import layer_norm
from fdl.layers.lstm import lstm
from fdl.layers.max_pool import max_pool
from fdl.layers.prelu import prelu
from fdl.layers.random_crop import random_crop
from fdl.layers.random_flip import random_flip
from fdl.layers.random_shift import random_shift
from fdl.layers.rms_norm import rms_norm
from fdl.layers.rnn import rnn
from fdl.layers.softmax import log_softmax, softmax
from fdl.layers.sparsemax import sparsemax

__all__ = [
    "avg_pool",
    "batch_norm",
    "bidirectional",
    "celu",
    "center_crop",
    "conv",
    "conv_transpose",
    "dense",
    "depthwise_conv",
    "dropout",
    "elu",
    "embedding",
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
    "lstm",
    "max_pool",
    "mish",
    "prelu",
    "random_crop",
    "random_flip",
    "random_shift",
    "relu",
    "relu6",
    "rms_norm",
    "rnn",
    "selu",
    "separable_conv",
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
