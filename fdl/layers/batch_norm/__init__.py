"""Batch normalization (Ioffe & Szegedy 2015), all of it.

| file          | what                                                                             |
|---------------|----------------------------------------------------------------------------------|
| normalize.py  | Algorithm 1: the op on a mini-batch, its backward, the six formulas by name       |
| inference.py  | the op with given statistics: one affine map                                     |
| layer.py      | the layer: running averages, training and use                                    |
| population.py | Algorithm 2: population statistics by a pass after training                      |
| fold.py       | the affine map folded into the layer before it                                   |
"""

from fdl.layers.batch_norm.fold import fold
from fdl.layers.batch_norm.inference import op as inference_op
from fdl.layers.batch_norm.layer import batch_norm
from fdl.layers.batch_norm.normalize import op, terms
from fdl.layers.batch_norm.population import population_statistics

__all__ = ["batch_norm", "fold", "inference_op", "op", "population_statistics", "terms"]
