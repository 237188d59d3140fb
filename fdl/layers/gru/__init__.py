"""The gated recurrent unit and its relatives, one file per form of the update, all run by _recurrent/engine.py.

| variant                          | file                | update                                             |
|----------------------------------|---------------------|----------------------------------------------------|
| full, type1, type2, type3        | gated.py            | the reset before the product (Cho et al. 2014)     |
| mgu, mgu1, mgu2, mgu3            | gated.py            | one gate that resets and updates                   |
| reset_after                      | reset_after.py      | the reset after the product (cuDNN, PyTorch, Keras) |
| ligru                            | light.py            | no reset, a rectified candidate                    |
| libru, libru_log, libru_softplus | bayesian.py         | probabilities, and their logarithms                |
| caru, caru_tanh                  | content_adaptive.py | the content scales the update                      |
"""

from fdl.layers.gru.layer import gru, op

__all__ = ["gru", "op"]
