"""How long recurrent units remember: the adding and the copy problem, and the error on its way back through time.

Question: at which length do a simple recurrent network, an LSTM and the forms of the gated recurrent unit cease to learn to add two
marked numbers of a long sequence, and to repeat what stood at its beginning; and how does the error shrink on its way back?

Command: python -m experiments gru_memory

Expected: the LSTM and the gated units add at lengths at which the simple network with tanh stays at the error of the constant answer,
1/6. The error of the simple network shrinks exponentially on its way back; in a gated unit that has learnt to add, more of it comes to
the beginning.

Adding (Hochreiter & Schmidhuber 1997, as in Le et al. 2015 and Arjovsky et al. 2016): T pairs of a number in [0, 1] and a mark; two
are marked, one in each half; the answer after the last step is the sum of their numbers. Copying: four of eight symbols, a
delay, a sign, and then the symbols again. A length counts as learnt when the middle one of three seeds does it: adding with less
than a tenth of the constant answer's error, copying with three in four symbols right. Every unit is tried at the first two lengths,
and further until it breaks. 32 units, fdl's initial weights, batches of 32, 800 steps of Adam with gradients clipped to length 1
for everyone; the seeds train in one vmapped program. By default three units and short lengths; with --full all forms of the gated
unit, and longer ones. What is not learnt in these steps may be with more of them or with more units: the rows say how units compare,
not what they can do.

Sources: Hochreiter 1991; Bengio, Simard & Frasconi 1994; Hochreiter & Schmidhuber 1997; Pascanu, Mikolov & Bengio 2013.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, largest, relative_difference
from experiments._style import CYCLE, GREY, INK, WIDE, figure
from fdl.layers.gru.layer import VARIANTS

UNITS, BATCH, STEPS, SEEDS = 32, 32, 800, 3
SYMBOLS, ALPHABET = 4, 8
CONSTANT = 1 / 6  # the variance of the sum of two numbers that are uniform in [0, 1]
SOURCE = "Hochreiter & Schmidhuber 1997; Bengio, Simard & Frasconi 1994"


def run(settings: Settings) -> Iterator[Evidence]:
    names = ("rnn", "lstm", *(VARIANTS if settings.full else ("full",)))
    yield claim(
        "the error that the units hand from step to step is the one of jax.grad",
        largest(agreement(name, settings.seed) for name in names),
        "<",
        1e-10,
        quantity="largest relative difference of dC/d(first state), float64",
        source="chain rule; the derivation in fdl/layers/_recurrent/engine.py",
    )
    climbs: dict[str, dict[str, Climb]] = {}
    for problem in (ADDING, COPYING):
        lengths = problem.lengths + (problem.longer if settings.full else ())
        climbs[problem.name] = {}
        for name in names:
            found = climbs[problem.name][name] = climb(problem, name, lengths, settings.seed)
            middle = ", ".join(f"{length}: {np.median(merit):.2f}" for length, merit in found.merits.items())
            yield f"{problem.name}, {name}: {middle}"
    adding = climbs["adding"]
    yield from adding_claims(adding)
    length = ADDING.lengths[1]
    before = {name: flow(name, initial(name, settings.seed), length, settings.seed) for name in names}
    after = {
        name: flow(name, found.params[length]["recurrence"], length, settings.seed) for name, found in adding.items()
    }
    yield from flow_claims(before, after, adding, length)
    for problem in (ADDING, COPYING):
        yield lengths_figure(problem, climbs[problem.name])
    yield flow_figure(before, after, length)
    rows = [
        (
            name,
            adding[name].longest or "none",
            climbs["copying"][name].longest or "none",
            before[name][0],
            after[name][0],
        )
        for name in names
    ]
    columns = ("unit", "longest sum", "longest copy", "error at the first step, before training", "after")
    caption = (
        f"The longest sequence that is learnt in {STEPS} steps, and the length of the error at the first of {length} steps"
        " against that at the last."
    )
    yield Table("Every unit", columns, rows, caption)


def unit(name: str, **options: Any) -> fdl.Layer:
    if name == "rnn":
        return fdl.rnn(UNITS, **options)
    return fdl.lstm(UNITS, **options) if name == "lstm" else fdl.gru(UNITS, name, **options)


class Problem(NamedTuple):
    """data(key, length) -> (x, target), and a figure of merit: 1 at best, `chance` without knowledge, `enough` where it is learnt."""

    name: str
    data: Any
    model: Any  # unit -> Layer
    loss: fdl.Op
    merit: Any  # (pred, target) -> scalar
    chance: float
    enough: float
    rate: float
    lengths: tuple[int, ...]
    longer: tuple[int, ...]  # with --full


def adding_data(key: Any, length: int) -> tuple[Any, Any]:
    """x [N, T, 2], target [N, 1]"""
    numbers, first, second = jax.random.split(key, 3)
    values = jax.random.uniform(numbers, (BATCH, length))
    half = length // 2
    steps = jnp.arange(length)[None]
    places = jax.random.randint(first, (BATCH, 1), 0, half), jax.random.randint(second, (BATCH, 1), half, length)
    marks = sum((steps == place).astype(values.dtype) for place in places)
    return jnp.stack([values, marks], axis=-1), jnp.sum(values * marks, axis=1, keepdims=True)


def copy_data(key: Any, length: int) -> tuple[Any, Any]:
    """x [N, S + T + S, ALPHABET + 2] one-hot, target [N, S + T + S]: 0 is the blank, the last symbol the sign."""
    symbols = jax.random.randint(key, (BATCH, SYMBOLS), 1, ALPHABET + 1)
    sign = jnp.zeros((BATCH, SYMBOLS), jnp.int32).at[:, 0].set(ALPHABET + 1)
    blank = jnp.zeros((BATCH, length), jnp.int32)
    shown = jnp.concatenate([symbols, blank, sign], axis=1)
    return jax.nn.one_hot(shown, ALPHABET + 2), jnp.concatenate([jnp.zeros_like(shown[:, SYMBOLS:]), symbols], axis=1)


ADDING = Problem(
    "adding",
    adding_data,
    lambda name: fdl.serial(recurrence=unit(name, return_final=True), output=fdl.dense(1)),
    fdl.losses.mean_squared_error,
    lambda pred, target: 1 - jnp.mean((pred - target) ** 2) / CONSTANT,
    0.0,
    0.9,
    6e-3,
    (20, 50, 100),
    (200,),
)
COPYING = Problem(
    "copying",
    copy_data,
    lambda name: fdl.serial(recurrence=unit(name), output=fdl.dense(ALPHABET + 1)),
    fdl.losses.softmax_cross_entropy_with_integer_labels,
    lambda pred, target: jnp.mean((pred.argmax(axis=-1) == target)[:, -SYMBOLS:]),
    1 / ALPHABET,
    0.75,
    1e-2,
    (5, 15),
    (30,),
)


class Climb(NamedTuple):
    """A unit on a problem at two lengths, and on until one is not learnt; params are those of the middle seed."""

    merits: dict[int, np.ndarray]  # length -> [seeds]
    params: dict[int, Any]
    longest: int  # that was learnt; 0: none


def climb(problem: Problem, name: str, lengths: tuple[int, ...], seed: int) -> Climb:
    keys = jax.vmap(jax.random.key)(jnp.arange(seed, seed + SEEDS))
    merits, params, longest = {}, {}, 0
    for length in lengths:
        found, merit = jax.device_get(trained(problem, name, length, STEPS, keys))
        merits[length] = np.asarray(merit)
        middle = int(np.argsort(merit)[len(merit) // 2])
        params[length] = jax.tree.map(lambda a, n=middle: a[n], found)
        if merit[middle] >= problem.enough:
            longest = length
        elif length > lengths[0]:
            break
    return Climb(merits, params, longest)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def trained(problem: Problem, name: str, length: int, steps: int, keys: Any) -> tuple[Any, jax.Array]:
    """(params, figure of merit on fresh examples), one of each per key."""
    model = problem.model(name)
    gradients = fdl.backprop.value_and_grad(model, problem.loss)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(problem.rate))

    def one_seed(key: Any) -> Any:
        batch = lambda index: problem.data(jax.random.fold_in(key, index), length)
        params, state = model.init(key, jax.eval_shape(batch, 0)[0].shape[1:])

        def step(carry: Any, index: Any) -> tuple[Any, None]:
            params, state, kept = carry
            (_, state), grads = gradients(params, state, *batch(index))
            updates, kept = optimizer.update(grads, kept, params)
            return (optax.apply_updates(params, updates), state, kept), None

        (params, state, _), _ = jax.lax.scan(step, (params, state, optimizer.init(params)), jnp.arange(steps))

        def judged(index: Any) -> jax.Array:
            x, target = batch(index)
            return problem.merit(model.apply(params, state, x)[0], target)

        return params, jnp.mean(jax.lax.map(judged, steps + jnp.arange(16)))

    return jax.vmap(one_seed)(keys)


# ---- the error on its way back through time


@functools.partial(jax.jit, static_argnums=0)
def error_over_time(name: str, params: Any, x: Any, dlast: Any) -> jax.Array:
    """[T]: the mean length of dC/d state[t] over the examples, where the error dlast [N, D] enters at the last step alone.

    The unit runs one step at a time and its hand-written backward hands the error from each state to the one before.
    """
    op, own, driven, state = single_steps(name, params, x)
    return through(op, own, driven, state, dlast)[0]


def through(op: fdl.Op, own: Any, driven: Any, state: Any, dlast: Any) -> tuple[jax.Array, Any]:
    """(the error's length at every step, the error of the state before the first)."""

    def ahead(state: Any, now: Any) -> tuple[Any, Any]:
        (_, after), residuals = op.forward(own, now[:, None], state)
        return after, residuals

    last, kept = jax.lax.scan(ahead, state, jnp.swapaxes(driven, 0, 1))
    nothing = jnp.zeros_like(dlast)[:, None]

    def back(dstate: Any, residuals: Any) -> tuple[Any, Any]:
        squares = sum(jnp.sum(d**2, axis=1) for d in dstate.values())
        return op.backward(residuals, (nothing, dstate))[2], jnp.mean(jnp.sqrt(squares))

    first, lengths = jax.lax.scan(back, jax.tree.map(jnp.zeros_like, last) | {"h": dlast}, kept, reverse=True)
    return lengths, first


def single_steps(name: str, params: Any, x: Any) -> tuple[fdl.Op, Any, Any, Any]:
    """(the op, its own parameters, what enters it [N, T, .], the empty state): the normalization, where the unit has one, comes before."""
    layer = unit(name, stateful=len(x))
    _, state = layer.init(jax.random.key(0), x.shape[1:], x.dtype)
    op = {"rnn": fdl.ops.rnn, "lstm": fdl.ops.lstm}.get(name) or fdl.ops.gru.bind(variant=name)
    if not layer.layers:
        return op, params, x, state
    parts = dict(layer.layers)
    x, _ = parts["project"].apply(params["project"], {}, x)
    x, _ = parts["norm"].apply(params["norm"], state["norm"], x, train=True)
    return op, params["recurrence"], x, state["recurrence"]


def initial(name: str, seed: int) -> Any:
    return unit(name).init(jax.random.key(seed), (1, 2))[0]


def flow(name: str, params: Any, length: int, seed: int) -> np.ndarray:
    """[T]: the error on the adding problem, 1 at the last step, whose direction is drawn."""
    with jax.enable_x64(True):  # 100 steps of a simple network leave less than float32 can hold
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)
        x, dlast = drawn(length, seed)
        found = np.asarray(error_over_time(name, wide, x, dlast))
    return found / found[-1]


def drawn(length: int, seed: int) -> tuple[Any, Any]:
    """(x [N, T, 2] of the adding problem, an error at the last state [N, D]), float64."""
    rng = np.random.default_rng(seed)
    x = np.asarray(adding_data(jax.random.key(seed), length)[0], np.float64)
    return jnp.asarray(x), jnp.asarray(rng.standard_normal((BATCH, UNITS)))


def agreement(name: str, seed: int) -> float:
    """How far the first state's error, handed back step by step, is from that of jax.grad through the equations."""
    with jax.enable_x64(True):
        x, dlast = drawn(7, seed)
        params, _ = unit(name).init(jax.random.key(seed), x.shape[1:], jnp.float64)
        op, own, driven, state = single_steps(name, params, x)
        start = jax.tree.map(lambda s: s + 0.1, state)
        last = lambda start: jnp.sum(op.equation(own, driven, start)[1]["h"] * dlast)
        both = lambda start: (through(op, own, driven, start, dlast)[1], jax.grad(last)(start))
        ours, wanted = jax.jit(both)(start)
        return largest(relative_difference(ours[part], wanted[part]) for part in wanted if np.any(wanted[part] != 0))


# ---- what is claimed


def adding_claims(adding: dict[str, Climb]) -> Iterator[Evidence]:
    length = ADDING.lengths[1]
    yield claim(
        f"the simple network does not learn to add over {length} steps",
        CONSTANT * (1 - np.median(adding["rnn"].merits[length])),
        ">",
        0.9 * CONSTANT,
        quantity="mean squared error, the middle seed",
        source=SOURCE,
        note="the constant answer has 0.1667",
    )
    for name in ("lstm", "full"):
        yield claim(
            f"{'the LSTM' if name == 'lstm' else 'the gated unit'} adds over longer sequences than it",
            adding[name].longest,
            ">",
            adding["rnn"].longest,
            quantity="longest sequence learnt",
            source=SOURCE,
            note=", ".join(f"{length} steps: {np.median(m):.3f}" for length, m in adding[name].merits.items()),
        )


def flow_claims(before: Any, after: Any, adding: dict[str, Climb], length: int) -> Iterator[Evidence]:
    steps, logarithms = np.arange(length), np.log10(before["rnn"])
    slope, start = np.polyfit(steps, logarithms, 1)
    straight = 1 - np.var(logarithms - slope * steps - start) / np.var(logarithms)
    yield claim(
        "the error of the simple network changes exponentially on its way back",
        straight,
        ">",
        0.98,
        quantity="share of the logarithm's variance on a straight line (R squared)",
        source="Hochreiter 1991; Bengio, Simard & Frasconi 1994",
    )
    yield claim(
        "and it shrinks",
        10**-slope,
        "<",
        1.0,
        quantity="factor per step",
        source="Hochreiter 1991; Bengio, Simard & Frasconi 1994",
        note="; ".join(f"{name} {before[name][0] ** (1 / (length - 1)):.2f}" for name in before)
        + ": of all units before training",
    )
    able = [name for name in after if np.median(adding[name].merits[length]) >= ADDING.enough]
    if able:
        yield claim(
            f"in every unit that has learnt to add over {length} steps more of the error comes to the beginning",
            min(after[name][0] for name in able) / after["rnn"][0],
            ">",
            1.0,
            quantity="error at the first step, the least of these units against the simple network",
            source=SOURCE,
            note=f"of {', '.join(able)}; the simple network keeps {after['rnn'][0]:.1e}",
        )


# ---- figures


def lengths_figure(problem: Problem, climbs: dict[str, Climb]) -> Figure:
    """The figure of merit of every unit at every length, as a table in colours."""
    lengths = sorted({length for found in climbs.values() for length in found.merits})
    grid = np.full((len(climbs), len(lengths)), np.nan)
    for row, found in enumerate(climbs.values()):
        for length, merit in found.merits.items():
            grid[row, lengths.index(length)] = np.median(merit)
    fig, axes = figure(height=1.3 + 0.36 * len(climbs))
    axes.imshow(np.ma.masked_invalid(grid), cmap="YlGnBu", vmin=problem.chance, vmax=2.0, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        text = "" if np.isnan(value) else f"{value:.2f}{' ✓' if value >= problem.enough else ''}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=INK)
    axes.set_xticks(range(len(lengths)), list(map(str, lengths)))
    axes.set_yticks(range(len(climbs)), list(climbs))
    axes.grid(False)
    axes.set_xlabel("steps" if problem is ADDING else "steps of delay")
    axes.set_title("Adding: error explained" if problem is ADDING else "Copying: symbols right")
    what = "1 - error / error of the constant answer" if problem is ADDING else "share of the symbols (by chance 0.12)"
    caption = (
        f"{what}; the middle of {SEEDS} seeds after {STEPS} steps. A unit that breaks is not tried at longer ones."
    )
    return Figure(problem.name, fig, caption)


def flow_figure(before: dict[str, np.ndarray], after: dict[str, np.ndarray], length: int) -> Figure:
    fig, pair = figure(1, 2, width=WIDE, height=3.8, sharey=True)
    for axes, curves, title in zip(pair, (before, after), ("Before training", "After training to add"), strict=True):
        for name, colour in zip(curves, (*CYCLE, *(GREY,) * len(curves)), strict=False):
            axes.plot(np.arange(1, length + 1), curves[name], color=colour, label=name)
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.legend(fontsize=8, ncols=1 if len(curves) < 8 else 3)
    pair[0].set_ylabel("length of the error")
    caption = (
        f"The error dC/d(state) at every one of {length} steps where it enters at the last alone, to be read from the right: a straight"
        " line is an exponential. Before training the gates are half open, and a gated unit forgets faster than a simple network whose"
        " recurrent weights are orthogonal; what the gates learn to do shows on the right."
    )
    return Figure("error over time", fig, caption, wide=True)
