"""Penalties on the parameters: `penalty(params) -> scalar`, an Op whose backward is written by hand.

    penalty = fdl.regularizers.l2(1e-4)
    value = penalty(params)
    value, residuals = penalty.forward(params)
    (dparams,) = penalty.backward(residuals, jnp.float32(1))

By default they see arrays of rank 2 and more: weights, but neither biases nor the scale and shift of a normalization. A
filter `(path, array) -> bool`, with paths like "dense_0/w", chooses others; one that matches nothing is an error.

| name                              | what                                        | as a prior      |
|-----------------------------------|---------------------------------------------|-----------------|
| `l1(strength)`                    | strength sum abs(w)                         | Laplace         |
| `l2(strength, half=False)`        | strength sum w^2, or half of it             | Gaussian        |
| `elastic_net(l1, l2, half=False)` | the sum of both                             | their product   |
| `orthogonal(strength, mode)`      | strength mean abs(cosine) of rows or columns|                 |
| `scheduled(l2, schedule)`         | a penalty whose strength follows the step, in the optimizer   |
| `proximal_l1(strength, learning_rate)` | the step that makes weights exactly 0, in the optimizer  |
| `mask`, `sparsity`                | what a filter chooses, the share of exact zeros in it         |
"""

from fdl.regularizers._chosen import mask, sparsity, weights_only
from fdl.regularizers.elastic_net import elastic_net
from fdl.regularizers.l1 import l1
from fdl.regularizers.l2 import l2
from fdl.regularizers.orthogonal import orthogonal
from fdl.regularizers.proximal_l1 import proximal_l1, soft_threshold
from fdl.regularizers.scheduled import scheduled

__all__ = [
    "elastic_net",
    "l1",
    "l2",
    "mask",
    "orthogonal",
    "proximal_l1",
    "scheduled",
    "soft_threshold",
    "sparsity",
    "weights_only",
]
