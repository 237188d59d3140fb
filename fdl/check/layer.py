"""Is a whole Layer right? Its two ways backward against `jax.grad` of its plain equation, leaf by leaf.

apply      jax.vjp of model.apply: every op through its custom_vjp
backward   model.forward and model.backward: backprop by hand, no autodiff inside
backprop   with a loss: fdl.backprop.value_and_grad, from the mean loss back to the parameters
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl import backprop
from fdl.check.evaluate import native_precision
from fdl.check.gradients import gradients, require_modes, seed_of
from fdl.check.ledger import Ledger
from fdl.check.report import Report
from fdl.check.subject import Differentiated, Layout, Result, layout_of, parted
from fdl.check.trial import Trial, report_of
from fdl.errors import refuse, refuse_type, require_array, shown
from fdl.layer import Layer, Pass
from fdl.losses.mean import mean
from fdl.op import Op


def layer(
    model: Layer,
    x: Any,
    target: Any = None,
    loss: Op | None = None,
    train: bool = True,
    key: Any = 0,
    *,
    modes: str = "default",
) -> Report:
    """Checks the gradients of a Layer with respect to its parameters and its input.

    x: a batch. Parameters and state are drawn here: initialised, then moved at random, for a bias of zero or a scale of one
    hides a backward that forgets it. State is passed on and compared, not differentiated. target, loss: with them, the
    gradients of the mean loss by `fdl.backprop.value_and_grad` are checked too. key: seeds parameters, cotangents, dropout.
    Errors: InputError, InputTypeError, and whatever the layer's equation raises.

        >>> fdl.check.layer(fdl.tanh(), jnp.float32([[0.5, -2]]), modes="quick").verdict
        'right'
    """
    where = "check.layer"
    if not isinstance(model, Layer):
        refuse_type(where, f"model is {shown(model)}, wanted a Layer; fdl.check.gradients checks functions and Ops")
    require_modes(where, modes)
    require_array(where, "x", x)
    if x.ndim == 0:
        refuse(where, "x has shape [], wanted a batch axis first: x[None] makes a batch of one")
    if (target is None) != (loss is None):
        refuse(where, f"{'target' if target is None else 'loss'} is missing; the gradient of the cost takes both")
    seed = seed_of(where, key)
    rng = np.random.default_rng([*seed, 1])
    with native_precision([x]).scope():
        keys = jax.random.split(jax.random.key(seed[-1]))
        params, state = model.init(keys[0], jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        params, state = jax.tree.map(lambda leaf: _moved(leaf, rng), (params, state))
    key_of_draws = keys[1] if train and model.stochastic else None

    ledger = Ledger()
    args = (params, state, x, key_of_draws)
    layout = layout_of(where, ("params", "state", "x", "key"), args, frozen=("state",))
    if not layout.active:
        refuse(where, f"nothing to differentiate: {model.name} has no parameters and x is {shown(x)}")
    trials = [_of_model(model, bool(train), layout, args, modes, seed, ledger)]
    if loss is not None and jax.tree.leaves(params):
        trials.append(_of_cost(where, model, loss, bool(train), (*args, target), modes, seed, ledger))
    return report_of(model.name, "its equation", trials)


def report_on(
    candidate: Any,
    *args: Any,
    reference: Callable | None = None,
    options: Mapping[str, Any] | None = None,
    modes: str = "default",
    key: Any = 0,
) -> Report:
    """`layer` of a Layer, whose target, loss and train may be given as options; `gradients` of everything else."""
    if not isinstance(candidate, Layer):
        return gradients(candidate, *args, reference=reference, options=options, modes=modes, key=key)
    where, options = "check.layer", dict(options or {})
    if reference is not None:
        refuse(where, f"reference is given; the layer {candidate.name} is held against its own equation, leave it out")
    if not 1 <= len(args) <= 3:
        refuse(where, f"got {len(args)} arguments for the layer {candidate.name}, wanted x, or x, target and loss")
    taken = ("target", "loss")[: len(args) - 1]
    if unknown := sorted(options.keys() - {"target", "loss", "train"} | options.keys() & set(taken)):
        refuse(where, f"got the option {unknown[0]}, wanted target, loss or train, each once")
    return layer(candidate, *args, **options, key=key, modes=modes)


def autodiff_of(model: Layer) -> Layer:
    """The layer that computes the same equation, differentiated by JAX whichever way it is walked."""

    def run(walk: Pass, params: Any, state: Any, x: Any) -> tuple[Any, Any, Any]:
        def plain(params, x):
            y, new_state, _ = model._run(dataclasses.replace(walk, evaluate=_plainly), params, state, x)
            return y, new_state

        y, pull, new_state = jax.vjp(plain, params, x, has_aux=True)
        return y, new_state, pull

    return Layer(model.name, init=model._init, run=run, backward=lambda pull, dy: pull(dy), stochastic=model.stochastic)


def _of_model(
    model: Layer, train: bool, layout: Layout, args: tuple, modes: str, seed: list[int], ledger: Ledger
) -> Trial:
    active, leaves = layout.split(args)
    candidates = {
        "apply": Differentiated(_walk(model.apply, train), layout, with_aux=True),
        "backward": _ByHand(model, train, layout),
    }
    reference = Differentiated(_walk(model.equation, train), layout, with_aux=True)
    roots = ("output", "state")
    return Trial(
        reference, candidates, layout, active, (leaves, {}), modes=modes, seed=seed, roots=roots, ledger=ledger
    )


def _walk(verb: Callable, train: bool) -> Callable:
    return lambda params, state, x, key: verb(params, state, x, train=train, key=key)


@dataclasses.dataclass(frozen=True, eq=False)
class _ByHand:
    """`model.forward` and `model.backward`, as a subject."""

    model: Layer
    train: bool
    layout: Layout

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        params, state, x, key = self.layout.join(active, fixed[0])
        y, new_state, residuals = self.model.forward(params, state, x, train=self.train, key=key)
        leaves, structure = jax.tree.flatten(y)
        dy = jax.tree.unflatten(structure, [a.astype(b.dtype) for a, b in zip(w, leaves, strict=True)])
        dparams, dx = self.model.backward(residuals, dy)
        nothing = jax.tree.map(lambda _: None, state)
        floats, others = parted((y, new_state))
        return Result(floats, others, self.layout.gradients((dparams, nothing, dx, None)))


def _of_cost(
    where: str, model: Layer, loss: Op, train: bool, args: tuple, modes: str, seed: list[int], ledger: Ledger
) -> Trial:
    names = ("params", "state", "x", "key", "target")
    layout = layout_of(where, names, args, frozen=names[1:])
    active, leaves = layout.split(args)

    def equation(params, state, x, key, target):
        y, new_state = model.equation(params, state, x, train=train, key=key)
        return mean.equation(loss.equation(y, target)), new_state

    reference = Differentiated(equation, layout, with_aux=True)
    candidates = {"backprop": _Backprop(model, loss, train, layout)}
    roots = ("cost", "state")
    return Trial(
        reference, candidates, layout, active, (leaves, {}), modes=modes, seed=seed, roots=roots, ledger=ledger
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Backprop:
    """`fdl.backprop.value_and_grad`, as a subject. Its gradient is that of the cost, so w only multiplies it."""

    model: Layer
    loss: Op
    train: bool
    layout: Layout

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        params, state, x, key, target = self.layout.join(active, fixed[0])
        run = backprop.value_and_grad(self.model, self.loss)
        (value, new_state), grads = run(params, state, x, target, key, train=self.train)
        scaled = jax.tree.map(lambda g: g * w[0].astype(g.dtype), grads)
        rest = jax.tree.map(lambda _: None, (state, x, key, target))
        floats, others = parted((value, new_state))
        return Result(floats, others, self.layout.gradients((scaled, *rest)))


def _plainly(op: Op, *args: Any, **options: Any) -> tuple[Any, Any]:
    return op.equation(*args, **options), None


def _moved(leaf: Any, rng: np.random.Generator) -> Any:
    """The leaf moved by a tenth of its size; what is zero throughout gets a size of 0.1."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    x = np.asarray(leaf).astype(np.float64)
    noise = 0.1 * rng.standard_normal(x.shape)
    return jnp.asarray((x * (1 + noise) if x.any() else noise).astype(leaf.dtype))
