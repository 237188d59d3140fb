"""What a callback of `fit` receives between two calls of the compiled loop."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Event:
    """The end of an epoch. params, state: numpy, copied from the device when they are asked for, while the callback runs: the next
    step takes their place.

        >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        >>> mse, sgd, said = fdl.losses.mean_squared_error, optax.sgd(0.1), []
        >>> common = {"key": jax.random.key(0), "epochs": 3, "progress": False}
        >>> _ = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), callbacks=(lambda event: said.append(event.epoch),), **common)
        >>> said
        [1, 2, 3]
    """

    epoch: int  # from 1
    step: int  # updates since the start of the run
    figures: dict[str, float]  # loss, valid_loss, ... of this epoch
    seconds: float  # since the start of this call of fit
    on_device: Any = dataclasses.field(repr=False, compare=False)  # (params, state)

    @functools.cached_property
    def params(self) -> Any:
        return jax.tree.map(np.asarray, self.on_device[0])

    @functools.cached_property
    def state(self) -> Any:
        return jax.tree.map(np.asarray, self.on_device[1])
