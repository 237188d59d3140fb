"""`examine`: one batch through one model, with everything that can be read off on the way.

| what             | how                                                        | exact                                     |
|------------------|------------------------------------------------------------|-------------------------------------------|
| loss, errors, growth, gradients | the passes of a training step               | yes                                       |
| saturated, units, spreads, input, labels | read off these                     | yes, of this batch                        |
| percentiles      | of `sample` entries of each array                          | where it has no more; else of a sample    |
| noise            | dense: from x and dy; others: another backward of the layer | dense on [N, I], "exact"; else without bias |
| spectrum         | `spectrum` products with J and J^T per layer, one example  | largest from below, smallest from above   |
| leak             | two examples (all, where a layer has a batch size)         | yes, of these examples                    |
| eval_loss        | a forward pass, of models with running statistics alone    | yes                                       |
| first_not_finite | looked for where a sum of squares is not finite            | yes                                       |

Cost, chart and step together against the step alone (Adam, two cores, inside `scan`): 64-32-10, batch 32: 4.6; 784-100x3-10,
batch 60: 3.0; two convolutions with batch norm, batch 32: 2.5; a recurrent layer over 28 steps: 3.3. Without spectrum, noise and
leak: 3.1, 1.7, 2.1 and 1.4. On the smallest net every operation costs a microsecond of a step of 11.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.backprop import counted, require_loss, require_model
from fdl.doctor import batch, faults, parameters
from fdl.doctor.chart import Chart
from fdl.doctor.signals import outgoing, percentiles, signals, squared, unit_layers, units
from fdl.doctor.spectrum import singular_values, spectrum
from fdl.doctor.watch import Notes, observed
from fdl.errors import refuse, refuse_type, shown
from fdl.layer import Layer, Params, State
from fdl.losses.mean import mean
from fdl.op import Op, accumulator

SAMPLE = 64  # entries per array whose percentiles are taken: the 50th is the true 44th to 56th (one standard deviation)
STEPS = 4  # products with J and with J^T per layer


def examine(
    model: Layer,
    loss: Op,
    params: Params,
    state: State,
    x: Any,
    target: Any,
    key: Any = None,
    optimizer: Any = None,
    opt_state: Any = None,
    *,
    mask: Any = None,
    weights: Any = None,
    step: Any = -1,
    previous: Params | None = None,
    train: bool = True,
    sample: int = SAMPLE,
    noise: str | None = "estimate",
    spectrum: int = STEPS,
    leak: bool = True,
    case: Any = None,
) -> Chart:
    """The chart of one batch: pure, to be called inside `jit` or `scan`; `chart.Chart` has the fields, the table above how exact.

    optimizer, opt_state: measures the update that this gradient would make; opt_state: by default as at the start.
    previous: the gradient of an earlier step, for `cosine`. step: the number of this step, from 0.
    noise: "estimate", "exact" (all examples' gradients at once), or None. spectrum: 0 leaves singular values out; leak=False
    what examples do to each other. case: see `counterfactual.Case`.

        >>> model, loss = fdl.serial(fdl.dense(2), fdl.tanh()), fdl.losses.mean_squared_error
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
        >>> fdl.doctor.examine(model, loss, params, state, x, y).names
        ('dense_0', 'tanh_1')
    """
    return examine_step(
        *(model, loss, params, state, x, target, key, optimizer, opt_state),
        **{"mask": mask, "weights": weights, "step": step, "previous": previous, "train": train},
        **{"sample": sample, "noise": noise, "spectrum": spectrum, "leak": leak, "case": case},
    )[0]


def examine_step(
    model: Layer,
    loss: Op,
    params: Params,
    state: State,
    x: Any,
    target: Any,
    key: Any = None,
    optimizer: Any = None,
    opt_state: Any = None,
    *,
    mask: Any = None,
    weights: Any = None,
    step: Any = -1,
    previous: Params | None = None,
    train: bool = True,
    sample: int = SAMPLE,
    noise: str | None = "estimate",
    spectrum: int = STEPS,
    leak: bool = True,
    case: Any = None,
) -> tuple[Chart, tuple[Any, State], Params, tuple[Any, Any] | None]:
    """(chart, (value, state), grads, (updates, opt_state) or None): `examine` with what a training step needs, so that a step
    that is examined does not compute its gradient twice.

        >>> model, loss = fdl.serial(fdl.dense(2), fdl.tanh()), fdl.losses.mean_squared_error
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
        >>> chart, (value, state), grads, _ = fdl.doctor.examine_step(model, loss, params, state, x, y)
        >>> grads["dense_0"]["w"].shape
        (3, 2)
    """
    require_model("doctor.examine", model)
    require_loss("doctor.examine", loss, "manual")
    if noise not in (None, "estimate", "exact"):
        refuse("doctor.examine", f'noise is {noise!r}, wanted "estimate", "exact" or None')
    if not isinstance(sample, int) or sample < 2:
        refuse("doctor.examine", f"sample is {sample!r}, wanted at least 2 entries to take percentiles of")
    if not isinstance(spectrum, int) or spectrum < 0:
        refuse(
            "doctor.examine", f"spectrum is {spectrum!r}, wanted a number of steps, or 0 to leave singular values out"
        )
    if optimizer is not None and not hasattr(optimizer, "update"):
        refuse_type("doctor.examine", f"optimizer is {shown(optimizer)}, wanted one of optax: optax.sgd(0.1)")
    if previous is not None and jax.tree.structure(previous) != jax.tree.structure(params):
        wanted = "wanted an earlier gradient: a tree like params"
        refuse("doctor.examine", f"previous is {shown(previous)}, {wanted}")
    target, mask, weights = counted(x, target, mask, weights)
    watching, notes = observed(model)
    y, new_state, residuals = watching.forward(params, state, x, train=train, key=key, mask=mask)
    values, of_loss = loss.recorded(y, target)
    value, of_mean = mean.forward(values, weights)
    dvalues, _ = mean.backward(of_mean, jnp.ones_like(value))
    dy = batch.where_counted(mask, loss.backward(of_loss, dvalues)[0])
    grads, _ = watching.backward(residuals, dy)

    seen = notes.layers
    examples = batch.count(x, mask).astype(accumulator(y.dtype))
    stepped = _updates(optimizer, opt_state, grads, params)
    x = batch.where_counted(mask, x)
    of_layers, of_errors = _of_layers(notes, examples, sample, spectrum)
    of_parameters = _of_parameters(model, seen, params, grads, stepped, previous, examples, noise)
    squares = of_errors + jnp.sum(of_parameters["weight"]) + jnp.sum(of_parameters["gradient"]) + value + squared(dy)
    chart = Chart(
        step=jnp.asarray(step, jnp.int32),
        loss=value,
        eval_loss=_eval_loss(model, loss, params, state, x, target, mask, weights, seen, train),
        chance_loss=batch.chance_loss(loss, y, target, mask),
        examples=examples,
        **of_layers,
        leak=_leak(model, loss, params, state, x, target, key, train, leak),
        units={name: units(seen, name) for name in unit_layers(seen)},
        **of_parameters,
        **_not_finite(model, seen, params, grads, x, target, value, dy, squares),
        **batch.input_facts(x, mask),
        **{name: jnp.asarray(fact) for name, fact in batch.label_facts(y, target, mask).items()},
        **batch.output_facts(y, mask),
        names=tuple(seen),
        kinds=tuple(one.layer.name for one in seen.values()),
        outgoing=tuple((name, tuple(outgoing(seen, name))) for name in unit_layers(seen)),
        loss_name=loss.name,
        takes_logits=batch.takes_logits(loss),
        couples=tuple(name for name, one in seen.items() if one.layer.name in faults.COUPLING),
        features=x[0].size,
        case=case,
    )
    return chart, (value, new_state), grads, stepped


def _of_layers(notes: Notes, examples: Any, sample: int, steps: int) -> tuple[dict[str, Any], Any]:
    """(the chart's fields, a number that is not finite if an array of a layer is not)."""
    seen = notes.layers
    found = [signals(one, examples) for one in seen.values()]
    fields = {name: jnp.stack([getattr(one, name) for one in found]) for name in found[0]._fields}
    squares = jnp.sum(fields.pop("squares"))
    drifts = [faults.drift(one) for one in seen.values()]
    fields |= {"drift": jnp.stack([d for d, _ in drifts]), "statistics_of": jnp.stack([n for _, n in drifts])}
    diagonals, aboves = zip(*(spectrum(one, steps) for one in seen.values()), strict=True)
    fields["spectrum"] = singular_values(jnp.stack(diagonals), jnp.stack(aboves))
    # an output that is the next layer's input is sorted once
    arrays = {id(a): (a, one.walk.mask) for one in seen.values() for a in (one.x, one.y, one.dy)}
    rows = {key: row for row, key in enumerate(arrays)}
    wide = [a.astype(accumulator(examples.dtype)) for a, _ in arrays.values()]
    sorted_rows = percentiles(wide, sample, [mask for _, mask in arrays.values()])
    for name, which in (("input", "x"), ("output", "y"), ("error", "dy")):
        places = jnp.asarray([rows[id(getattr(one, which))] for one in seen.values()])
        fields[f"{name}_percentiles"] = sorted_rows[places]
    fields["error_percentiles"] = fields["error_percentiles"] * examples
    return fields, squares


def _of_parameters(model, seen, params, grads, stepped, previous, examples, noise) -> dict[str, Any]:
    own = None if model.layers else model.name
    leaves = parameters.leaves(seen)
    pick = lambda tree, where: parameters.leaf(tree, where[0], where[1], own)
    stack = lambda of: jnp.stack([of(where) for where in leaves]) if leaves else jnp.zeros(0, examples.dtype)
    unknown = jnp.full((), jnp.nan, examples.dtype)
    cosine, total = (lambda where: unknown), unknown
    if previous is not None:
        products = {at: parameters.dot(pick(grads, at), pick(previous, at)) for at in leaves}
        ours = {at: squared(pick(grads, at)) for at in leaves}
        theirs = {at: squared(pick(previous, at)) for at in leaves}
        cosine = lambda where: products[where] / jnp.sqrt(ours[where] * theirs[where])
        total = sum(products.values()) / jnp.sqrt(sum(ours.values()) * sum(theirs.values()))
    mixing = [place for place, one in enumerate(seen.values()) if one.layer.name in faults.COUPLING]
    noises = {
        (name, path): of
        for place, (name, one) in enumerate(seen.items())
        if one.params and noise and place > max(mixing, default=-1)
        for path, of in parameters.noise(one, examples, noise == "exact").items()
    }
    update = (lambda where: jnp.sqrt(squared(pick(stepped[0], where)))) if stepped else (lambda where: unknown)
    return {
        "parameters": tuple(f"{name}/{path}" for name, path in leaves),
        "weight": stack(lambda where: jnp.sqrt(squared(pick(params, where)))),
        "gradient": stack(lambda where: jnp.sqrt(squared(pick(grads, where)))),
        "update": stack(update),
        "noise": stack(lambda where: noises.get(where, unknown)),
        "cosine": stack(cosine),
        "total_cosine": total,
        "weight_spread": stack(lambda where: parameters.spread(pick(params, where))),
        "gradient_spread": stack(lambda where: parameters.spread(pick(grads, where))),
    }


def _updates(optimizer: Any, opt_state: Any, grads: Params, params: Params) -> tuple[Any, Any] | None:
    if optimizer is None:
        return None
    return optimizer.update(grads, optimizer.init(params) if opt_state is None else opt_state, params)


def _eval_loss(model, loss, params, state, x, target, mask, weights, seen, train) -> Any:
    if not train or not any({"mean", "var", "weight"} <= set(one.state) for one in seen.values()):
        return jnp.full((), jnp.nan, accumulator(jnp.float32))
    y, _, _ = model.forward(params, state, x, train=False, mask=mask)
    return mean.forward(loss.forward(y, target)[0], weights)[0]


def _leak(model, loss, params, state, x, target, key, train, wanted) -> Any:
    watching, notes = observed(model)
    few = x.shape[0] if model.examples else min(2, x.shape[0])
    y, _, residuals = watching.forward(params, state, x[:few], train=train, key=key)
    dtype = accumulator(y.dtype)
    if not wanted or few < 2:
        return jnp.full(len(notes.layers), jnp.nan, dtype)

    def error():
        values, kept = loss.recorded(y, target[:few])
        first = jnp.zeros_like(values).at[0].set(1)
        return loss.backward(kept, first)[0]

    shares = faults.leak(notes, error, lambda dy: watching.backward(residuals, dy))
    return jnp.stack([shares[name].astype(dtype) for name in notes.layers])


def _not_finite(model, seen, params, grads, x, target, value, dy, squares) -> dict[str, Any]:
    own = None if model.layers else model.name
    leaves = parameters.leaves(seen)
    of = lambda what, tree: [(f"{what} {'/'.join(w)}", parameters.leaf(tree, *w, own)) for w in leaves]
    found = [("input", x), ("target", target), *of("parameter", params)]
    found += [(f"forward {name}", batch.where_counted(one.walk.mask, one.y)) for name, one in seen.items()]
    found += [("loss", value), ("backward loss", dy)]
    for name, one in reversed(seen.items()):
        found += [(f"backward {name}", one.dx), *_gradients_of(name, one, grads, own)]
    places, first = faults.first_not_finite(found, squares)
    return {"places": places, "first_not_finite": first}


def _gradients_of(name: str, one: Any, grads: Params, own: str | None) -> list[tuple[str, Any]]:
    return [
        (f"gradient {name}/{path}", parameters.leaf(grads, name, path, own))
        for _, path in parameters.leaves({name: one})
    ]
