"""The light gated recurrent unit explodes without batch normalization; whether it stays with it.

Question: LiGRU has a rectified candidate, which nothing bounds. Do its state and its error grow without limit over the steps, and does
batch normalization of its input part prevent that, as its authors say?

Command: python -m experiments ligru_explosion

Expected: with enlarged recurrent weights the state of the plain unit and the error on its way back grow exponentially; a bounded
candidate keeps the state small. Trained without clipping, runs of the plain unit are lost, and by its authors' account none with batch
normalization. That does not bound the recurrent part, though: with large recurrent weights the normalized unit should explode as well.

Ravanelli et al. 2018 normalize the input part to keep the rectified state in range; Moumen & Parcollet 2023 (SLi-GRU, fast_sligru)
find that on large data the unit explodes nevertheless, and normalize the recurrent part too. So both are looked at. First the
untrained unit on 100 steps of noise, its recurrent weights orthogonal times a gain: the length of the state by the step, and of the
error that enters at the last. Then training: the digits that come with the package, read pixel by pixel (64 steps), Adam at five rates,
two gains and two seeds in one vmapped program, gradients not clipped. A run is lost when its loss ever is above 100, more than 40 times
that of a constant answer, or not finite. By default 300 steps; with --full 2,000.

Sources: Ravanelli, Brakel, Omologo & Bengio 2018; Moumen & Parcollet 2023; Pascanu, Mikolov & Bengio 2013.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, claim
from experiments._style import BLUE, CYCLE, VERMILION, WIDE, figure
from experiments.gru_memory import through

UNITS, BATCH, NOISE, NOISE_STEPS = 32, 32, 8, 100
GAINS = (0.5, 1.0, 1.5, 2.0, 3.0)
KINDS: tuple[str, ...] = ("plain", "batch normalization", "tanh")
RATES, TRAINING_GAINS, SEEDS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), (1.0, 2.0), 2
LOST = 100.0
LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
STABILISED = "Moumen & Parcollet 2023"
SOURCE = "Ravanelli et al. 2018, section III"


def unit(kind: str, **options: Any) -> fdl.Layer:
    activation = "tanh" if kind == "tanh" else "relu"
    return fdl.gru(UNITS, "ligru", activation=activation, normalize=kind == KINDS[1], **options)


def run(settings: Settings) -> Iterator[Evidence]:
    yield "the untrained unit"
    seen = {kind: [untrained(kind, gain, settings.seed) for gain in GAINS] for kind in KINDS}
    yield from growth_claims(seen)
    steps = 2_000 if settings.full else 300
    runs = {}
    for kind in KINDS[:2]:
        yield f"training, {kind}"
        runs[kind] = training(kind, steps, settings.seed)
    yield from training_claims(runs)
    yield growth_figure(seen)
    yield losses_figure(runs)
    rows = [
        (gain, rate, *(figure for kind in runs for figure in summary(runs[kind], g, r)))
        for g, gain in enumerate(TRAINING_GAINS)
        for r, rate in enumerate(RATES)
    ]
    columns = ("gain", "rate", "plain: worst loss", "last loss", "normalized: worst loss", "last loss ")
    yield Table(
        "Every rate", columns, rows, f"The worse of {SEEDS} seeds, {steps:,} steps; last: the mean of 20 steps."
    )


class Growth(NamedTuple):
    """The mean length of the state and of its error at every step; the error is 1 at the last."""

    state: np.ndarray
    error: np.ndarray


def untrained(kind: str, gain: float, seed: int) -> Growth:
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        x = jnp.asarray(rng.standard_normal((BATCH, NOISE_STEPS, NOISE)))
        params, state = unit(kind).init(jax.random.key(seed), x.shape[1:], x.dtype)
        found = _untrained(kind, enlarged(params, gain), state, x, jnp.asarray(rng.standard_normal((BATCH, UNITS))))
        states, error = map(np.asarray, found)
    return Growth(states, error / error[-1])


def enlarged(params: Any, gain: Any) -> Any:
    """The recurrent weights times the gain."""
    if "recurrence" in params:
        return params | {"recurrence": enlarged(params["recurrence"], gain)}
    return params | {"u": gain * params["u"]}


@functools.partial(jax.jit, static_argnums=0)
def _untrained(kind: str, params: Any, state: Any, x: Any, dlast: Any) -> tuple[Any, Any]:
    layer = unit(kind)
    op = fdl.ops.gru.bind(variant="ligru", activation="tanh" if kind == "tanh" else "relu")
    own = params
    if layer.layers:
        parts, own = dict(layer.layers), params["recurrence"]
        x, _ = parts["project"].apply(params["project"], {}, x)
        x, _ = parts["norm"].apply(params["norm"], state["norm"], x, train=True)
    y, _ = op(own, x)
    error, _ = through(op, own, x, {"h": jnp.zeros_like(dlast)}, dlast)
    return jnp.mean(jnp.linalg.norm(y, axis=-1), axis=0), error


@functools.partial(jax.jit, static_argnums=(0, 1))
def _trained(kind: str, steps: int, x: Any, labels: Any, gain: Any, rate: Any, key: Any) -> tuple[Any, Any]:
    """(the loss, the length of the gradient) of every step; gain, rate and key [R] of so many runs."""
    model = fdl.serial(unit=unit(kind, return_final=True), output=fdl.dense(10))
    gradients = fdl.backprop.value_and_grad(model, LOSS)
    adam = optax.scale_by_adam()

    def one(gain: Any, rate: Any, key: Any) -> tuple[Any, Any]:
        params, state = model.init(key, x.shape[1:])
        params = params | {"unit": enlarged(params["unit"], gain)}

        def step(carry: Any, index: Any) -> tuple[Any, Any]:
            params, state, kept = carry
            rows = jax.random.randint(jax.random.fold_in(key, index), (BATCH,), 0, len(x))
            (loss, state), grads = gradients(params, state, x[rows], labels[rows])
            updates, kept = adam.update(grads, kept)
            params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
            return (params, state, kept), (loss, optax.tree.norm(grads))

        return jax.lax.scan(step, (params, state, adam.init(params)), jnp.arange(steps))[1]

    return jax.vmap(one)(gain, rate, key)


def training(kind: str, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(losses, lengths of gradients), [gains, rates, seeds, steps]"""
    pixels, labels = fdl.data.digits()[0]
    grid = np.meshgrid(TRAINING_GAINS, RATES, np.arange(seed, seed + SEEDS), indexing="ij")
    gain, rate, seeds = (jnp.asarray(a.reshape(-1), jnp.float32 if k < 2 else jnp.uint32) for k, a in enumerate(grid))
    keys = jax.vmap(jax.random.key)(seeds)
    found = _trained(kind, steps, jnp.asarray(pixels[..., None]), jnp.asarray(labels), gain, rate, keys)
    losses, lengths = (np.asarray(a).reshape(*grid[0].shape, steps) for a in found)
    return losses, lengths


def lost(losses: np.ndarray) -> np.ndarray:
    """Of every run, whether its loss ever was above LOST, or not finite."""
    return np.asarray(~(losses <= LOST).all(axis=-1))


def summary(run: tuple[np.ndarray, np.ndarray], gain: int, rate: int) -> tuple[float, float]:
    losses = run[0][gain, rate]
    return float(losses.max()), float(losses[:, -20:].mean(axis=1).max())


# ---- what is claimed


def growth_claims(seen: dict[str, list[Growth]]) -> Iterator[Evidence]:
    plain, normalized, bounded = (seen[kind][-1] for kind in KINDS)
    grown = lambda growth: float(growth.state[-1] / growth.state[9])
    at = f"recurrent weights times {GAINS[-1]:g}"
    measured = "length of the state at the last step against that at the 10th"
    yield claim(
        f"the state of the plain unit explodes, {at}", grown(plain), ">", 1e6, quantity=measured, source=STABILISED
    )
    yield claim(
        f"and so does its error, {at}",
        plain.error[0],
        ">",
        1e6,
        quantity="length of the error at the first step against that at the last",
        source="Pascanu, Mikolov & Bengio 2013",
    )
    yield claim(
        f"a bounded candidate keeps the state small, {at}",
        grown(bounded),
        "<",
        2.0,
        quantity=measured,
        source="h is a mean of numbers in [-1, 1]",
        note=f"its error grows all the same, {bounded.error[0]:.1e} times",
    )
    yield claim(
        f"batch normalization of the input part does not bound the recurrent one, {at}",
        grown(normalized),
        ">",
        1e6,
        quantity=measured,
        source=STABILISED,
        note="; ".join(f"times {g:g}: {grown(s):.1e}" for g, s in zip(GAINS, seen[KINDS[1]], strict=True)),
    )


def training_claims(runs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Iterator[Evidence]:
    (plain, _), (normalized, _) = (runs[kind] for kind in KINDS[:2])
    yield claim(
        "training loses runs of the plain unit",
        int(lost(plain).sum()),
        ">",
        0,
        quantity="runs lost",
        source=SOURCE,
        note=", ".join(
            f"recurrent weights times {g:g}: {counted(a)}" for g, a in zip(TRAINING_GAINS, plain, strict=True)
        ),
    )
    for gain, losses, lengths in zip(TRAINING_GAINS, *runs[KINDS[1]], strict=True):
        yield claim(
            f"training loses none with batch normalization, recurrent weights times {gain:g}",
            int(lost(losses).sum()),
            "==",
            0,
            quantity="runs lost",
            source=SOURCE,
            note=f"{counted(losses)}; the longest gradient {lengths.max():.1e}",
        )
    last = lambda losses: losses[0, :, :, -20:].mean(axis=(1, 2))  # [rates]
    yield claim(
        f"it learns faster at every rate, recurrent weights times {TRAINING_GAINS[0]:g}",
        float((last(normalized) / last(plain)).max()),
        "<",
        1.0,
        quantity="last loss with batch normalization / without, the worst rate",
        source=SOURCE,
    )


def counted(losses: np.ndarray) -> str:
    return f"{int(lost(losses).sum())} of {losses[..., 0].size}"


# ---- figures


def growth_figure(seen: dict[str, list[Growth]]) -> Figure:
    fig, grid = figure(2, 3, width=WIDE, height=5.6, sharex=True, sharey="row")
    for column, kind in enumerate(KINDS):
        for growth, gain, colour in zip(seen[kind], GAINS, CYCLE, strict=False):
            for axes, curve in zip(grid[:, column], growth, strict=True):
                axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, label=f"times {gain:g}")
        grid[0][column].set_title(kind.capitalize() if kind != "tanh" else "Tanh in the place of relu")
        grid[1][column].set_xlabel("step")
    for axes in grid.flat:
        axes.set_yscale("log")
    grid[0][0].set_ylabel("length of the state")
    grid[1][0].set_ylabel("length of the error")
    grid[0][2].legend(fontsize=8, title="recurrent weights", title_fontsize=8)
    caption = (
        "The untrained unit on noise, in float64. Above its state, to be read from the left; below the error that enters at the last"
        " step, from the right. Times 1 is how the weights begin. With relu both grow exponentially once the weights are large, with"
        " batch normalization too; with tanh the state stays, the error grows."
    )
    return Figure("growth", fig, caption, wide=True)


def losses_figure(runs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    fig, grid = figure(1, len(TRAINING_GAINS), width=WIDE, height=3.8, sharey=True)
    for axes, gain, place in zip(grid, TRAINING_GAINS, range(len(TRAINING_GAINS)), strict=True):
        for kind, colour in zip(runs, (VERMILION, BLUE), strict=True):
            losses = runs[kind][0][place].reshape(-1, runs[kind][0].shape[-1])
            axes.plot(np.minimum(losses, 1e12).T, color=colour, linewidth=0.7, alpha=0.6)
            axes.plot([], [], color=colour, label=f"{kind}: {int(lost(losses).sum())} of {len(losses)} lost")
        axes.axhline(LOST, color="black", linewidth=0.8, linestyle=":")
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_title(f"Training, recurrent weights times {gain:g}")
        axes.legend(loc="upper right", fontsize=9)
    grid[0].set_ylabel("loss")
    rates = f"{len(RATES)} rates from {RATES[0]:g} to {RATES[-1]:g}"
    caption = f"Every run: {rates}, {SEEDS} seeds. Above the dotted line a run counts as lost."
    return Figure("training", fig, caption, wide=True)
