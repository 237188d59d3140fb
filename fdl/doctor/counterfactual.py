"""What would happen if: short trainings of the same model, changed in one thing each, on the same batches.

    findings = fdl.doctor.diagnose(chart, counterfactual=fdl.doctor.Case(model, loss, optax.sgd, 0.1, (x, y)))
    print(findings[0])          ... [He initialisation: error at dense_0 3e-09 -> 0.02, loss after 40 steps 2.3 -> 0.41; ...]

Changes of the numbers a training starts from (initial weights, the learning rate, the scale of x) run side by side in one
vmapped program; another activation, or batch_norm before the activations, is another model and a program of its own.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.backprop import deltas, require_loss, require_model, value_and_grad
from fdl.compose import rebuilt
from fdl.doctor.finding import Finding
from fdl.doctor.watch import COMPOSITES
from fdl.errors import refuse, refuse_type, shown
from fdl.layer import Layer, Params
from fdl.layers.activations import ACTIVATIONS, relu
from fdl.layers.batch_norm import batch_norm
from fdl.op import Op

STEPS, BATCH = 40, 64


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What a training needs. optimizer: a function of the learning rate, such as optax.sgd or optax.adam.

    Given to `examine`, a case travels in the chart's static part (compared by identity), and `diagnose(chart,
    counterfactual=True)` finds it there.

        >>> model, loss = fdl.dense(2), fdl.losses.mean_squared_error
        >>> data = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
        >>> fdl.doctor.Case(model, loss, optax.sgd, 0.1, data).learning_rate  # for diagnose(chart, counterfactual=case)
        0.1
    """

    model: Layer
    loss: Op
    optimizer: Callable[[Any], Any]
    learning_rate: float
    data: tuple[Any, Any]
    steps: int = STEPS
    batch_size: int = BATCH
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """error: at the output of the first layer with weights, before the first step; loss: after the last one.

    >>> model, loss = fdl.serial(fdl.dense(2)), fdl.losses.mean_squared_error
    >>> data = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
    >>> as_is, slower = fdl.doctor.what_if(fdl.doctor.Case(model, loss, optax.sgd, 0.1, data), ["learning rate / 10"])
    >>> bool(as_is.loss < slower.loss)
    True
    """

    change: str
    error: float
    loss: float


# The changes that answer to a finding, the likeliest first.
REMEDIES = {
    "vanishing": ("He initialisation", "orthogonal initialisation", "relu", "batch_norm"),
    "exploding": ("Glorot initialisation", "orthogonal initialisation", "batch_norm", "learning rate / 10"),
    "saturated": ("Glorot initialisation", "batch_norm", "relu", "x standardized"),
    "dead_units": ("He initialisation", "learning rate / 10", "batch_norm"),
    "dead_weights": ("Glorot initialisation", "He initialisation"),
    "zero_init_symmetry": ("Glorot initialisation", "He initialisation"),
    "bad_initial_loss": ("Glorot initialisation", "He initialisation"),
    "learning_rate_too_high": ("learning rate / 10", "learning rate / 100"),
    "learning_rate_too_low": ("learning rate x 100", "learning rate x 10000"),
    "non_finite": ("learning rate / 10", "x standardized"),
    "input_not_scaled": ("x standardized", "batch_norm"),
}

_INITIALISERS = {
    "Glorot initialisation": jax.nn.initializers.glorot_uniform(),
    "He initialisation": jax.nn.initializers.he_normal(),
    "orthogonal initialisation": jax.nn.initializers.orthogonal(),
}
_RATES = {
    "learning rate / 10": 0.1,
    "learning rate / 100": 0.01,
    "learning rate x 100": 1e2,
    "learning rate x 10000": 1e4,
}
_MODELS: dict[str, Callable[[Layer], Layer]] = {
    "relu": lambda model: _replaced(model, lambda name, layer: ((name, relu()),)),
    "batch_norm": lambda model: _replaced(model, lambda name, layer: ((f"{name}_norm", batch_norm()), (name, layer))),
}
AS_IS, STANDARDIZED = "as it is", "x standardized"


def with_effects(findings: list[Finding], case: Case) -> list[Finding]:
    """The findings, those that have remedies with what each of them did."""
    wanted = dict.fromkeys(change for finding in findings for change in REMEDIES.get(finding.code, ()))
    if not wanted:
        return findings
    outcomes = {outcome.change: outcome for outcome in what_if(case, tuple(wanted))}
    before = outcomes[AS_IS]

    def effect(change: str) -> str:
        after = outcomes[change]
        return (
            f"{change}: first error {before.error:.2g} -> {after.error:.2g}, loss after {case.steps} steps {before.loss:.3g} -> "
            f"{after.loss:.3g}"
        )

    return [
        dataclasses.replace(finding, effects=tuple(effect(change) for change in REMEDIES.get(finding.code, ())))
        for finding in findings
    ]


def what_if(case: Case, changes: Sequence[str]) -> list[Outcome]:
    """The outcome as it is, then of every change.

    >>> model, loss = fdl.serial(fdl.dense(2), fdl.sigmoid(), fdl.dense(2)), fdl.losses.mean_squared_error
    >>> data = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
    >>> case = fdl.doctor.Case(model, loss, optax.sgd, 0.1, data, steps=3)
    >>> [outcome.change for outcome in fdl.doctor.what_if(case, ["relu"])]
    ['as it is', 'relu']
    """
    require_model("doctor.Case", case.model)
    require_loss("doctor.Case", case.loss, "manual")
    if not callable(case.optimizer):
        wanted = "wanted a function of the learning rate: optax.adam, or lambda rate: optax.sgd(rate, momentum=0.9)"
        refuse_type("doctor.Case", f"optimizer is {shown(case.optimizer)}, {wanted}")
    x, target = case.data
    if len(x) != len(target):
        refuse("doctor.Case", f"data holds {len(x)} examples and {len(target)} targets, wanted one target per example")
    known = (*_INITIALISERS, *_RATES, *_MODELS, STANDARDIZED)
    for change in changes:
        if change not in known:
            refuse("doctor.what_if", f"change is {change!r}, wanted one of {', '.join(known)}")
    numbers = [AS_IS, *(change for change in changes if change not in _MODELS)]
    outcomes = _side_by_side(case, case.model, numbers)
    for change in changes:
        if change in _MODELS:
            outcomes += _side_by_side(case, _MODELS[change](case.model), [change])
    order = [AS_IS, *changes]
    return sorted(outcomes, key=lambda outcome: order.index(outcome.change))


def _side_by_side(case: Case, model: Layer, changes: list[str]) -> list[Outcome]:
    x, target = jnp.asarray(case.data[0]), jnp.asarray(case.data[1])
    key = jax.random.key(case.seed)
    params, state = model.init(key, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    starts = [_redrawn(params, jax.random.fold_in(key, 1), _INITIALISERS.get(change)) for change in changes]
    rates = jnp.asarray([case.learning_rate * _RATES.get(change, 1.0) for change in changes], jnp.float32)
    shift, scale = zip(*(_scaling(x, change == STANDARDIZED) for change in changes), strict=True)
    run = _program(model, case.loss, case.optimizer, case.steps, min(case.batch_size, len(x)))
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *starts)
    errors, losses = run(stacked, rates, jnp.stack(shift), jnp.stack(scale), state, x, target, key)
    numbers = zip(changes, np.asarray(errors).tolist(), np.asarray(losses).tolist(), strict=True)
    return [Outcome(change, error, loss) for change, error, loss in numbers]


@functools.lru_cache(maxsize=32)
def _program(model: Layer, loss: Op, optimizer: Callable, steps: int, batch: int) -> Callable:
    import optax

    gradients = value_and_grad(model, loss)

    def train(params, rate, shift, scale, state, x, target, key):
        opt = optimizer(rate)
        keys = jax.random.split(key, steps + 1)
        rows = jax.vmap(lambda one: jax.random.choice(one, len(x), (batch,), replace=False))(keys)
        standard = lambda rows: ((x[rows] - shift[None]) / scale[None]).astype(x.dtype) if _real(x) else x[rows]
        own = keys[0] if model.stochastic else None
        errors = deltas(model, loss, params, state, standard(rows[0]), target[rows[0]], own)
        error = errors[next(name for name in errors if not model.names or _has(params, name))]

        def step(carry, at):
            params, state, opt_state = carry
            own = at[1] if model.stochastic else None
            (value, state), grads = gradients(params, state, standard(at[0]), target[at[0]], own)
            updates, opt_state = opt.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), state, opt_state), value

        start = (params, state, opt.init(params))
        (params, state, _), values = jax.lax.scan(step, start, (rows[1:], keys[1:]))
        return jnp.sqrt(batch * jnp.sum(error * error)), jnp.mean(values[-max(1, steps // 8) :])

    return jax.jit(jax.vmap(train, in_axes=(0, 0, 0, 0, None, None, None, None)))


def _has(params: Any, name: str) -> bool:
    for step in name.split("/"):
        if step not in params:
            return False
        params = params[step]
    return True


def _real(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _scaling(x: Any, standard: bool) -> tuple[Any, Any]:
    shape = x.shape[1:]
    if not standard or not _real(x):
        dtype = x.dtype if _real(x) else jnp.float32
        return jnp.zeros(shape, dtype), jnp.ones(shape, dtype)
    deviation = jnp.std(x, axis=0)
    return jnp.mean(x, axis=0), jnp.where(deviation > 0, deviation, jnp.ones_like(deviation))


def _redrawn(params: Params, key: Any, draw: Callable | None) -> Params:
    """The weights ("w", "u") drawn anew and the biases 0; as they are without an initialiser."""
    if draw is None:
        return params

    def fresh(path, leaf):
        name = path[-1].key
        if name in ("w", "u") and leaf.ndim > 1:
            nonlocal key
            key, own = jax.random.split(key)
            return draw(own, leaf.shape, leaf.dtype)
        return jnp.zeros_like(leaf) if name == "b" else leaf

    return jax.tree_util.tree_map_with_path(fresh, params)


def _replaced(model: Layer, by: Callable) -> Layer:
    """The model with every activation replaced by what `by` makes of (name, layer)."""
    if model.name not in COMPOSITES:
        return model
    children = []
    for name, layer in model.layers:
        if layer.layers:
            children.append((name, _replaced(layer, by)))
        else:
            children += by(name, layer) if layer.name in ACTIVATIONS else ((name, layer),)
    return rebuilt(model, tuple(children))
