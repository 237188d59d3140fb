"""Digits learned by hand-written backpropagation, beside autodiff.

Question: does a network trained by the hand-written backward passes learn exactly what it learns when JAX
differentiates it, and does it learn well?

Command: python -m experiments digits [--processes 2]

Expected: in float64 every gradient leaf agrees to less than 1e-12 and the two training curves to less than 1e-10; in
float32 the curves stay together to less than 1e-3 although rounding differs at every step. A 64-32-10 network reaches a
test accuracy above 0.96 on average over 5 seeds on the 1,797 digits that come with the package.

The network is dense(32), relu, dense(10), trained with Adam (0.01, batches of 32) on 1,437 digits of 8x8 pixels and
tested on 360 others. With --full there are 20 seeds. With --processes 2 two processes also train it as one, half of every
batch in each: the curve has to be that of one process.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, largest, relative_difference
from experiments._style import BLUE, CYCLE, DIVERGING, GREY, INK, NEGATIVE, POSITIVE, VERMILION, WIDE, figure, picture

MODEL = fdl.serial(hidden=fdl.dense(32), relu=fdl.relu(), output=fdl.dense(10))
LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
OPTIMIZER = optax.adam(0.01)
SEEDS, EPOCHS, BATCH = 5, 40, 32


def run(settings: Settings) -> Iterator[Evidence]:
    train, test = fdl.data.digits()
    seeds = 4 * SEEDS if settings.full else SEEDS

    yield "training with hand-written and with automatic gradients"
    manual = fit(train, test, settings.seed, "manual")
    autodiff = fit(train, test, settings.seed, "autodiff")
    wide = ((train[0].astype(np.float64), train[1]), (test[0].astype(np.float64), test[1]))
    with jax.enable_x64(True):
        manual64 = fit(*wide, settings.seed, "manual")
        autodiff64 = fit(*wide, settings.seed, "autodiff")
        leaves = agreement(manual64.params, *wide[0])
    source = "chain rule: both compute the same derivative"
    yield claim(
        "every gradient leaf of the trained network is the one of jax.grad",
        largest(row[-1] for row in leaves),
        "<",
        1e-12,
        quantity="largest relative difference, float64",
        source=source,
    )
    yield claim(
        "the training curve is the same in float64",
        curve_difference(manual64, autodiff64),
        "<",
        1e-10,
        quantity="largest relative difference of an epoch's loss",
        source=source,
    )
    yield claim(
        "the training curve is the same in float32",
        curve_difference(manual, autodiff),
        "<",
        1e-3,
        quantity="largest relative difference of an epoch's loss",
        source=source,
    )
    yield curves(manual, autodiff, manual64, autodiff64)

    if settings.processes > 1:
        yield f"training on {settings.processes} processes as one"
        mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
        spread = fit(train, test, settings.seed, "manual", mesh)
        yield claim(
            f"{settings.processes} processes that train as one learn what one process learns",
            curve_difference(manual, spread),
            "<",
            1e-3,
            quantity="largest relative difference of an epoch's loss, float32",
            source="data parallelism: the gradient of a batch is the mean over its parts",
        )

    yield f"training {seeds} seeds"
    results = [manual, *(fit(train, test, settings.seed + k, "manual") for k in range(1, seeds))]
    accuracies = [float(result.history["valid_accuracy"][-1]) for result in results]
    yield claim(
        "the network learns to read digits",
        np.mean(accuracies),
        ">",
        0.96,
        quantity=f"mean test accuracy over {seeds} seeds",
        source="multilayer perceptrons of this size on these data",
        note=f"lowest {min(accuracies):.4f}, highest {max(accuracies):.4f}",
    )

    logits = np.asarray(MODEL.apply(manual.params, manual.state, jnp.asarray(test[0]))[0])
    predicted = logits.argmax(axis=1)
    yield confusion(test[1], predicted)
    yield mistakes(test[0], test[1], logits)
    yield first_weights(train, manual)
    yield errors_back(test, manual)
    yield error_by_layer(train, manual, settings.seed)
    yield seeds_figure(results, settings.seed)
    yield Table(
        "Agreement leaf by leaf",
        ("leaf", "shape", "largest |manual|", "largest |autodiff|", "relative difference"),
        leaves,
        "Gradients of the mean loss over all training digits at the trained parameters, in float64. The difference is"
        " the"
        " largest one of the leaf, divided by the leaf's largest entry.",
    )
    rows = [
        (settings.seed + k, a, float(r.history["loss"][-1]))
        for k, (r, a) in enumerate(zip(results, accuracies, strict=True))
    ]
    yield Table(
        "Every seed",
        ("seed", "test accuracy", "training loss"),
        rows,
        f"After {EPOCHS} epochs, hand-written gradients.",
    )


def fit(train: Any, test: Any, seed: int, gradient: str, mesh: Any = None) -> fdl.train.Result:
    params, state = start(seed, train[0].dtype)
    return fdl.train.fit(
        MODEL,
        LOSS,
        OPTIMIZER,
        train,
        valid=test,
        epochs=EPOCHS,
        batch_size=BATCH,
        key=jax.random.key(seed),
        params=params,
        state=state,
        gradient=gradient,
        mesh=mesh,
        progress=False,
    )


def start(seed: int, dtype: Any = np.float32) -> tuple[Any, Any]:
    """The parameters and the state before training."""
    return MODEL.init(jax.random.fold_in(jax.random.key(seed), 1), (64,), dtype)


def agreement(params: Any, x: np.ndarray, y: np.ndarray) -> list[tuple[str, str, float, float, float]]:
    """One row per gradient leaf: its name, its shape, its largest entry by both routes, and how far these are apart."""
    grads = [
        jax.jit(fdl.backprop.value_and_grad(MODEL, LOSS, gradient=gradient))(
            params, {}, jnp.asarray(x), jnp.asarray(y)
        )[1]
        for gradient in ("manual", "autodiff")
    ]
    rows = []
    for name in MODEL.names:
        for leaf in grads[1].get(name, {}):
            ours, theirs = (np.asarray(g[name][leaf]) for g in grads)
            shape = "x".join(map(str, ours.shape))
            largest = [float(np.abs(a).max()) for a in (ours, theirs)]
            rows.append((f"{name}/{leaf}", shape, *largest, relative_difference(ours, theirs)))
    return rows


def curve_difference(manual: fdl.train.Result, autodiff: fdl.train.Result) -> float:
    """The largest relative difference between the losses of the same epoch."""
    return float(curve_differences(manual, autodiff).max())


def curve_differences(manual: fdl.train.Result, autodiff: fdl.train.Result) -> np.ndarray:
    a, b = manual.history["loss"], autodiff.history["loss"]
    return np.abs(a - b) / b


# ---- figures


def curves(manual: Any, autodiff: Any, manual64: Any, autodiff64: Any) -> Figure:
    fig, (left, middle, right) = figure(1, 3, width=WIDE, height=3.4)
    epochs = np.arange(1, len(manual.history["loss"]) + 1)
    for axes, key, title in ((left, "loss", "Training loss"), (middle, "valid_accuracy", "Test accuracy")):
        axes.plot(epochs, manual.history[key], color=BLUE, linewidth=3.5, alpha=0.55, label="manual")
        axes.plot(epochs, autodiff.history[key], color=VERMILION, linewidth=1.4, linestyle="--", label="autodiff")
        axes.set_title(title)
        axes.legend()
    left.set_yscale("log")
    middle.set_ylim(0.85, 1.0)
    pairs = (("float32", manual, autodiff, BLUE), ("float64", manual64, autodiff64, VERMILION))
    for name, ours, theirs, colour in pairs:
        difference = curve_differences(ours, theirs)
        difference = np.where(difference > 0, difference, np.nan)  # a logarithmic axis has no 0
        right.plot(epochs, difference, color=colour, label=name, marker="o", markersize=2.5, linewidth=1)
    right.set_yscale("log")
    right.set_ylim(1e-17, 1)
    right.set_title("Difference of the two losses")
    right.legend(loc="upper right", ncols=2)
    for axes in (left, middle, right):
        axes.set_xlabel("epoch")
    caption = (
        "Left and middle: the curve of the hand-written gradients (blue, float32) under that of jax.grad (orange,"
        " dashed). Right: the relative difference between the two losses, epoch by epoch, from rounding alone; where a"
        " point is missing the two are equal to the last bit."
    )
    return Figure("learning curves", fig, caption, wide=True)


def confusion(labels: np.ndarray, predicted: np.ndarray) -> Figure:
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, predicted), 1)
    fig, axes = figure(height=4.3)
    wrong = np.where(np.eye(10, dtype=bool), 0, counts)
    axes.imshow(np.eye(10) * 0.16, cmap="Blues", vmin=0, vmax=1)
    axes.imshow(np.ma.masked_equal(wrong, 0), cmap="OrRd", vmin=-2, vmax=max(4, wrong.max()))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, str(count), ha="center", va="center", fontsize=10, color=INK)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    axes.grid(False)
    axes.set_xlabel("read as")
    axes.set_ylabel("digit")
    axes.set_title(f"{int(counts.trace())} of {counts.sum()} test digits read right")
    return Figure(
        "confusion", fig, "Confusion matrix on the test digits; mistakes are the coloured cells off the diagonal."
    )


def mistakes(x: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Figure:
    """The misclassified test digits that the network is surest about."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    shown = wrong[np.argsort(-p[wrong, predicted[wrong]], kind="stable")][:12]
    rows = max(1, -(-len(shown) // 4))
    fig, grid = figure(rows, 4, height=0.3 + 1.33 * rows)
    for axes, n in zip(grid.flat, [*shown, *[None] * (4 * rows - len(shown))], strict=True):
        picture(axes)
        if n is not None:
            axes.imshow(x[n].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(
                f"{labels[n]} as {predicted[n]} ({100 * p[n, predicted[n]]:.0f} %)", fontsize=9, fontweight="normal"
            )
    which = f"The {len(wrong)}" if len(wrong) == len(shown) else f"{len(shown)} of the {len(wrong)}"
    caption = f"{which} misread test digits: the true digit, what it was read as, and how surely."
    return Figure("mistakes", fig, caption)


def first_weights(train: Any, result: fdl.train.Result) -> Figure:
    w = np.asarray(result.params["hidden"]["w"])  # [64, 32]
    hidden = train[0] @ w + np.asarray(result.params["hidden"]["b"])  # [N, 32]
    off = int((hidden <= 0).all(axis=0).sum())
    leaving = np.linalg.norm(np.asarray(result.params["output"]["w"]), axis=1)
    fig, grid = figure(4, 8, width=WIDE, height=5.2)
    for axes, unit in zip(grid.flat, np.argsort(-leaving), strict=True):
        picture(axes).imshow(w[:, unit].reshape(8, 8), cmap=DIVERGING, vmin=-np.abs(w).max(), vmax=np.abs(w).max())
        axes.set_title(f"unit {unit}", fontsize=9, fontweight="normal", loc="center")
    caption = (
        "The first-layer weights of all 32 hidden units as 8x8 pictures, on one scale, the unit with the strongest"
        " outgoing weights first. Ink on red pixels excites a unit, ink on blue ones inhibits it. The pixels at the"
        " left and right edge are nearly always blank, so that their weights stay close to where they began."
        f" {off} of the units are off (relu) for every training digit, and no longer learn."
    )
    return Figure("first weights", fig, caption, wide=True)


def errors_back(test: Any, result: fdl.train.Result) -> Figure:
    """The error of single digits, from the logits back to the pixels: an easy digit and the worst ones."""
    x, labels = jnp.asarray(test[0]), jnp.asarray(test[1])
    values = np.asarray(LOSS(MODEL.apply(result.params, {}, x)[0], labels))
    order = np.argsort(values)
    chosen = [int(order[len(order) // 2]), *map(int, order[::-1][:3])]
    fig, grid = figure(
        len(chosen), 4, width=WIDE, height=1.75 * len(chosen), gridspec_kw={"width_ratios": [1, 2.4, 3.2, 1]}
    )
    for row, n in zip(grid, chosen, strict=True):
        one, label = x[n : n + 1], labels[n : n + 1]
        deltas = fdl.backprop.deltas(MODEL, LOSS, result.params, {}, one, label)
        logits, _, residuals = MODEL.forward(result.params, {}, one)
        _, dx = MODEL.backward(residuals, deltas["output"])
        digit, read = int(labels[n]), int(logits[0].argmax())
        picture(row[0]).imshow(one.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        row[0].set_ylabel(f"{digit}, read {read}\nloss {values[n]:.2g}", fontsize=10)
        for axes, delta in ((row[1], deltas["output"][0]), (row[2], deltas["hidden"][0])):
            height = np.asarray(delta)
            axes.bar(range(len(height)), height, color=np.where(height > 0, POSITIVE, NEGATIVE), width=0.8)
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.grid(axis="x", visible=False)
        row[1].set_xticks(range(10))
        row[2].set_xticks(range(0, 32, 4))
        scale = float(jnp.abs(dx).max())
        picture(row[3]).imshow(dx.reshape(8, 8), cmap=DIVERGING, vmin=-scale, vmax=scale)
    for axes, title in zip(
        grid[0],
        ("digit", "error at the logits: p - 1[digit]", "error at the hidden units", "at the pixels"),
        strict=True,
    ):
        axes.set_title(title)
    caption = (
        "The error of a typical test digit, and of the three with the largest loss, on its way back from the logits to"
        " the hidden units to the pixels. Red raises the loss, blue lowers it. A hidden unit that is off"
        " (relu) passes no error: its bar is missing. The last picture has its own scale in every row and says which"
        " ink the network would rather see gone (red) or added (blue)."
    )
    return Figure("errors flowing back", fig, caption, wide=True)


def error_by_layer(train: Any, result: fdl.train.Result, seed: int) -> Figure:
    """The size of the error at every layer's output, before and after training."""
    fig, axes = figure(height=3.6)
    names = MODEL.names[::-1]
    places = np.arange(len(names))
    for offset, label, params, colour in (
        (-0.2, "before training", start(seed)[0], GREY),
        (0.2, "after", result.params, BLUE),
    ):
        deltas = fdl.backprop.deltas(MODEL, LOSS, params, {}, jnp.asarray(train[0]), jnp.asarray(train[1]))
        # times N: the mean over the batch put 1/N into every example's error
        sizes = [float(jnp.linalg.norm(deltas[name] * len(train[0]), axis=1).mean()) for name in names]
        bars = axes.bar(places + offset, sizes, width=0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="%.2g", fontsize=9)
    axes.set_xticks(places, [f"{name}" for name in names])
    axes.set_xlabel("layer, from the output back")
    axes.set_title("Size of the error at each layer's output")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.legend()
    caption = (
        "Mean length of one example's error vector over the training digits: what is left to learn shrinks by training."
    )
    return Figure("error by layer", fig, caption)


def seeds_figure(results: list[fdl.train.Result], seed: int) -> Figure:
    """Test accuracy against epoch for every seed."""
    fig, axes = figure(height=3.6)
    for k, (result, colour) in enumerate(zip(results, itertools.cycle(CYCLE), strict=False)):
        accuracy = result.history["valid_accuracy"]
        axes.plot(
            np.arange(1, len(accuracy) + 1),
            accuracy,
            color=colour,
            linewidth=1.3,
            label=f"seed {seed + k}" if k < 6 else None,
        )
    axes.axhline(0.96, color=INK, linewidth=0.8, linestyle=":")
    axes.set_ylim(0.88, 1.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy")
    axes.set_title(f"The same network from {len(results)} seeds")
    axes.legend(loc="lower right", ncols=2)
    caption = (
        "Seeds differ in the initial weights and in the order of the examples. The dotted line is the expected 0.96."
    )
    return Figure("seeds", fig, caption)
