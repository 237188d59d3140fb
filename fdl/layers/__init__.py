"""The layers, one file per concept; each constructor returns a `Layer`."""

from fdl.layers.dense import dense
from fdl.layers.dropout import dropout
from fdl.layers.flatten import flatten

__all__ = ["dense", "dropout", "flatten"]
