"""Backpropagation written out: closed forms, paths, nudges, and the way back through the same weights.

Question: are the derivatives of the three-layer network, derived by hand weight by weight, what jax.grad computes; are
they sums over all paths from a weight to the cost; and why must the error go back through the same weights?

Command: python -m experiments backprop

Expected: closed form, sum over paths, layer-wise recurrence and jax.grad agree to less than 1e-12 in float64. A small
nudge changes the cost by derivative times nudge, up to an error that falls with its square. A weight of 0 leaves
exactly no gradient for the weights behind it, and gets one itself. With random weights on the way back (feedback
alignment) the update starts at about 90 degrees to the gradient and only comes below 90 because the forward weights
adapt.

Layers are counted from the output: C = (a - y)^2, a = h(z), z = sum_i w10_i a1_i + b, a1_i = h(z1_i), z1_i = sum_j
w21_ij a2_j + b1_i, a2_j = h(z2_j), z2_j = sum_k w32_jk a3_k + b2_j. With --full, feedback alignment has 20 seeds.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, largest, relative_difference
from experiments._feedback import alignment_claims, angle_figure, feedback_alignment, learning_figure, proven
from experiments._style import (
    BLUE,
    CYCLE,
    DIVERGING,
    GREEN,
    GREY,
    INK,
    NEGATIVE,
    POSITIVE,
    VERMILION,
    WIDE,
    figure,
    picture,
)

K, J, I = 3, 4, 5  # units in layers 3, 2, 1; layer 0 is the one output
DEEP = (4, 4, 4, 4, 4, 1)  # units per layer of the second path picture, the input first
ACTIVATIONS = ("sigmoid", "tanh", "softplus")
SQUARED = fdl.losses.mean_squared_error  # with one output: (a - y)^2
NOTES = "notes on backpropagation"
BOUND = 1e-12


def run(settings: Settings) -> Iterator[Evidence]:
    yield "closed forms, paths and jax.grad on the three-layer network"
    with jax.enable_x64(True):
        case = network("sigmoid", settings.seed)
        worst, rows = closed_forms(settings.seed)
        seen = paths_of(case, ("w32", "w", 1, 2))
        deep = deep_paths(settings.seed)
    for name, formula in FORMULAS.items():
        for route, label in (("autodiff", "jax.grad"), ("paths", "the sum over its paths")):
            yield claim(
                f"dC/d{name} = {formula} equals {label}",
                worst[name, route],
                "<",
                BOUND,
                quantity="relative difference",
                source=f"{NOTES}; 3Blue1Brown, chapter 4",
            )
    yield claim(
        "paths from one w32_jk to the cost",
        seen.count,
        "==",
        I,
        quantity="count",
        source="product of the widths after it",
    )
    yield claim(
        f"paths from a first weight of a {'-'.join(map(str, DEEP))} net",
        deep.count,
        "==",
        4 * 4 * 4,
        quantity="count",
        source="product of the widths after it",
    )
    yield path_figure(case, seen, deep)

    yield "recurrence, rank and batches"
    with jax.enable_x64(True):
        recurrence = recurrence_difference(case)
        single = examples(settings.seed)
    yield claim(
        "delta_{l+1} = h'(z_{l+1}) * W^T delta_l, with the same W as on the way forward",
        recurrence,
        "<",
        BOUND,
        quantity="relative difference to fdl.backprop.deltas",
        source="Rumelhart, Hinton and Williams 1986",
    )
    yield claim(
        "one example's gradient is error times activity: rank 1",
        single.spectra[0].values[1] / single.spectra[0].values[0],
        "<",
        BOUND,
        quantity="second singular value / first",
        source="Hebbian reading of backpropagation",
    )
    yield claim(
        "one example's gradient is the outer product of error and activity",
        single.outer_difference,
        "<",
        BOUND,
        quantity="relative difference",
    )
    yield claim(
        "the batch gradient is the mean of the gradients of its examples",
        single.batch_difference,
        "<",
        BOUND,
        quantity="relative difference",
        source="3Blue1Brown, chapter 4: averaged over the training examples",
    )
    yield rank_figure(single.spectra)

    yield "nudging single weights"
    with jax.enable_x64(True):
        nudge = nudges(case)
    yield claim(
        "what a nudge does beyond derivative times nudge falls with its square",
        nudge.order,
        "in",
        (1.95, 2.05),
        quantity="slope of log error against log nudge",
        source="Taylor's theorem",
    )
    yield nudge_figure(nudge)
    yield nudge_error_figure(nudge)
    with jax.enable_x64(True):
        yield sensitivity_figure(case)

    yield "dead weights"
    with jax.enable_x64(True):
        dead = dead_weights(case)
    source = "notes: a weight of 0 blocks the weights behind it"
    yield claim(
        "w10_i = 0: no gradient for any weight or bias into unit i",
        dead["into, one outgoing"],
        "==",
        0.0,
        quantity="largest |gradient|",
        source=source,
    )
    yield claim(
        "w10_i = 0 itself still gets a gradient", dead["itself"], ">", 0.0, quantity="|gradient|", source=source
    )
    yield claim(
        "one of several outgoing weights at 0 blocks nothing",
        dead["into, one of several"],
        ">",
        0.0,
        quantity="smallest |gradient|",
        source=source,
    )
    yield claim(
        "all outgoing weights at 0 block the unit",
        dead["into, all of several"],
        "==",
        0.0,
        quantity="largest |gradient|",
        source=source,
    )
    yield dead_figure(dead)

    yield "feedback alignment beside backpropagation, on the digits"
    alignment = feedback_alignment(settings)
    yield from proven(settings.seed)
    yield from alignment_claims(alignment)
    yield angle_figure(alignment)
    yield learning_figure(alignment)

    yield Table(
        "Every weight of the sigmoid network",
        ("weight", "paths", "closed form", "sum over paths", "manual", "jax.grad"),
        rows,
        "The same derivative by four routes, in float64.",
    )
    yield Table(
        "The paths of w32_21",
        ("path (units)", *(name for name, _ in seen.largest(1)[0].factors), "product"),
        [(" > ".join(map(str, p.units)), *(value for _, value in p.factors), p.product) for p in seen.largest(I)]
        + [("sum", *[None] * len(seen.largest(1)[0].factors), seen.total)],
        "From input unit 1 into unit 2 of layer 2: one product per path to the output; their sum is the derivative.",
    )


# ---- the three-layer network

FORMULAS = {
    "w10": "2(a-y) h'(z) a1_i",
    "b": "2(a-y) h'(z)",
    "w21": "2(a-y) h'(z) w10_i h'(z1_i) a2_j",
    "w32": "2(a-y) h'(z) sum_i w10_i h'(z1_i) w21_ij h'(z2_j) a3_k",
}


class Case(NamedTuple):
    """A network with random weights and biases, and one example."""

    activation: str
    model: fdl.Layer
    params: Any
    x: Any  # [1, K]
    y: Any  # [1, 1]


def dense_net(activation: str, widths: Sequence[int], names: Sequence[str]) -> fdl.Layer:
    """Dense layers by name, each followed by the activation."""
    layers = {}
    for width, name in zip(widths, names, strict=True):
        layers |= {name: fdl.dense(width), f"h_{name}": getattr(fdl, activation)()}
    return fdl.serial(**layers)


def network(activation: str, seed: int) -> Case:
    return random_case(activation, (K, J, I, 1), ("w32", "w21", "w10"), seed)


def random_case(activation: str, sizes: Sequence[int], names: Sequence[str], seed: int) -> Case:
    """Weights and biases all drawn at random: a bias of 0 would hide a formula that forgets it."""
    model = dense_net(activation, sizes[1:], names)
    rng = np.random.default_rng(seed)
    params = {
        name: {"w": jnp.asarray(rng.normal(size=(i, o))), "b": jnp.asarray(0.5 * rng.normal(size=o))}
        for name, i, o in zip(names, sizes[:-1], sizes[1:], strict=True)
    }
    return Case(
        activation, model, params, jnp.asarray(rng.normal(size=(1, sizes[0]))), jnp.asarray(rng.uniform(size=(1, 1)))
    )


def gradients(case: Case, gradient: str) -> Any:
    return _gradients(case.model, gradient, case.params, case.x, case.y)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(model: fdl.Layer, gradient: str, params: Any, x: Any, y: Any) -> Any:
    return fdl.backprop.value_and_grad(model, SQUARED, gradient=gradient)(params, {}, x, y)[1]


def paths_of(case: Case, weight: tuple) -> fdl.backprop.Paths:
    return fdl.backprop.paths(case.model, SQUARED, case.params, case.x[0], case.y[0], weight=weight)


def closed_forms(seed: int) -> tuple[dict[tuple[str, str], float], list[tuple]]:
    """({(weights, route): worst relative difference over the activations}, table of the first activation's weights)."""
    worst: dict[tuple[str, str], float] = {}
    table = []
    for activation in ACTIVATIONS:
        case = network(activation, seed)
        p = case.params
        forms = jax.jit(functools.partial(fdl.backprop.closed_forms, getattr(fdl.ops, activation)))(
            case.x[0],
            case.y[0, 0],
            w32=p["w32"]["w"],
            b2=p["w32"]["b"],
            w21=p["w21"]["w"],
            b1=p["w21"]["b"],
            w10=p["w10"]["w"][:, 0],
            b=p["w10"]["b"][0],
        )
        manual, autodiff = gradients(case, "manual"), gradients(case, "autodiff")
        for name, form in forms.items():
            layer, leaf = ("w10", "b") if name == "b" else (name, "w")
            form = np.asarray(form).reshape(autodiff[layer][leaf].shape)
            sums, counts = np.zeros(form.shape), np.zeros(form.shape, int)
            for index in np.ndindex(form.shape):
                found = paths_of(case, (layer, leaf, *index))
                sums[index], counts[index] = found.total, found.count
                if activation == ACTIVATIONS[0]:
                    label = (
                        f"{name}_{''.join(map(str, index[::-1]))}"
                        if layer != "w10"
                        else f"w10_{index[0]}"
                        if leaf == "w"
                        else "b"
                    )
                    routes = (form[index], sums[index], manual[layer][leaf][index], autodiff[layer][leaf][index])
                    table.append((label, int(counts[index]), *map(float, routes)))
            for route, value in (("autodiff", autodiff[layer][leaf]), ("paths", sums)):
                worst[name, route] = max(worst.get((name, route), 0.0), relative_difference(form, value))
    return worst, table


def deep_paths(seed: int) -> fdl.backprop.Paths:
    """All paths of one first-layer weight of a deeper network."""
    case = random_case("sigmoid", DEEP, [f"layer_{n}" for n in range(len(DEEP) - 2, -1, -1)], seed)
    return paths_of(case, (f"layer_{len(DEEP) - 2}", "w", 1, 2))


def recurrence_difference(case: Case) -> float:
    """The recurrence, written with the forward weights and numpy alone, against the deltas of fdl."""
    p = jax.tree.map(np.asarray, case.params)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    a = np.asarray(case.x[0])
    zs = []
    for name in ("w32", "w21", "w10"):
        zs.append(a @ p[name]["w"] + p[name]["b"])
        a = sigmoid(zs[-1])
    slopes = [sigmoid(z) * (1 - sigmoid(z)) for z in zs]
    delta = {"w10": 2 * (a - np.asarray(case.y[0])) * slopes[2]}  # delta at z, the output of the dense layer
    delta["w21"] = slopes[1] * (p["w10"]["w"] @ delta["w10"])  # w is [I, O], so that W^T of the notes is w here
    delta["w32"] = slopes[0] * (p["w21"]["w"] @ delta["w21"])
    found = fdl.backprop.deltas(case.model, SQUARED, case.params, {}, case.x, case.y)
    return largest(relative_difference(found[name][0], delta[name]) for name in delta)


class Spectrum(NamedTuple):
    """The singular values of dC/dw over a batch of so many examples, largest first."""

    examples: int
    values: np.ndarray


class Examples(NamedTuple):
    """What single examples contribute to the gradient of a batch of digits."""

    spectra: list[Spectrum]
    outer_difference: float  # one example's gradient against error times activity
    batch_difference: float  # the batch gradient against the mean of jax.grad at every example alone; the worst leaf


def examples(seed: int) -> Examples:
    """The first-layer gradient of a 64-32-10 net before training, example by example, in float64."""
    (x, y), _ = fdl.data.digits()
    x, y = jnp.asarray(x[:32], jnp.float64), jnp.asarray(y[:32])
    model = fdl.serial(hidden=fdl.dense(32), sigmoid=fdl.sigmoid(), output=fdl.dense(10))
    params = jax.jit(lambda key: model.init(key, (64,), jnp.float64)[0])(jax.random.key(seed))
    loss = fdl.losses.softmax_cross_entropy_with_integer_labels

    def alone(gradient: str) -> Any:
        """Every example's own gradient, as a batch of one: leaves [example, ...]."""
        one = fdl.backprop.value_and_grad(model, loss, gradient=gradient)
        return jax.jit(jax.vmap(lambda x, y: one(params, {}, x[None], y[None])[1]))(x, y)

    manual, autodiff = alone("manual"), alone("autodiff")
    _, batch = jax.jit(fdl.backprop.value_and_grad(model, loss))(params, {}, x, y)
    errors = jax.jit(lambda x, y: fdl.backprop.deltas(model, loss, params, {}, x, y))(x[:1], y[:1])
    dw = np.asarray(manual["hidden"]["w"])  # [example, 64, 32]
    spectra = [Spectrum(n, np.linalg.svd(dw[:n].mean(axis=0), compute_uv=False)) for n in (1, 2, 8, 32)]
    pairs = zip(jax.tree.leaves(batch), jax.tree.leaves(autodiff), strict=True)
    return Examples(
        spectra,
        relative_difference(dw[0], np.outer(x[0], errors["hidden"][0])),
        largest(relative_difference(ours, np.asarray(each).mean(axis=0)) for ours, each in pairs),
    )


class Nudges(NamedTuple):
    """What happens to the cost when one weight is moved."""

    label: str
    weight: float
    derivative: float
    moves: np.ndarray  # for the picture of one weight
    costs: np.ndarray
    cost: float
    sizes: np.ndarray  # for the error over all weights
    errors: np.ndarray  # root mean square over the weights of |C(w + dw) - C(w) - dC/dw dw|
    order: float


def nudges(case: Case) -> Nudges:
    flat, restore = ravel_pytree(case.params)
    cost = lambda flat: SQUARED(case.model.apply(restore(flat), {}, case.x)[0], case.y)[0]
    gradient = np.asarray(ravel_pytree(gradients(case, "manual"))[0])
    nudged = jax.jit(jax.vmap(jax.vmap(lambda n, dw: cost(flat.at[n].add(dw)), (0, None)), (None, 0)))
    every, start = jnp.arange(flat.size), float(cost(flat))
    sizes = np.logspace(-4, -0.5, 15)
    errors = np.asarray(nudged(every, jnp.asarray(sizes))) - start - gradient * sizes[:, None]
    errors = np.sqrt((errors**2).mean(axis=1))
    small = sizes <= 1e-2
    order = np.polyfit(np.log(sizes[small]), np.log(errors[small]), 1)[0]
    # the picture: the weight into the output whose nudge matters most, found by its place in the flat vector
    place = jax.tree.map(lambda leaf: np.zeros(leaf.shape), case.params)
    place["w10"]["w"][:] = 1
    into_output = np.flatnonzero(ravel_pytree(place)[0])
    chosen = int(into_output[np.abs(gradient[into_output]).argmax()])
    moves = np.linspace(-3, 3, 121)
    costs = np.asarray(nudged(jnp.asarray([chosen]), jnp.asarray(moves)))[:, 0]
    label = f"w10_{int(np.flatnonzero(into_output == chosen)[0])}"
    return Nudges(label, float(flat[chosen]), float(gradient[chosen]), moves, costs, start, sizes, errors, float(order))


def dead_weights(case: Case) -> dict[str, Any]:
    """Gradients with single weights at exactly 0: what stops and what does not."""
    unit_i, unit_j = 2, 1

    def with_zero(layer: str, index: Any) -> Any:
        params = {name: dict(leaves) for name, leaves in case.params.items()}
        params[layer]["w"] = params[layer]["w"].at[index].set(0.0)
        return jax.tree.map(np.asarray, gradients(case._replace(params=params), "manual"))

    one_outgoing = with_zero("w10", (unit_i, 0))
    one_of_several = with_zero("w21", (unit_j, 0))
    all_of_several = with_zero("w21", unit_j)
    into = lambda grads, layer, unit: np.abs(np.append(grads[layer]["w"][:, unit], grads[layer]["b"][unit]))
    return {
        "into, one outgoing": into(one_outgoing, "w21", unit_i).max(),
        "itself": abs(one_outgoing["w10"]["w"][unit_i, 0]),
        "into, one of several": into(one_of_several, "w32", unit_j).min(),
        "into, all of several": into(all_of_several, "w32", unit_j).max(),
        "pictures": (
            (f"dC/dw21, w10_{unit_i} = 0", one_outgoing["w21"]["w"], "unit i", "unit j"),
            (f"dC/dw32, w21_0{unit_j} = 0", one_of_several["w32"]["w"], "unit j", "unit k"),
            (f"dC/dw32, all w21_i{unit_j} = 0", all_of_several["w32"]["w"], "unit j", "unit k"),
        ),
    }


# ---- figures


def path_figure(case: Case, seen: fdl.backprop.Paths, deep: fdl.backprop.Paths) -> Figure:
    fig, (left, right) = figure(1, 2, width=WIDE, height=4.6)
    draw_paths(left, (K, J, I, 1), 1, seen, ("layer 3", "layer 2", "layer 1", "layer 0"))
    left.set_title(f"dC/dw32_21: {seen.count} paths, sum {seen.total:.3g}")
    draw_paths(right, DEEP, 1, deep, [f"layer {n}" for n in range(len(DEEP) - 1, -1, -1)])
    right.set_title(f"a first weight, deeper: {deep.count} paths, sum {deep.total:.3g}")
    caption = (
        "All paths from one weight to the cost. A ribbon is one path, as thick as the magnitude of its product of"
        " factors (on a scale of each panel's own); red products raise the cost when the weight grows, blue ones lower"
        " it. The derivative is the sum of the ribbons, and backpropagation is that sum with its common factors taken"
        " out."
    )
    return Figure("paths", fig, caption, wide=True)


def draw_paths(axes: Any, sizes: Sequence[int], source: int, found: fdl.backprop.Paths, labels: Sequence[str]) -> None:
    """The network with every path as a ribbon from unit `source` of the first layer on."""
    picture(axes)
    height = lambda layer, unit: unit - (sizes[layer] - 1) / 2
    for layer, (ins, outs) in enumerate(itertools.pairwise(sizes)):
        ends = [(height(layer, a), height(layer + 1, b)) for a in range(ins) for b in range(outs)]
        axes.plot([layer, layer + 1], np.transpose(ends), color="#E3E6EA", linewidth=0.7, zorder=1)
    paths = sorted(found, key=lambda p: p.units)
    products = np.asarray([p.product for p in paths])
    thickness = np.abs(products) / max(np.abs(products).sum(), 1e-300)
    thickness *= 0.85  # together they fit in the room of one unit
    routes = np.asarray([(source, *p.units) for p in paths])  # [path, layer]
    # where ribbons share a unit they are stacked, ordered by where they come from
    centre = np.zeros(routes.shape)
    for layer in range(routes.shape[1]):
        for unit in np.unique(routes[:, layer]):
            here = np.flatnonzero(routes[:, layer] == unit)
            ends = np.cumsum(thickness[here])
            centre[here, layer] = height(layer, unit) + ends - thickness[here] / 2 - ends[-1] / 2
    s = np.linspace(0, 1, 40)
    bend = s * s * (3 - 2 * s)
    for path in np.argsort(-thickness):
        colour = POSITIVE if products[path] > 0 else NEGATIVE
        for layer in range(routes.shape[1] - 1):
            middle = centre[path, layer] + (centre[path, layer + 1] - centre[path, layer]) * bend
            half = max(thickness[path] / 2, 0.004)
            axes.fill_between(layer + s, middle - half, middle + half, color=colour, alpha=0.6, linewidth=0, zorder=2)
    for layer, size in enumerate(sizes):
        axes.scatter(
            [layer] * size,
            [height(layer, u) for u in range(size)],
            s=70,
            color="white",
            edgecolor=INK,
            linewidth=1,
            zorder=3,
        )
        axes.text(layer, -max(sizes) / 2 - 0.3, labels[layer], ha="center", va="center", fontsize=11, color=INK)
    plate = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    if len(paths) <= max(sizes):  # few enough to be named, beside the last unit in which they differ
        for route, product in zip(routes, products, strict=True):
            x, y = len(sizes) - 2, height(len(sizes) - 2, route[-2])
            axes.text(x, y + 0.34, f"{product:.2g}", ha="center", va="center", fontsize=10, color=INK, bbox=plate)
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    axes.set_ylim(-max(sizes) / 2 - 0.6, max(sizes) / 2 + 0.1)


def nudge_figure(nudge: Nudges) -> Figure:
    fig, axes = figure()
    axes.plot(nudge.weight + nudge.moves, nudge.costs, color=BLUE, label="cost C")
    tangent = nudge.cost + nudge.derivative * nudge.moves
    axes.plot(
        nudge.weight + nudge.moves,
        tangent,
        color=VERMILION,
        linestyle="--",
        label=f"tangent, slope {nudge.derivative:.3g}",
    )
    axes.plot(nudge.weight, nudge.cost, "o", color=INK, markersize=6, zorder=5)
    missed = np.where(np.abs(nudge.moves) <= 2, np.abs(nudge.costs - tangent), 0.0)
    shown = int(missed.argmax())
    axes.plot(
        [nudge.weight + nudge.moves[shown]] * 2,
        [tangent[shown], nudge.costs[shown]],
        color=GREEN,
        linewidth=3,
        label="what the derivative misses",
    )
    room = np.ptp(nudge.costs)
    axes.set_ylim(nudge.costs.min() - 0.35 * room, nudge.costs.max() + 0.35 * room)
    axes.set_xlabel(f"weight {nudge.label}")
    axes.set_ylabel("cost")
    axes.set_title("Nudging one weight")
    axes.legend()
    return Figure(
        "nudge",
        fig,
        "The cost when one weight moves and all else stays, and the line that the derivative at the dot predicts.",
    )


def nudge_error_figure(nudge: Nudges) -> Figure:
    fig, axes = figure()
    axes.loglog(nudge.sizes, nudge.errors, "o-", color=BLUE, markersize=4, label="measured")
    axes.loglog(
        nudge.sizes, nudge.errors[0] * (nudge.sizes / nudge.sizes[0]) ** 2, "--", color=VERMILION, label="nudge squared"
    )
    axes.set_xlabel("nudge")
    axes.set_ylabel("|change - derivative * nudge|")
    axes.set_title(f"The error of the prediction, slope {nudge.order:.3f}")
    axes.legend()
    caption = "Root mean square over all weights and biases: halve the nudge, and the error falls to a quarter."
    return Figure("nudge error", fig, caption)


def sensitivity_figure(case: Case) -> Figure:
    """What the output neuron's neighbours feel: a weight in proportion to its activity, an activity to its weight."""
    grads = gradients(case, "manual")
    deltas = fdl.backprop.deltas(case.model, SQUARED, case.params, {}, case.x, case.y)
    hidden = fdl.serial(*(layer for _, layer in case.model.layers[:4]))
    named = {inner: case.params[outer] for inner, outer in zip(("dense_0", "dense_2"), ("w32", "w21"), strict=True)}
    activity = np.asarray(hidden.apply(named, {}, case.x)[0][0])
    error = float(deltas["w10"][0, 0])
    weights = np.asarray(case.params["w10"]["w"][:, 0])
    fig, (top, bottom) = figure(2, 1, height=4.3, sharex=True)
    panels = (
        (top, "dC/dw10_i", grads["w10"]["w"][:, 0], error * activity, BLUE, "error times activity a1_i"),
        (bottom, "dC/da1_i", deltas["h_w21"][0], error * weights, VERMILION, "error times weight w10_i"),
    )
    for axes, label, heights, marks, colour, meaning in panels:
        axes.bar(range(I), np.asarray(heights), width=0.6, color=colour, alpha=0.75, label=label)
        axes.plot(range(I), marks, "_", color=INK, markersize=26, markeredgewidth=2, label=meaning)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_ylabel(label)
        axes.margins(y=0.45)
        axes.legend(ncols=2, loc="upper center", markerscale=0.6, columnspacing=1.2)
        axes.grid(axis="x", visible=False)
    bottom.set_xticks(range(I))
    bottom.set_xlabel("unit i of layer 1")
    top.set_title("Sensitivity of the cost")
    caption = (
        "A weight matters as much as the activity that it carries, an activity as much as the weight that carries it"
        f" on; both times the same error, here {error:.3g}, which is also the sensitivity to the bias."
    )
    return Figure("sensitivity", fig, caption)


def dead_figure(dead: dict[str, Any]) -> Figure:
    fig, panels = figure(1, 3, width=WIDE, height=3.2)
    for axes, (title, matrix, across, down) in zip(panels, dead["pictures"], strict=True):
        power = int(np.floor(np.log10(np.abs(matrix).max())))
        matrix = matrix / 10.0**power
        pale = 2 * np.abs(matrix).max()  # half the colour scale, so that the numbers can be read
        axes.imshow(matrix, cmap=DIVERGING, vmin=-pale, vmax=pale, aspect="auto")
        for (row, column), value in np.ndenumerate(matrix):
            text = "0" if value == 0 else f"{value:.2f}"
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=10,
                color=INK,
                fontweight="bold" if value == 0 else "normal",
            )
        axes.set_xticks(range(matrix.shape[1]))
        axes.set_yticks(range(matrix.shape[0]))
        axes.grid(False)
        axes.set_xlabel(f"into {across} (values in 1e{power})")
        axes.set_ylabel(f"from {down}")
        axes.set_title(title)
    caption = (
        "Gradients of the weights behind a weight of 0. Left: unit 2 has one way out, which is closed, so that"
        " everything into it has gradient 0. Middle: one of several ways out of unit 1 is closed, and the error still"
        " arrives by the others. Right: all are closed."
    )
    return Figure("dead weights", fig, caption, wide=True)


def rank_figure(spectra: Sequence[Spectrum]) -> Figure:
    fig, axes = figure()
    for spectrum, colour, marker in zip(spectra, CYCLE, "osD^", strict=False):
        values = np.maximum(spectrum.values / spectrum.values[0], 1e-18)
        label = f"{spectrum.examples} example{'s' * (spectrum.examples > 1)}"
        axes.semilogy(np.arange(1, len(values) + 1), values, marker, color=colour, markersize=4, label=label)
    axes.set_xlabel("singular value, by rank")
    axes.set_ylabel("relative to the largest")
    axes.set_title("Each example adds one rank")
    axes.legend(loc="center right")
    caption = (
        "Singular values of dC/dw (64x32) of a digit network's first layer, by the number of examples in the batch. One"
        " example gives an outer product of error and activity; everything after its first value is rounding."
        " Values below 1e-18 are drawn there."
    )
    return Figure("rank", fig, caption)
