"""Algorithm 2, steps 8 to 10: the statistics of the population, averaged over training mini-batches after training.

    E[x] = E_B[mean_B]          Var[x] = m/(m - 1) E_B[var_B]

The running averages follow weights that still move; here all batches see the final ones. Batches of unequal size count by
their size.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.compose import rebuilt
from fdl.errors import refuse, refuse_type, shown
from fdl.layer import Layer, Params, State
from fdl.layers.batch_norm.layer import with_momentum


def population_statistics(
    model: Layer, params: Params, state: State, batches: Iterable[Any], *, key: Any = None
) -> State:
    """The state in which every batch_norm of the model has the statistics of these batches of inputs.

    All layers run as in training (the paper's mini-batch statistics); a stochastic model takes a key. The rest of the state
    stays as it is. Errors: InputError for a model without batch_norm, or for no batches.
    """
    where = "batch_norm.population_statistics"
    if not isinstance(model, Layer):
        refuse_type(where, f"model is {shown(model)}, wanted an fdl.Layer")
    if not _count(model):
        refuse(where, f"{model!r} has no batch_norm layer")
    if not isinstance(batches, Iterable):
        refuse_type(where, f"batches is {shown(batches)}, wanted an iterable of inputs such as [x[:100], x[100:200]]")

    forgetful = _forgetful(model)

    @jax.jit
    def of_batch(x, key):
        # averages that keep nothing are the batch's own statistics
        return forgetful.apply(params, _each(model, state, _empty), x, train=True, key=key)[1]

    total, seen = None, 0
    for index, x in enumerate(batches):
        own, size = None if key is None else jax.random.fold_in(key, index), len(x)
        found = _times(of_batch(x, own), size)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        seen += size
    if total is None:
        refuse(where, "got no batches, wanted an iterable of inputs such as [x[:100], x[100:200]]")

    def of_all(_: State, found: State) -> State:
        if not float(found["weight"]) > 0:
            refuse(
                where, "no batch has two entries of a feature, of which a variance could be taken; use larger batches"
            )
        return found

    return _each(model, state, of_all, _times(total, 1 / seen))


def _times(state: State, factor: float) -> State:
    return jax.tree.map(lambda x: x * factor, state)


def _count(model: Layer) -> int:
    return sum(layer.name == "batch_norm" for _, layer in model.leaves or (("", model),))


def _forgetful(model: Layer) -> Layer:
    """The model with momentum 0 in every batch_norm: at 1 the averages would see nothing."""
    if not model.layers:
        return with_momentum(model, 0.0) if model.name == "batch_norm" else model
    return rebuilt(model, tuple((name, _forgetful(layer)) for name, layer in model.layers)) if _count(model) else model


def _empty(kept: State) -> State:
    return jax.tree.map(jnp.zeros_like, kept)


def _each(model: Layer, state: State, change: Any, *others: State) -> State:
    """The state with `change` applied to that of every batch_norm."""
    if not model.layers:
        return change(state, *others) if model.name == "batch_norm" else state
    inner = dict(model.layers)
    return {name: _each(inner[name], kept, change, *(other[name] for other in others)) for name, kept in state.items()}
