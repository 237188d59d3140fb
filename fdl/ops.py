"""The map of all Ops by name: `fdl.ops.dense(params, x)`, `fdl.ops.gelu(x, approximate=True)`, ..."""

from fdl.layers.activations import OPS as _ACTIVATIONS
from fdl.layers.dense import op as dense
from fdl.layers.dropout import op as dropout
from fdl.layers.flatten import op as flatten
