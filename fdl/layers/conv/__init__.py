"""Convolution.

| file            | what                                                                               |
|-----------------|------------------------------------------------------------------------------------|
| convolve.py     | the derivation, the equation, the op                                               |
| geometry.py     | which input cell meets which kernel cell for which output cell                     |
| formulations.py | patches, shifted products, cells, the library's call: ways to compute each part    |
| winograd.py     | 3x3 kernels with fewer multiplications                                             |
| choice.py       | which of them runs for which shape and platform, with the figures that decided it  |
| layer.py        | the layers `conv`, `depthwise_conv`, `separable_conv`                              |
"""

from fdl.layers.conv.convolve import op
from fdl.layers.conv.layer import conv, depthwise_conv, separable_conv

__all__ = ["conv", "depthwise_conv", "op", "separable_conv"]
