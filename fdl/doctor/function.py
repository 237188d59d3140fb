"""`examine_function`: the chart of a plain function with parameters, whoever wrote it (Flax, Equinox, Haiku, or yours).

The function is traced to a jaxpr, and evaluated again operation by operation with a zero added to what each activation returns.
The gradient with respect to that zero is the error there: one backward pass gives the errors of all of them.

An activation is an operation tanh, logistic or erf, max(x, 0), or a call that has the name of a row of fdl's table (`jax.nn.relu`,
elu, silu, softplus, ... and what other libraries build on them), also inside a custom derivative. A gelu is written out in
`jax.nn`, and is seen at its erf or tanh. They are named in the order of computation: "tanh_0", "relu_1". A loop (`scan`) is one
layer, "scan_2": its first floating output of a rank above 0, as a whole.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.check.interpreter import Interpreter, bound, call_of, opened
from fdl.doctor import batch, faults, parameters
from fdl.doctor.chart import ALIVE, MASKED, NEVER_ACTIVE, SATURATED, Chart
from fdl.doctor.examine import SAMPLE
from fdl.doctor.signals import flat, percentiles, squared, two_sided
from fdl.errors import refuse, refuse_type, shown
from fdl.layers.activations import ACTIVATIONS
from fdl.op import Op, accumulator

# primitives that are activations, and what they are called; and functions that are, by the name of their call
_PRIMITIVES = {"tanh": "tanh", "logistic": "sigmoid", "erf": "erf", "erfc": "erf"}
_CALLED = {**{name: name for name in ACTIVATIONS}, "swish": "silu", "hard_swish": "hard_silu"}
_CUSTOM = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
_LOOPS = ("scan", "while")


class _Watch(Interpreter):
    """Adds `zeros`, as many as there are activations, in the order of their equations; notes what comes and goes."""

    def __init__(self, zeros: list[Any] | None = None):
        self.zeros = zeros
        self.found: list[tuple[str, Any, Any]] = []  # kind, x, y

    def apply(self, equation: Any, path: tuple[int, ...], args: list) -> list:
        kind = kind_of(equation)
        if kind is None:
            if equation.primitive.name in (*_CUSTOM, *_LOOPS):
                return bound(equation, args)
            return super().apply(equation, path, args)
        outs = bound(equation, args)
        at = next((i for i, out in enumerate(outs) if _floats(out)), None)
        if at is None:
            return outs
        x = next((a for a in args if _floats(a) and a.shape == outs[at].shape), outs[at])
        if self.zeros is not None:
            outs[at] = outs[at] + self.zeros[len(self.found)]
        self.found.append((kind, x, outs[at]))
        return outs


def kind_of(equation: Any) -> str | None:
    """The activation that an equation is, "scan" for a loop, None for anything else."""
    name = equation.primitive.name
    called = str(equation.params.get("name", "")).lstrip("_")
    if call_of(equation) is not None and called in _CALLED:
        return _CALLED[called]
    if name in _CUSTOM:
        inner, _ = opened(call_of(equation, _CUSTOM))
        return next(filter(None, map(kind_of, inner.eqns)), None)
    if name == "max" and any(_is_zero(atom) for atom in equation.invars):
        return "relu" if equation.outvars[0].aval.ndim > 1 else None  # a variance per feature or example, kept above 0
    return name if name in _LOOPS else _PRIMITIVES.get(name)


def _is_zero(atom: Any) -> bool:
    value = getattr(atom, "val", None)
    return value is not None and jnp.ndim(value) == 0 and float(value) == 0.0


def _floats(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) and jnp.ndim(x) > 0


def examine_function(
    apply: Callable,
    params: Any,
    x: Any,
    target: Any,
    loss: Callable,
    *,
    optimizer: Any = None,
    opt_state: Any = None,
    step: Any = -1,
    previous: Any = None,
    sample: int = SAMPLE,
    noise: bool = True,
) -> Chart:
    """The chart of `loss(apply(params, x), target)`, its mean over examples; for `diagnose`, like that of `examine`.

    apply: (params, x) -> y. params: any pytree; arrays that are not floating, and what is no array (an Equinox module holds
    functions), are left alone. loss: (y, target) -> one value per example, an Op or a plain function; not yet the mean.
    noise: by a gradient per example (`vmap`), for which x[n : n + 1] must be a batch of one.

    Layers are the activations and loops in the order in which they are computed; the last one is the output. `spectrum` and
    `drift` are NaN. Pure: for `jit`.

        >>> params = {"w": jnp.ones((3, 2), jnp.float32)}
        >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
        >>> apply = lambda params, x: jnp.tanh(x @ params["w"])
        >>> chart = fdl.doctor.examine_function(apply, params, x, y, fdl.losses.mean_squared_error)
        >>> chart.parameters
        ('w',)
    """
    if not callable(apply) or not callable(loss):
        wanted = "wanted functions: apply(params, x) -> y and loss(y, target) -> one value per example"
        refuse_type("doctor.examine_function", f"apply is {shown(apply)} and loss is {shown(loss)}, {wanted}")
    if optimizer is not None and not hasattr(optimizer, "update"):
        refuse_type("doctor.examine_function", f"optimizer is {shown(optimizer)}, wanted one of optax: optax.sgd(0.1)")
    if not hasattr(x, "shape"):
        refuse_type("doctor.examine_function", f"x is {shown(x)}, wanted one array; let apply(params, x) take it apart")
    leaves, rebuild, names = _split(params)
    if not leaves:
        refuse("doctor.examine_function", "params hold no floating arrays; pass the parameters, not the module's class")
    forward = lambda leaves, x: apply(rebuild(leaves), x)
    traced = jax.make_jaxpr(forward, return_shape=True)(leaves, x)
    if not hasattr(traced[1], "shape"):
        refuse_type(
            "doctor.examine_function", f"apply returns {shown(traced[1])}, wanted one array: take it out of the tuple"
        )
    closed = traced[0]
    watch = _Watch()
    watch.evaluate(closed, (), [*leaves, x])
    zeros = [jnp.zeros_like(y) for _, _, y in watch.found]
    zeros.append(jnp.zeros(traced[1].shape, traced[1].dtype))

    def mean_loss(leaves, zeros, x):
        watch = _Watch(zeros)
        y = watch.evaluate(closed, (), [*leaves, x])[0] + zeros[-1]
        values = loss(y, target)
        if values.shape[:1] != x.shape[:1]:
            wanted = "wanted one value per example: leave the mean to the doctor"
            refuse("doctor.examine_function", f"the loss returned {shown(values)} for {x.shape[0]} examples; {wanted}")
        return jnp.mean(values), ([*watch.found, ("output", y, y)], y)

    value_and_grad = jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True)
    (value, (found, y)), (grads, errors) = value_and_grad(leaves, zeros, x)
    kinds = tuple(kind for kind, _, _ in found)
    layers = tuple(f"{kind}_{at}" for at, kind in enumerate(kinds[:-1])) + ("output",)
    examples = jnp.asarray(x.shape[0], accumulator(y.dtype))
    return _chart(
        *(layers, kinds, found, errors, names, leaves, grads, value, y, x, target, loss, examples, step, sample),
        update=_update(optimizer, opt_state, params, grads, rebuild),
        previous=None if previous is None else _split(previous)[0],
        noise=_noise(forward, loss, leaves, x, target, grads) if noise and x.shape[0] > 1 else None,
        leak=_leak(forward, loss, leaves, x, target),
    )


def _chart(
    layers,
    kinds,
    found,
    errors,
    names,
    leaves,
    grads,
    value,
    y,
    x,
    target,
    loss,
    examples,
    step,
    sample,
    *,
    update,
    previous,
    noise,
    leak,
) -> Chart:
    dtype = examples.dtype
    unknown = lambda *shape: jnp.full(shape, jnp.nan, dtype)
    facts = [ACTIVATIONS[kind].facts() if kind in ACTIVATIONS else None for kind in kinds]
    sizes = jnp.stack([squared(error) for error in errors]).astype(dtype)
    arrays = [a.astype(dtype) for kind, before, after in found for a in (before, after)] + [
        e.astype(dtype) for e in errors
    ]
    rows = percentiles(arrays, sample)
    count = len(found)
    share = lambda place: jnp.mean(flat(found[place][1], facts[place]), dtype=dtype) if facts[place] else unknown()
    ours = jnp.stack([squared(g) for g in grads]).astype(dtype)
    cosine, total = _cosines(grads, previous, ours)
    weight = jnp.sqrt(jnp.stack([squared(w) for w in leaves]).astype(dtype))
    places = [("input", x), ("target", target), *((f"parameter {n}", w) for n, w in zip(names, leaves, strict=True))]
    places += [(f"forward {n}", after) for n, (_, _, after) in zip(layers, found, strict=True)] + [("loss", value)]
    places += [(f"backward {n}", e) for n, e in reversed([*zip(layers, errors, strict=True)])]
    places += [(f"gradient {n}", g) for n, g in zip(names, grads, strict=True)]
    squares = jnp.sum(sizes) + jnp.sum(ours) + jnp.sum(weight) + value + sum(squared(after) for _, _, after in found)
    named, first = faults.first_not_finite(places, squares)
    as_op = loss if isinstance(loss, Op) else Op(loss, loss, loss, name=getattr(loss, "__name__", "loss"))
    return Chart(
        step=jnp.asarray(step, jnp.int32),
        loss=value,
        eval_loss=unknown(),
        chance_loss=batch.chance_loss(as_op, y, target),
        error=jnp.sqrt(sizes * examples),
        growth=jnp.concatenate([jnp.sqrt(sizes[:-1] / sizes[1:]), unknown(1)]),
        input_percentiles=rows[0 : 2 * count : 2],
        output_percentiles=rows[1 : 2 * count : 2],
        error_percentiles=rows[2 * count :] * examples,
        output_rms=jnp.stack([jnp.sqrt(squared(after) / after.size) for _, _, after in found]).astype(dtype),
        saturated=jnp.stack([share(place) for place in range(count)]),
        units={layers[at]: _units(found[at], errors[at], facts[at]) for at in range(count - 1)},
        spectrum=unknown(count, 1),
        drift=unknown(count),
        statistics_of=unknown(count),
        leak=jnp.concatenate([unknown(count - 1), leak[None].astype(dtype)]),
        first_not_finite=first,
        weight=weight,
        gradient=jnp.sqrt(ours),
        update=unknown(len(leaves))
        if update is None
        else jnp.sqrt(jnp.stack([squared(u) for u in update]).astype(dtype)),
        noise=unknown(len(leaves)) if noise is None else jnp.stack(noise).astype(dtype),
        cosine=cosine,
        total_cosine=total,
        weight_spread=jnp.stack([parameters.spread(w).astype(dtype) for w in leaves]),
        gradient_spread=jnp.stack([parameters.spread(g).astype(dtype) for g in grads]),
        examples=examples,
        **batch.input_facts(x),
        **{name: jnp.asarray(fact) for name, fact in batch.label_facts(y, target).items()},
        **batch.output_facts(y),
        names=layers,
        kinds=kinds,
        parameters=names,
        outgoing=tuple((name, ()) for name in layers[:-1]),
        loss_name=as_op.name,
        takes_logits=batch.takes_logits(as_op),
        places=named,
        couples=(),
        features=x[0].size,
    )


def _split(params: Any) -> tuple[list[Any], Callable, tuple[str, ...]]:
    """(the floating arrays, what puts them back into the tree, their names)."""
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    floating = [hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) for _, leaf in paths]

    def rebuild(leaves: list[Any]) -> Any:
        given = iter(leaves)
        return structure.unflatten(
            [next(given) if is_one else leaf for is_one, (_, leaf) in zip(floating, paths, strict=True)]
        )

    kept = [(path, leaf) for is_one, (path, leaf) in zip(floating, paths, strict=True) if is_one]
    names = tuple(jax.tree_util.keystr(path, simple=True, separator="/") or "params" for path, _ in kept)
    return [jnp.asarray(leaf) for _, leaf in kept], rebuild, names


def _units(found: tuple[str, Any, Any], error: Any, facts: Any) -> Any:
    _, x, y = found
    examples = tuple(range(y.ndim - 1))
    state = jnp.where(jnp.all(error == 0, axis=examples), MASKED, ALIVE)
    if facts is not None:
        never = jnp.all(flat(x, facts), axis=examples)
        state = jnp.where(never, SATURATED if two_sided(facts) else NEVER_ACTIVE, state)
    return state.astype(jnp.int8)


def _update(optimizer: Any, opt_state: Any, params: Any, grads: list, rebuild: Callable) -> list | None:
    if optimizer is None:
        return None
    grads, params = (jax.tree.map(_array_or_none, tree) for tree in (rebuild(grads), params))
    updates, _ = optimizer.update(grads, optimizer.init(params) if opt_state is None else opt_state, params)
    return _split(updates)[0]


def _array_or_none(leaf: Any) -> Any:
    """An optimizer knows arrays alone; functions in a tree are left out as `equinox.filter(tree, is_array)` does."""
    return leaf if hasattr(leaf, "dtype") else None


def _cosines(grads: list, previous: list | None, ours: Any) -> tuple[Any, Any]:
    """([P], over all) with the previous gradient; NaN without one."""
    if previous is None:
        return jnp.full_like(ours, jnp.nan), jnp.full((), jnp.nan, ours.dtype)
    theirs = jnp.stack([squared(p) for p in previous]).astype(ours.dtype)
    both = jnp.stack([parameters.dot(g, p) for g, p in zip(grads, previous, strict=True)]).astype(ours.dtype)
    return both / jnp.sqrt(ours * theirs), jnp.sum(both) / jnp.sqrt(jnp.sum(ours) * jnp.sum(theirs))


def _noise(forward: Callable, loss: Callable, leaves: list, x: Any, target: Any, grads: list) -> list:
    """[P] the sum over entries of the variance of one example's gradient."""
    one = lambda leaves, x, t: jnp.mean(loss(forward(leaves, x[None]), t[None]))
    each = jax.vmap(jax.grad(one), in_axes=(None, 0, 0))(leaves, x, target)
    return [squared(g - g.mean(axis=0, keepdims=True)) / (len(x) - 1) for g in each]


def _leak(forward: Callable, loss: Callable, leaves: list, x: Any, target: Any) -> Any:
    """The share of the squared gradient of example 0's loss, with respect to x, that is another example's."""
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.shape[0] < 2:
        return jnp.full((), jnp.nan)
    error = jax.grad(lambda x: jnp.mean(loss(forward(leaves, x), target)[0]))(x)
    total = squared(error)
    return squared(error[1:]) / jnp.where(total > 0, total, jnp.ones_like(total))
