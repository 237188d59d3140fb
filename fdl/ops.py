"""The map of all Ops by name: `fdl.ops.dense(params, x)`, `fdl.ops.gelu(x, approximate=True)`, ..."""

from fdl.layers.activations import OPS as _ACTIVATIONS
from fdl.layers.avg_pool import op as avg_pool
from fdl.layers.batch_norm import inference_op as batch_norm_inference
from fdl.layers.batch_norm import op as batch_norm
from fdl.layers.center_crop import op as center_crop
from fdl.layers.conv import op as conv
from fdl.layers.conv_transpose import op as conv_transpose
from fdl.layers.dense import op as dense
from fdl.layers.dropout import op as dropout
from fdl.layers.embedding import op as embedding
from fdl.layers.flatten import op as flatten
from fdl.layers.global_avg_pool import op as global_avg_pool
from fdl.layers.global_max_pool import op as global_max_pool
from fdl.layers.glu import op as glu
from fdl.layers.group_norm import op as group_norm
from fdl.layers.gru import op as gru
from fdl.layers.instance_norm import op as instance_norm
from fdl.layers.last_step import op as last_step
from fdl.layers.layer_norm import op as layer_norm
from fdl.layers.lstm import op as lstm
from fdl.layers.max_pool import op as max_pool
from fdl.layers.prelu import op as prelu
from fdl.layers.random_crop import op as random_crop
from fdl.layers.random_flip import op as random_flip
from fdl.layers.random_shift import op as random_shift
from fdl.layers.rms_norm import op as rms_norm
from fdl.layers.rnn import op as rnn
from fdl.layers.softmax import log_op as log_softmax
from fdl.layers.softmax import op as softmax
from fdl.layers.sparsemax import op as sparsemax
from fdl.layers.whiten import op as whiten

celu = _ACTIVATIONS["celu"]
elu = _ACTIVATIONS["elu"]
gelu = _ACTIVATIONS["gelu"]
hard_sigmoid = _ACTIVATIONS["hard_sigmoid"]
hard_silu = _ACTIVATIONS["hard_silu"]
hard_tanh = _ACTIVATIONS["hard_tanh"]
leaky_relu = _ACTIVATIONS["leaky_relu"]
log_sigmoid = _ACTIVATIONS["log_sigmoid"]
mish = _ACTIVATIONS["mish"]
relu = _ACTIVATIONS["relu"]
relu6 = _ACTIVATIONS["relu6"]
selu = _ACTIVATIONS["selu"]
sigmoid = _ACTIVATIONS["sigmoid"]
silu = _ACTIVATIONS["silu"]
softplus = _ACTIVATIONS["softplus"]
softsign = _ACTIVATIONS["softsign"]
sparse_plus = _ACTIVATIONS["sparse_plus"]
squareplus = _ACTIVATIONS["squareplus"]
tanh = _ACTIVATIONS["tanh"]

__all__ = [
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "celu",
    "center_crop",
    "conv",
    "conv_transpose",
    "dense",
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
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparsemax",
    "squareplus",
    "tanh",
    "whiten",
]
