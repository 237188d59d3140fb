"""Weights from and to the layouts of PyTorch, Keras, Flax and Equinox: NumPy arrays in, NumPy arrays out, none of them imported.

    params = fdl.convert.gru(torch_gru.state_dict(), source="torch", target="fdl")

| layout        | what holds the weights                                                                            |
|---------------|---------------------------------------------------------------------------------------------------|
| fdl           | `params`; {"forward", "backward"} of bidirectional; {"gru_0": ..., "gru_1": ...} of serial          |
| torch         | `state_dict()`, without the prefix of the module: weight_ih_l0, weight_ih_l0_reverse, ...           |
| torch_cell    | `state_dict()` of GRUCell, LSTMCell and RNNCell: weight_ih, ...                                     |
| keras         | `layer.get_weights()`, of Bidirectional too; a list of them for several layers                      |
| flax          | `variables["params"]` of a linen cell, of its RNN or of Bidirectional; a list of them               |
| nnx           | `nnx.to_pure_dict(nnx.state(cell, nnx.Param))`, likewise                                            |
| nnx_optimized | the same of nnx.OptimizedLSTMCell                                                                   |
| equinox       | {"weight_ih": cell.weight_ih, ...}; {"forward", "backward"} of two; a list of them                  |

A layout is one row of a table (gru.py, lstm.py, rnn.py, feedforward.py) that says where each block sits: the blocks are read out
of one and written into another. What the target cannot hold is refused, not dropped. The arrays that come out have the dtype
of those that went in and memory of their own.
"""

from fdl.convert.feedforward import batch_norm, conv, dense, embedding, group_norm, layer_norm, rms_norm
from fdl.convert.gru import gru
from fdl.convert.lstm import lstm
from fdl.convert.rnn import rnn

__all__ = ["batch_norm", "conv", "dense", "embedding", "group_norm", "gru", "layer_norm", "lstm", "rms_norm", "rnn"]
