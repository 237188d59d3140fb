"""A small convolutional network, trained by hand-written backprop.

Question: does the hand-written backward pass of a convolutional network equal JAX's own, leaf by leaf, and does the network
that it trains read digits as well as it should?

Command: python -m experiments lenet

Expected: the gradients agree to 1e-12 in float64. On MNIST (--data-dir) at least 99.0 % of the test digits are read right after 5
epochs; on the small digits that come with the package at least 97 %.

The network has the shape of LeNet-5: two convolutions, each followed by max pooling, and two dense layers. It has 16 and 32 filters
in place of 6 and 16, relu in place of tanh. Adam, batches of 64, a learning rate that falls from 0.002 to 0 along a cosine. By default
the digits are those of 8x8 pixels that come with the package (3x3 kernels, 30 epochs, 3 seeds); with --data-dir MNIST too (5x5 kernels, one
seed), and with --full five seeds.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, largest, not_run, relative_difference
from experiments._style import BLUE, CYCLE, DIVERGING, GREY, INK, NEGATIVE, POSITIVE, WIDE, figure, picture

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
BATCH, RATE = 64, 2e-3
FILTERS = (16, 32)
SOURCE = "LeCun, Bottou, Bengio & Haffner 1998, section II; the network of figure 2, wider"


def network(kernel: int, hidden: int) -> fdl.Layer:
    return fdl.serial(
        conv_1=fdl.conv(FILTERS[0], (kernel, kernel)),
        relu_1=fdl.relu(),
        pool_1=fdl.max_pool((2, 2)),
        conv_2=fdl.conv(FILTERS[1], (kernel, kernel)),
        relu_2=fdl.relu(),
        pool_2=fdl.max_pool((2, 2)),
        flatten=fdl.flatten(),
        hidden=fdl.dense(hidden),
        relu_3=fdl.relu(),
        output=fdl.dense(10),
    )


SMALL, LARGE = network(3, 64), network(5, 128)
WANTED = "test accuracy >= 0.99, the worst seed"


def run(settings: Settings) -> Iterator[Evidence]:
    train, test = fdl.data.digits(images=True)
    rows, worst = agreement(SMALL, train, settings.seed)
    yield claim(
        "hand-written backprop through convolutions and pooling equals jax.grad of the equations",
        worst,
        "<",
        1e-12,
        quantity="largest relative difference, float64",
        source="chain rule; the derivations in fdl/layers/conv/convolve.py and fdl/layers/max_pool.py",
    )
    yield "the small digits"
    results = [trained(SMALL, train, test, 30, settings.seed + k) for k in range(3)]
    yield accuracy_claim("the small digits are read right", results, 0.97)
    model, result, pictures = SMALL, results[0], "digits of 8x8 pixels"
    if settings.data_dir is None:
        needs = "give --data-dir with a folder mnist/ (one seed; five with --full)"
        yield not_run("MNIST is read right after 5 epochs", WANTED, needs, source=SOURCE)
    else:
        train, test = fdl.data.mnist(settings.data_dir / "mnist")
        model, pictures, results = LARGE, "MNIST", []
        for k in range(5 if settings.full else 1):
            yield f"MNIST, 5 epochs, seed {settings.seed + k}"
            results.append(trained(LARGE, train, test, 5, settings.seed + k))
        result = results[0]
        yield accuracy_claim("MNIST is read right after 5 epochs", results, 0.99)
    yield from winners(model, result, train)
    yield curves(results, pictures, settings.seed)
    yield filters(result)
    yield feature_maps(model, result, test)
    yield errors_back(model, result, test)
    yield sizes(model, result, train, settings.seed)
    yield Table(
        "Gradients, hand-written and by jax.grad",
        ("leaf", "shape", "largest entry", "relative difference"),
        rows,
        "The small network, 64 digits, float64.",
    )


def agreement(model: fdl.Layer, train: Any, seed: int) -> tuple[list[tuple], float]:
    """(one row per leaf of the gradient, the largest relative difference), after a few steps away from the start."""
    with jax.enable_x64(True):
        x, labels = jnp.asarray(train[0][:BATCH], jnp.float64), jnp.asarray(train[1][:BATCH])
        params, state = model.init(jax.random.key(seed), x.shape[1:], jnp.float64)
        manual, autodiff = (
            jax.jit(fdl.backprop.value_and_grad(model, LOSS, gradient=gradient)) for gradient in ("manual", "autodiff")
        )
        for _ in range(3):
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, manual(params, state, x, labels)[1])
        ours, theirs = (gradients(params, state, x, labels)[1] for gradients in (manual, autodiff))
        rows = []
        for name in model.names:
            for leaf in theirs.get(name, {}):
                a, b = np.asarray(ours[name][leaf]), np.asarray(theirs[name][leaf])
                shape = "x".join(map(str, b.shape))
                rows.append((f"{name}/{leaf}", shape, float(np.abs(b).max()), relative_difference(a, b)))
    return rows, largest(row[-1] for row in rows)


def trained(model: fdl.Layer, train: Any, test: Any, epochs: int, seed: int) -> fdl.train.Result:
    steps = epochs * -(-len(train[0]) // BATCH)
    return fdl.train.fit(
        model,
        LOSS,
        optax.adam(optax.cosine_decay_schedule(RATE, steps)),
        train,
        valid=test,
        epochs=epochs,
        batch_size=BATCH,
        key=jax.random.key(seed),
        progress=False,
    )


def accuracy_claim(name: str, results: list[fdl.train.Result], wanted: float) -> Evidence:
    last = [float(result.history["valid_accuracy"][-1]) for result in results]
    seeds = f"{len(last)} seeds" if len(last) > 1 else "one seed"
    return claim(
        name,
        min(last),
        ">=",
        wanted,
        quantity="test accuracy, the worst seed",
        source=SOURCE,
        note=f"{seeds}: {', '.join(f'{accuracy:.4f}' for accuracy in last)}",
    )


def winners(model: fdl.Layer, result: fdl.train.Result, train: Any) -> Iterator[Evidence]:
    x, labels = jnp.asarray(train[0][:BATCH]), jnp.asarray(train[1][:BATCH])
    deltas = jax.jit(lambda params: fdl.backprop.deltas(model, LOSS, params, result.state, x, labels))(result.params)
    outputs = outputs_of(model, result.params, result.state, x)
    wrong = 0
    for place in (1, 2):
        got, best = np.asarray(outputs[f"relu_{place}"]), np.asarray(outputs[f"pool_{place}"])
        largest = best.repeat(2, axis=1).repeat(2, axis=2)
        got, delta = (
            array[:, : largest.shape[1], : largest.shape[2]] for array in (got, np.asarray(deltas[f"relu_{place}"]))
        )
        wrong += int(((delta != 0) & (got < largest)).sum())
    through = [float((np.asarray(deltas[f"conv_{place}"]) != 0).mean()) for place in (1, 2)]
    yield claim(
        "the error passes a max pooling at the largest entries only",
        wrong,
        "==",
        0,
        quantity="entries below the largest of their window that get an error",
        source="the derivation in fdl/layers/max_pool.py",
        note=f"{through[0]:.1%} of conv_1's outputs and {through[1]:.1%} of conv_2's get one at all",
    )


@functools.partial(jax.jit, static_argnums=0)
def outputs_of(model: fdl.Layer, params: Any, state: Any, x: Any) -> dict[str, Any]:
    """What every layer puts out."""
    found = {}
    for name, layer in model.layers:
        x, _ = layer.apply(params.get(name, {}), state.get(name, {}), x)
        found[name] = x
    return found


# ---- figures


def curves(results: list[fdl.train.Result], pictures: str, seed: int) -> Figure:
    fig, (left, right) = figure(1, 2, width=WIDE, height=3.4)
    for k, (result, colour) in enumerate(zip(results, CYCLE, strict=False)):
        epochs = np.arange(1, len(result.history["loss"]) + 1)
        left.plot(epochs, result.history["loss"], color=colour, label=f"seed {seed + k}", marker=".")
        left.plot(epochs, result.history["valid_loss"], color=colour, linestyle="--", linewidth=1.2)
        right.plot(epochs, 100 * (1 - result.history["valid_accuracy"]), color=colour, marker=".")
    left.set_yscale("log")
    left.set_title("Loss: training, and test (dashed)")
    left.legend()
    right.set_title("Test digits misread, %")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return Figure("learning curves", fig, f"Training on {pictures}.", wide=True)


def filters(result: fdl.train.Result) -> Figure:
    """The kernels of the first layer, and how strongly the second reads each of them."""
    w = np.asarray(result.params["conv_1"]["w"])[:, :, 0]  # [K, K, filters]
    read = np.sqrt((np.asarray(result.params["conv_2"]["w"]) ** 2).sum(axis=(0, 1, 3)))
    fig, grid = figure(2, 8, width=WIDE, height=3.0)
    for axes, k in zip(grid.flat, np.argsort(-read), strict=True):
        picture(axes).imshow(w[:, :, k], cmap=DIVERGING, vmin=-np.abs(w).max(), vmax=np.abs(w).max())
        axes.set_title(f"read {read[k]:.1f}", fontsize=9, fontweight="normal", loc="center")
    caption = (
        "The 16 kernels of the first convolution, on one scale (red: ink raises the output, blue: lowers it), the ones that the"
        " second convolution reads most strongly (length of its weights on them) first. Several are strokes or edges of one direction."
    )
    return Figure("filters", fig, caption, wide=True)


def feature_maps(model: fdl.Layer, result: fdl.train.Result, test: Any) -> Figure:
    x = jnp.asarray(test[0][:1])
    outputs = outputs_of(model, result.params, result.state, x)
    first, second = np.asarray(outputs["relu_1"][0]), np.asarray(outputs["relu_2"][0])
    fig, grid = figure(2, 9, width=WIDE, height=2.9)
    strongest = [np.argsort(-maps.mean(axis=(0, 1)))[:8] for maps in (first, second)]
    for row, maps, chosen in zip(grid, (first, second), strongest, strict=True):
        for axes, k in zip(row[1:], chosen, strict=True):
            picture(axes).imshow(maps[:, :, k], vmin=0, vmax=maps.max())
    for row, title in zip(grid, ("conv_1", "conv_2"), strict=True):
        picture(row[0]).imshow(x[0, :, :, 0], cmap="gray_r", vmin=0, vmax=1)
        row[1].set_title(f"after {title}", fontsize=10)
    caption = "One test digit, and the eight filters of each convolution that answer it most, after relu: where each finds its pattern."
    return Figure("feature maps", fig, caption, wide=True)


def errors_back(model: fdl.Layer, result: fdl.train.Result, test: Any) -> Figure:
    """The error of a typical test digit and of the two worst, from the logits back to the pixels."""
    x, labels = jnp.asarray(test[0][:2000]), jnp.asarray(test[1][:2000])
    logits, _ = model.apply(result.params, result.state, x)
    order = np.argsort(np.asarray(LOSS(logits, labels)))
    chosen = [int(order[len(order) // 2]), int(order[-1]), int(order[-2])]
    fig, grid = figure(3, 5, width=WIDE, height=5.6, gridspec_kw={"width_ratios": [1, 1.6, 1, 1, 1]})
    for row, n in zip(grid, chosen, strict=True):
        one, label = x[n : n + 1], labels[n : n + 1]
        deltas = fdl.backprop.deltas(model, LOSS, result.params, result.state, one, label)
        _, _, residuals = model.forward(result.params, result.state, one)
        _, dx = model.backward(residuals, deltas["output"])
        picture(row[0]).imshow(one[0, :, :, 0], cmap="gray_r", vmin=0, vmax=1)
        row[0].set_ylabel(f"{int(labels[n])}, read {int(logits[n].argmax())}", fontsize=10)
        height = np.asarray(deltas["output"][0])
        row[1].bar(range(10), height, color=np.where(height > 0, POSITIVE, NEGATIVE))
        row[1].axhline(0, color=GREY, linewidth=0.8)
        row[1].set_xticks(range(10))
        row[1].ticklabel_format(axis="y", scilimits=(-2, 2))
        row[1].grid(axis="x", visible=False)
        for axes, name in ((row[2], "conv_2"), (row[3], "conv_1")):
            picture(axes).imshow(np.linalg.norm(np.asarray(deltas[name][0]), axis=-1))
        scale = float(jnp.abs(dx).max())
        picture(row[4]).imshow(dx[0, :, :, 0], cmap=DIVERGING, vmin=-scale, vmax=scale)
    titles = ("digit", "error at the logits", "at conv_2", "at conv_1", "at the pixels")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=11)
    caption = (
        "The error of a typical test digit, and of the two with the largest loss, on its way back: at the logits; at the outputs of"
        " the two convolutions (length over the filters at each place, bright is large, each picture on its own scale); at the"
        " pixels, where red ink raises the loss and blue lowers it. Max pooling sends the error to one place in four; where"
        " all of a window is equal, as on empty ground, to its first."
    )
    return Figure("errors flowing back", fig, caption, wide=True)


def sizes(model: fdl.Layer, result: fdl.train.Result, train: Any, seed: int) -> Figure:
    """The size of the error at every layer with weights, before and after training."""
    x, labels = jnp.asarray(train[0][:1000]), jnp.asarray(train[1][:1000])
    names = ("output", "hidden", "conv_2", "conv_1")
    fig, axes = figure(height=3.4)
    places = np.arange(len(names))
    start, state = model.init(jax.random.key(seed), x.shape[1:])
    for offset, label, params, colour in ((-0.2, "before training", start, GREY), (0.2, "after", result.params, BLUE)):
        deltas = fdl.backprop.deltas(model, LOSS, params, state, x, labels)
        # times N: the mean over the batch put 1/N into every example's error
        lengths = [float(jnp.linalg.norm(deltas[n].reshape(len(x), -1) * len(x), axis=1).mean()) for n in names]
        axes.bar_label(
            axes.bar(places + offset, lengths, width=0.38, color=colour, label=label), fmt="%.2g", fontsize=9
        )
    axes.set_xticks(places, names)
    axes.set_yscale("log")
    axes.margins(y=0.2)
    axes.grid(axis="x", visible=False)
    axes.set_title("Size of the error at each layer", color=INK)
    axes.legend()
    return Figure("error by layer", fig, "Mean length of one example's error at the output of each layer with weights.")
