"""Batch normalization (Ioffe & Szegedy 2015), all of it.

    fdl.batch_norm()                                                         the layer
    fdl.batch_norm.population_statistics(model, params, state, batches)      Algorithm 2: statistics by a pass after training
    fdl.batch_norm.fold(model, params, state)                                in use: part of the layer before it
    fdl.batch_norm.terms(params, x, dy)                                      the six backward formulas, by name

| file          | what                                                                            |
|---------------|---------------------------------------------------------------------------------|
| normalize.py  | Algorithm 1: the op on a mini-batch, its backward, the six formulas              |
| inference.py  | the op with given statistics: one affine map                                    |
| layer.py      | running averages, training and use                                              |
| population.py | Algorithm 2                                                                     |
| fold.py       | the affine map folded into a dense or convolutional layer                       |
"""

from fdl.layers.batch_norm import layer
from fdl.layers.batch_norm.fold import fold
from fdl.layers.batch_norm.inference import op as inference_op
from fdl.layers.batch_norm.normalize import op, terms
from fdl.layers.batch_norm.population import population_statistics


class _BatchNorm:
    """The constructor of the layer, with what belongs to it."""

    __name__ = "batch_norm"
    __doc__ = layer.batch_norm.__doc__
    __call__ = staticmethod(layer.batch_norm)
    fold = staticmethod(fold)
    population_statistics = staticmethod(population_statistics)
    terms = staticmethod(terms)


batch_norm = _BatchNorm()

__all__ = ["batch_norm", "inference_op", "op"]
