"""Dead weights: how a weight of 0 keeps the weights behind it from learning, and who is to blame.

Question: the error goes back through the same weights that brought the activity forward; which weights get no gradient when
some of those are 0, does the doctor name them, and do they ever come back?

Command: python -m experiments dead_weights

Expected: delta_{l+1} = h' * (W^T delta_l) and dW = delta a^T, step by step in NumPy, is what fdl computes, to 1e-12. When a
weight changes, the way back changes with it: it is the same weight, not a copy. One example's gradient has rank 1.
With a single outgoing weight of 0, every weight into the unit gets exactly 0 and the outgoing one does not; with several, all have
to be 0. The doctor names the unit and the weights, and nothing else. Training brings the unit back if its outgoing weights
may move, and never if they are held at 0.

Layers are counted from the output, as in the notes: a0 is the output, w10 the weights from layer 1 to layer 0.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments import Evidence, Figure, Settings, claim, largest, relative_difference
from experiments._style import BLUE, DIVERGING, GREEN, HALF, INK, VERMILION, WIDE, figure

SIZES = (6, 5, 4, 3)  # units per layer, the input first
N, DEAD = 16, 2  # examples; the unit of layer 1 whose outgoing weights are 0
MODEL = fdl.serial(
    w32=fdl.dense(SIZES[1]),
    h2=fdl.tanh(),
    w21=fdl.dense(SIZES[2]),
    h1=fdl.tanh(),
    w10=fdl.dense(SIZES[3]),
    h0=fdl.tanh(),
)
ONE = fdl.serial(w21=fdl.dense(SIZES[2]), h1=fdl.tanh(), w10=fdl.dense(1), h0=fdl.tanh())  # with one output
DENSE = ("w32", "w21", "w10")
SQUARED = fdl.losses.mean_squared_error
STEPS, RATE = 300, 0.2
NOTES = "notes on backpropagation"


def run(settings: Settings) -> Iterator[Evidence]:
    with jax.enable_x64(True):
        random = np.random.default_rng(settings.seed)
        x, target = random.normal(size=(N, SIZES[0])), np.tanh(random.normal(size=(N, SIZES[-1])))
        params = drawn(MODEL, random, SIZES[0])
        yield "the recurrence, and the same weights"
        yield from recurrence_claims(params, x, target)
        yield from same_weights(params, x, target)
        yield from hebbian(params, x, target)
        yield "a single outgoing weight"
        yield from single(random, x, target)
        yield "several outgoing weights"
        blocked = without_outgoing(params)
        yield from several(params, blocked, x, target)
        yield "training from there"
        free, held = trained(blocked, x, target, False), trained(blocked, x, target, True)
        yield from training_claims(free, held)
        yield from the_doctor(params, blocked, (free, held), x, target)
        yield gradient_figure(blocked, x, target)
    yield training_figure(free, held)


def drawn(model: fdl.Layer, random: np.random.Generator, features: int) -> Any:
    params, _ = model.init(jax.random.key(0), (features,), dtype=jnp.float64)
    return jax.tree.map(lambda a: jnp.asarray(0.7 * random.normal(size=a.shape)), params)


def gradients(model: fdl.Layer, params: Any, x: Any, target: Any) -> Any:
    (_, _), grads = fdl.backprop.value_and_grad(model, SQUARED)(params, {}, jnp.asarray(x), jnp.asarray(target))
    return jax.tree.map(np.asarray, grads)


def deltas(params: Any, x: Any, target: Any) -> dict[str, np.ndarray]:
    """At the outputs of the dense layers, z, of the mean loss."""
    found = fdl.backprop.deltas(MODEL, SQUARED, params, {}, jnp.asarray(x), jnp.asarray(target))
    return {name: np.asarray(found[name]) for name in DENSE}


# ---- the recurrence


class Recurrence(NamedTuple):
    """deltas at z, and the activity before each of the weights."""

    deltas: dict[str, np.ndarray]
    activity: dict[str, np.ndarray]


def recurrence(params: Any, x: np.ndarray, target: np.ndarray) -> Recurrence:
    """As the notes have it, in NumPy: forwards, then the error backwards layer by layer."""
    activity, a = {}, x
    for name in DENSE:
        activity[name] = a
        a = np.tanh(a @ np.asarray(params[name]["w"]) + np.asarray(params[name]["b"]))
    error = 2 * (a - target) / a.size  # the loss is the mean over the outputs, and over the examples
    found = {}
    for name in reversed(DENSE):
        found[name] = error * (1 - a**2)
        error, a = found[name] @ np.asarray(params[name]["w"]).T, activity[name]
    return Recurrence(found, activity)


def recurrence_claims(params: Any, x: np.ndarray, target: np.ndarray) -> Iterator[Evidence]:
    by_hand, ours = recurrence(params, x, target), deltas(params, x, target)
    yield claim(
        "the errors are those of the recurrence",
        largest(relative_difference(ours[name], by_hand.deltas[name]) for name in DENSE),
        "<",
        1e-12,
        quantity="largest relative difference",
        source=f"{NOTES}: delta_0 = 2 (a - y) h'(z), delta_l+1 = h'(z) W^T delta_l",
    )
    grads = gradients(MODEL, params, x, target)
    outer = {name: by_hand.activity[name].T @ by_hand.deltas[name] for name in DENSE}
    yield claim(
        "the gradient of a weight is error times activity",
        largest(relative_difference(grads[name]["w"], outer[name]) for name in DENSE),
        "<",
        1e-12,
        quantity="largest relative difference",
        source=f"{NOTES}: grad W = delta a^T, summed over the examples",
    )


def same_weights(params: Any, x: np.ndarray, target: np.ndarray) -> Iterator[Evidence]:
    """The error at the outputs of layer 1 is delta_0 w10^T. Another w10 there changes it, another w32 or w21 does not enter."""
    j, i, nudge = 1, 2, 0.25
    moved = jax.tree.map(lambda a: a, params)
    moved["w10"] = {**params["w10"], "w": params["w10"]["w"].at[j, i].add(nudge)}
    before, after = deltas(params, x, target), deltas(moved, x, target)
    slope = (
        1
        - np.tanh(recurrence(params, x, target).activity["w21"] @ np.asarray(params["w21"]["w"]) + params["w21"]["b"])
        ** 2
    )
    wanted = slope * (after["w10"] @ np.asarray(moved["w10"]["w"]).T)
    copied = slope * (after["w10"] @ np.asarray(params["w10"]["w"]).T)  # of a copy made before the weight changed
    yield claim(
        "when a weight changes, the way back changes with it",
        relative_difference(after["w21"], wanted),
        "<",
        1e-12,
        quantity="relative difference from delta_0 W^T with the new weight",
        source=f"{NOTES}: the same w10 forwards and backwards",
        note=f"the error behind it moved by {relative_difference(after['w21'], before['w21']):.2g}",
    )
    yield claim(
        "a copy of the weights on the way back would be noticed",
        relative_difference(copied, after["w21"]),
        ">",
        1e-2,
        quantity="relative difference with the old weight on the way back",
        source="the contrast: feedback through other weights (experiment backprop)",
    )


def hebbian(params: Any, x: np.ndarray, target: np.ndarray) -> Iterator[Evidence]:
    of_one = gradients(MODEL, params, x[:1], target[:1])
    singular = {name: np.linalg.svd(of_one[name]["w"], compute_uv=False) for name in DENSE}
    yield claim(
        "one example's gradient has rank 1",
        largest(values[1] / values[0] for values in singular.values()),
        "<",
        1e-14,
        quantity="second singular value / first, largest over the layers",
        source="Hebbian reading: outer product of error and activity",
    )
    found = recurrence(params, x[:1], target[:1])
    pairs = [np.outer(found.activity[name][0], found.deltas[name][0]).ravel() for name in DENSE]
    ours = [of_one[name]["w"].ravel() for name in DENSE]
    yield claim(
        "and is the correlation of activity and error",
        min(float(np.corrcoef(a, b)[0, 1]) for a, b in zip(ours, pairs, strict=True)),
        ">",
        1 - 1e-12,
        quantity="correlation of dC/dw_ji with a_j delta_i, smallest over the layers",
        source="Hebb 1949, with an error in the place of the second activity",
    )


# ---- what a weight of 0 does


def single(random: np.random.Generator, x: np.ndarray, target: np.ndarray) -> Iterator[Evidence]:
    params = drawn(ONE, random, SIZES[0])
    params["w10"] = {**params["w10"], "w": params["w10"]["w"].at[DEAD, 0].set(0.0)}
    grads = gradients(ONE, params, x, target[:, :1])
    into, out = grads["w21"]["w"][:, DEAD], grads["w10"]["w"][DEAD, 0]
    yield claim(
        "one outgoing weight of 0: every weight into the unit gets exactly no gradient",
        int(np.count_nonzero(into) + np.count_nonzero(grads["w21"]["b"][DEAD])),
        "==",
        0,
        quantity=f"of {len(into) + 1} weights and bias into unit {DEAD}, with a gradient",
        source=f"{NOTES}: the product along the path has a factor 0",
    )
    others = np.delete(grads["w21"]["w"], DEAD, axis=1)
    yield claim(
        "the outgoing weight itself gets one, as do the weights into other units",
        min(float(abs(out)), float(np.abs(others).min())),
        ">",
        0.0,
        quantity="smallest |gradient| of them",
        source=f"{NOTES}: it is not a factor of its own derivative",
        note=f"of the weight that is 0: {out:.3g}",
    )


def without_outgoing(params: Any, but: int = 0) -> Any:
    """Every weight out of unit DEAD of layer 1 is 0, but for the last `but` of them."""
    w = params["w10"]["w"].at[DEAD, : SIZES[3] - but].set(0.0)
    return {**params, "w10": {**params["w10"], "w": w}}


def several(params: Any, blocked: Any, x: np.ndarray, target: np.ndarray) -> Iterator[Evidence]:
    quantity = f"of {SIZES[1]} weights into unit {DEAD}, with a gradient"
    one_left = gradients(MODEL, without_outgoing(params, 1), x, target)
    yield claim(
        "several outgoing weights: one that is not 0 is enough",
        int(np.count_nonzero(one_left["w21"]["w"][:, DEAD])),
        "==",
        SIZES[1],
        quantity=quantity,
        source="the error is a sum over all ways out",
    )
    grads = gradients(MODEL, blocked, x, target)
    yield claim(
        "with all of them 0 the unit learns nothing",
        int(np.count_nonzero(grads["w21"]["w"][:, DEAD])),
        "==",
        0,
        quantity=quantity,
        source="the same sum",
    )
    reference = jax.grad(lambda params: jnp.mean(SQUARED.equation(MODEL.equation(params, {}, x)[0], target)))(blocked)
    yield claim(
        "jax.grad says the same of every weight",
        largest(relative_difference(grads[name]["w"], reference[name]["w"]) for name in DENSE),
        "<",
        1e-12,
        quantity="largest relative difference",
        source="jax.grad of the plain equations",
    )


# ---- training


class Course(NamedTuple):
    """Over the steps: how far the weights into the unit have moved, the size of those out of it, and the loss; the last params."""

    into: np.ndarray
    out: np.ndarray
    loss: np.ndarray
    params: Any


def trained(params: Any, x: np.ndarray, target: np.ndarray, held: bool) -> Course:
    """Gradient descent; held: with the weights out of the unit kept at 0."""
    gradient = fdl.backprop.value_and_grad(MODEL, SQUARED)
    start = params["w21"]["w"][:, DEAD]

    def step(params, _):
        (value, _), grads = gradient(params, {}, jnp.asarray(x), jnp.asarray(target))
        if held:
            grads = {**grads, "w10": {**grads["w10"], "w": grads["w10"]["w"].at[DEAD].set(0.0)}}
        new = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
        moved = jnp.linalg.norm(new["w21"]["w"][:, DEAD] - start)
        return new, (moved, jnp.linalg.norm(new["w10"]["w"][DEAD]), value)

    last, found = jax.jit(lambda params: jax.lax.scan(step, params, None, STEPS))(params)
    return Course(*map(np.asarray, found), params=last)


def training_claims(free: Course, held: Course) -> Iterator[Evidence]:
    quantity = "move of the weights into the unit"
    source = "gradient descent"
    yield claim("in the first step the weights into it stay", free.into[0], "==", 0.0, quantity=quantity, source=source)
    yield claim(
        "then they move, for the weights out of it have moved",
        free.into[1],
        ">",
        0.0,
        quantity=f"{quantity}, after two steps",
        source=source,
        note=f"after {STEPS} steps {free.into[-1]:.2g}, and out of it {free.out[-1]:.2g}",
    )
    yield claim(
        "held at 0 (pruned), the unit never learns",
        held.into.max(),
        "==",
        0.0,
        quantity=f"{quantity}, largest in {STEPS} steps",
        source=source,
        note=f"loss {held.loss[-1]:.4f}, and {free.loss[-1]:.4f} with the unit",
    )


def the_doctor(params: Any, blocked: Any, courses: tuple, x: np.ndarray, target: np.ndarray) -> Iterator[Evidence]:
    def chart(params, step):
        batch = jnp.asarray(x), jnp.asarray(target)
        return fdl.doctor.examine(MODEL, SQUARED, params, {}, *batch, step=step, noise=None, spectrum=0, leak=False)

    program = jax.jit(chart)
    start, well, almost = (program(p, 0) for p in (blocked, params, without_outgoing(params, 1)))
    yield claim(
        "the doctor names the unit, and why",
        str(start.dead("h1")),
        "==",
        str({"every outgoing weight 0": [DEAD]}),
        quantity="units kept from learning in layer h1",
        source="fdl.doctor.examine",
        note="; ".join(f"{name}: {start.dead(name) or 'none'}" for name in start.units if name != "h1"),
    )
    yield claim(
        "and no unit where one outgoing weight is left",
        str({name: of for one in (well, almost) for name in one.units if (of := one.dead(name))}),
        "==",
        "{}",
        quantity="units kept from learning",
        source="fdl.doctor.examine",
    )
    free, held = (
        [f for f in fdl.doctor.diagnose([start, program(course.params, STEPS)]) if f.code == "dead_weights"]
        for course in courses
    )
    blocking = f"unit {DEAD} is blocked by w10/w[{DEAD}, :]"
    yield claim(
        "after a training with them held at 0 it names the weights that block the unit",
        len(held) == 1 and blocking in held[0].evidence,
        "==",
        True,
        quantity=f"one finding dead_weights: {blocking}",
        source="fdl.doctor.diagnose of the first and the last step",
        note=str(held[0]) if held else "no such finding",
    )
    yield claim(
        "after one in which they moved it does not",
        len(free),
        "==",
        0,
        quantity="findings dead_weights",
        source="fdl.doctor.diagnose of the first and the last step",
    )


# ---- figures


def gradient_figure(params: Any, x: np.ndarray, target: np.ndarray) -> Figure:
    grads = gradients(MODEL, params, x, target)
    fig, panels = figure(1, 3, width=WIDE, height=3.6)
    for axes, name, title in zip(panels, DENSE, ("into layer 2", "into layer 1", "out of layer 1"), strict=True):
        w = grads[name]["w"]
        reach = np.abs(w).max()
        image = axes.imshow(w, cmap=DIVERGING, vmin=-reach, vmax=reach)
        zeros = np.argwhere(w == 0)
        axes.plot(zeros[:, 1], zeros[:, 0], "x", color=INK, markersize=9, markeredgewidth=2)
        axes.set_title(f"{name}: {title}")
        axes.set_xlabel("to unit")
        axes.set_ylabel("from unit")
        axes.set_xticks(range(w.shape[1]))
        axes.set_yticks(range(w.shape[0]))
        axes.grid(False)
        fig.colorbar(image, ax=axes, shrink=0.8)
    caption = (
        f"The gradient of every weight (crosses: exactly 0) when all weights out of unit {DEAD} of layer 1 are 0. The weights into"
        " that unit get nothing, because the error would have to come through the weights that are 0; those weights themselves,"
        f" row {DEAD} on the right, do get a gradient."
    )
    return Figure("gradient", fig, caption, wide=True)


def training_figure(free: Course, held: Course) -> Figure:
    fig, axes = figure(width=HALF, height=3.8)
    steps = np.arange(1, STEPS + 1)
    axes.plot(steps, free.out, color=GREEN, linestyle="--", label="weights out of it")
    axes.plot(steps, free.into, color=BLUE, label="weights into it")
    axes.plot(steps, held.into, color=VERMILION, linestyle="-.", label="into it, others held at 0")
    axes.set_xscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("distance from the start")
    axes.set_title("A dead unit comes back")
    axes.legend(loc="upper left")
    caption = (
        f"Gradient descent from weights of 0 out of unit {DEAD}. They move in the first step and open the way for the error, one"
        " step later those into the unit follow. If they are held at 0, as pruning does, it never learns."
    )
    return Figure("training", fig, caption)
