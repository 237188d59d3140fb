"""Batch normalization speeds up a network of sigmoids, and steadies what its units see.

Question: does the first experiment of Ioffe & Szegedy (2015, section 4.1, figure 1) come out as published: with batch
normalization the network trains faster and ends higher, and the distribution of the input to a sigmoid of the last hidden
layer stays stable, while without it the distribution drifts?

Command: python -m experiments batch_norm_fig1

Expected: averaged over training and at its end, test accuracy is higher with batch normalization, the 95 % interval over seeds
excluding 0; the baseline's last accuracy is reached in fewer steps; the median and the width of the inputs to the last
sigmoids move less.

The network has three hidden layers of 100 sigmoids and small Gaussian weights; the pictures are binarised; batches of 60, plain
gradient descent. The paper does not state its learning rate and the weights' scale: 0.1 for both here, the same for the two
networks. By default it trains on the digits of 8x8 pixels that come with the package, 6,000 steps, 5 seeds. With --data-dir it
trains on MNIST (28x28), and with --full 50,000 steps, 8 seeds. All seeds train in one vmapped program.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, largest, not_run, relative_difference
from experiments._style import BLUE, VERMILION, WIDE, figure

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
BATCH, RATE, SCALE, UNITS = 60, 0.1, 0.1, 100
CHECKS = 60  # points of every curve
SAMPLE = 1000  # training examples on which the inputs to the sigmoids are looked at
PERCENTILES = (15, 50, 85)
SOURCE = "Ioffe & Szegedy 2015, section 4.1, figure 1"


def network(normalized: bool) -> fdl.Layer:
    """Three hidden layers; with normalization their biases would have no effect."""
    w_init = jax.nn.initializers.normal(SCALE)
    layers: dict[str, fdl.Layer] = {}
    for place in (1, 2, 3):
        layers[f"dense_{place}"] = fdl.dense(UNITS, bias=not normalized, w_init=w_init)
        if normalized:
            layers[f"batch_norm_{place}"] = fdl.batch_norm()
        layers[f"sigmoid_{place}"] = fdl.sigmoid()
    return fdl.serial(**layers, output=fdl.dense(10, w_init=w_init))


PLAIN, NORMALIZED = network(False), network(True)
# up to the last sigmoid: what it gets
BEFORE = {
    model: fdl.serial(**dict(model.layers[: [name for name, _ in model.layers].index("sigmoid_3")]))
    for model in (PLAIN, NORMALIZED)
}


def run(settings: Settings) -> Iterator[Evidence]:
    train, test, pictures = data(settings)
    seeds, steps = (8, 50_000) if settings.full else (5, 6_000)
    yield f"{pictures}, {steps:,} steps of {BATCH}, {seeds} seeds, without batch normalization"
    without = training(PLAIN, train, test, seeds, steps, settings.seed)
    yield "and with it"
    with_it = training(NORMALIZED, train, test, seeds, steps, settings.seed)

    yield claim(
        "the hand-written gradients of the normalized network are those of jax.grad",
        gradient_difference(train, settings.seed),
        "<",
        1e-12,
        quantity="largest relative difference, float64",
        source="chain rule",
    )
    gain = with_it["accuracy"] - without["accuracy"]  # [seeds, checks]
    for name, values, quantity in (
        ("it trains faster", gain.mean(axis=1), "gain in test accuracy, mean over training"),
        ("it ends higher", gain[:, -5:].mean(axis=1), "gain in test accuracy at the end"),
    ):
        low, high = interval(values)
        note = f"mean {values.mean():.4f}, 95 % interval {low:.4f} to {high:.4f} over {seeds} seeds"
        yield claim(name, low, ">", 0.0, quantity=f"{quantity}: lower end of the interval", source=SOURCE, note=note)
    reached = [steps_to(with_it, a[-5:].mean(), k) for k, a in enumerate(without["accuracy"])]
    yield claim(
        "it reaches the other network's last accuracy in fewer steps",
        float(np.max(reached)) / steps,
        "<",
        1.0,
        quantity="share of the steps, the slowest seed",
        source=SOURCE,
        note=f"median {np.median(reached):,.0f} of {steps:,} steps",
    )
    for name, measure in (("median", median_drift), ("width", width_drift)):
        low, high = interval(np.log(measure(without) / measure(with_it)))
        yield claim(
            f"the {name} of the inputs to the last sigmoids moves less with it",
            float(np.exp(low)),
            ">",
            1.0,
            quantity="drift without / drift with: lower end of the 95 % interval",
            source=SOURCE,
            note=f"ratio {np.exp((low + high) / 2):.2f}, interval {np.exp(low):.2f} to {np.exp(high):.2f}",
        )
    if settings.data_dir is None:
        yield not_run("all of it on MNIST", "as above", "give --data-dir with a folder mnist/", source=SOURCE)
    yield accuracy_figure(without, with_it, pictures)
    yield from percentile_figures(without, with_it)
    rows = [
        (settings.seed + k, float(a[-1]), float(b[-1]), int(r))
        for k, (a, b, r) in enumerate(zip(without["accuracy"], with_it["accuracy"], reached, strict=True))
    ]
    yield Table(
        "Every seed",
        ("seed", "accuracy without", "accuracy with", "steps to the accuracy without"),
        rows,
        "Test accuracy after the last step, and when the normalized network had as much.",
    )


def data(settings: Settings) -> tuple[tuple[Any, Any], tuple[Any, Any], str]:
    """Binarised pictures, flat."""
    if settings.data_dir is None:
        both, pictures = fdl.data.digits(), "digits of 8x8 pixels"
    else:
        both, pictures = fdl.data.mnist(settings.data_dir / "mnist"), "MNIST"
    train, test = (((x.reshape(len(x), -1) > 0.5).astype(np.float32), y) for x, y in both)
    return train, test, pictures


# ---- training all seeds at once


def training(model: fdl.Layer, train: Any, test: Any, seeds: int, steps: int, seed: int) -> dict[str, np.ndarray]:
    """{"steps" [checks], "accuracy" [seeds, checks], "percentiles" [seeds, checks, 3, units]}"""
    keys = jax.vmap(jax.random.key)(jnp.arange(seed, seed + seeds))
    carry = jax.vmap(lambda key: model.init(key, train[0].shape[1:]))(keys)
    arrays = tuple(jnp.asarray(array) for array in train)
    every = steps // CHECKS
    found: dict[str, list[Any]] = {"steps": [], "accuracy": [], "percentiles": []}
    for check in range(CHECKS + 1):
        if check:
            carry = _advance(model, every, carry, keys, arrays, (check - 1) * every)
        found["steps"].append(check * every)
        found["accuracy"].append(_accuracy(model, carry, *map(jnp.asarray, test)))
        found["percentiles"].append(_inputs(model, carry, arrays[0][:SAMPLE]))
    return {name: np.stack(values, axis=-1 if name == "accuracy" else 0) for name, values in found.items()} | {
        "percentiles": np.stack(found["percentiles"], axis=1)
    }


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _advance(model: fdl.Layer, steps: int, carry: Any, keys: Any, train: Any, first: Any) -> Any:
    gradients = fdl.backprop.value_and_grad(model, LOSS)
    x, labels = train

    def one_seed(carry: Any, key: Any) -> Any:
        def step(carry: Any, index: Any) -> tuple[Any, None]:
            params, state = carry
            rows = jax.random.randint(jax.random.fold_in(key, index), (BATCH,), 0, len(x))
            (_, state), grads = gradients(params, state, x[rows], labels[rows])
            return (jax.tree.map(lambda p, g: p - RATE * g, params, grads), state), None

        return jax.lax.scan(step, carry, first + jnp.arange(steps))[0]

    return jax.vmap(one_seed)(carry, keys)


@functools.partial(jax.jit, static_argnums=0)
def _accuracy(model: fdl.Layer, carry: Any, x: Any, labels: Any) -> jax.Array:
    right = jax.vmap(lambda params, state: model.apply(params, state, x)[0].argmax(axis=1) == labels)(*carry)
    return right.mean(axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _inputs(model: fdl.Layer, carry: Any, x: Any) -> jax.Array:
    """[seeds, 3, units]: the percentiles over examples of what each of the last sigmoids gets, as in training."""
    before = BEFORE[model]

    def one_seed(params: Any, state: Any) -> jax.Array:
        own = lambda tree: {name: tree[name] for name in dict(before.layers) if name in tree}
        z, _ = before.apply(own(params), own(state), x, train=True)
        return jnp.percentile(z, jnp.asarray(PERCENTILES, z.dtype), axis=0)

    return jax.vmap(one_seed)(*carry)


# ---- what is claimed


def gradient_difference(train: Any, seed: int) -> float:
    with jax.enable_x64(True):
        x, labels = jnp.asarray(train[0][:BATCH], jnp.float64), jnp.asarray(train[1][:BATCH])
        params, state = NORMALIZED.init(jax.random.key(seed), x.shape[1:], jnp.float64)
        grads = [
            jax.jit(fdl.backprop.value_and_grad(NORMALIZED, LOSS, gradient=gradient))(params, state, x, labels)[1]
            for gradient in ("manual", "autodiff")
        ]
        return largest(relative_difference(a, b) for a, b in zip(*map(jax.tree.leaves, grads), strict=True))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % confidence interval of the mean, by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def steps_to(found: dict[str, np.ndarray], accuracy: float, seed: int) -> float:
    """The first check at which a seed has this accuracy; infinity if it never has."""
    there = np.flatnonzero(found["accuracy"][seed] >= accuracy)
    return float(found["steps"][there[0]]) if there.size else float("inf")


def median_drift(found: dict[str, np.ndarray]) -> np.ndarray:
    """[seeds]: how far the median of a unit's input wanders during training, in widths of its distribution."""
    low, middle, high = (found["percentiles"][:, :, k] for k in range(3))  # [seeds, checks, units]
    return (middle.std(axis=1) / (high - low).mean(axis=1)).mean(axis=1)


def width_drift(found: dict[str, np.ndarray]) -> np.ndarray:
    """[seeds]: the widest distribution of a unit's input during training against the narrowest."""
    width = found["percentiles"][:, :, 2] - found["percentiles"][:, :, 0]
    return np.log(width.max(axis=1) / width.min(axis=1)).mean(axis=1)


# ---- figures


def accuracy_figure(without: dict[str, np.ndarray], with_it: dict[str, np.ndarray], pictures: str) -> Figure:
    fig, axes = figure(height=3.6)
    for found, colour, label in ((with_it, BLUE, "with batch normalization"), (without, VERMILION, "without")):
        axes.plot(found["steps"], found["accuracy"].T, color=colour, linewidth=0.7, alpha=0.4)
        axes.plot(found["steps"], found["accuracy"].mean(axis=0), color=colour, label=label)
    axes.set_title(f"Test accuracy, {pictures}")
    axes.set_xlabel("step")
    axes.set_ylim(max(0.0, float(with_it["accuracy"][:, 2:].min()) - 0.2), 1.0)
    axes.legend(loc="lower right")
    caption = "Figure 1a of the paper: thick the mean over the seeds, thin every seed."
    return Figure("accuracy", fig, caption)


def percentile_figures(without: dict[str, np.ndarray], with_it: dict[str, np.ndarray]) -> Iterator[Figure]:
    fig, pair = figure(1, 2, width=WIDE, height=3.4, sharey=True)
    titles = (("Without", without, VERMILION), ("With batch normalization", with_it, BLUE))
    for axes, (title, found, colour) in zip(pair, titles, strict=True):
        low, middle, high = found["percentiles"][0, :, :, typical(found)].T
        axes.fill_between(found["steps"], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(found["steps"], middle, color=colour)
        for line in (low, high):
            axes.plot(found["steps"], line, color=colour, linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("step")
    pair[0].set_ylabel("input to one sigmoid")
    caption = (
        "Figure 1b and 1c of the paper: the 15th, 50th and 85th percentile of the input to one sigmoid of the last hidden"
        " layer, over the training examples. Of the 100 units the one whose median wanders as far as is typical."
    )
    yield Figure("percentiles", fig, caption, wide=True)


def typical(found: dict[str, np.ndarray]) -> int:
    """The unit of the first seed whose median wanders as far as that of half of them."""
    wandered = found["percentiles"][0, :, 1].std(axis=0)
    return int(np.argsort(wandered)[len(wandered) // 2])
