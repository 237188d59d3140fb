"""fdl: deep learning in JAX with every backward pass written by hand, proven equal to `jax.grad`, visible and fast.

This file is the map; nothing is defined here.
"""

from fdl import backprop, check, data, losses, ops, regularizers, train
from fdl.compose import parallel, residual, serial
from fdl.layer import Layer
from fdl.layers import *  # noqa: F403
from fdl.layers import __all__ as _layers
from fdl.op import Op, Static
from fdl.summary import summary

__version__ = "0.1.0"

__all__ = [
    "Layer",
    "Op",
    "Static",
    "backprop",
    "check",
    "data",
    "losses",
    "ops",
    "parallel",
    "regularizers",
    "residual",
    "serial",
    "summary",
    "train",
    *_layers,
]
