"""A gated recurrent unit that reads digits row by row, with a support vector machine for an output layer.

Question: does a gated recurrent unit whose last layer is trained as an L2 support vector machine (squared hinge, a penalty on the
weights of the margin) reach its published accuracy on MNIST read row by row, by hand-written backpropagation through time?

Command: python -m experiments gru_svm

Expected: on MNIST (--data-dir) a test accuracy within or above the published 0.965 to 0.988; on the small digits that come with the
package, read as 8 rows of 8 pixels, the same. The gradients agree with jax.grad to 1e-12 in float64, and an output that is right by
the margin sends no error back.

The rows of a picture are the steps of a sequence; a dense layer on the last state gives one score per digit, and

    1/2 |w|^2 + C sum_n sum_v max(1 - y[n, v] f[n, v], 0)^2        y = 1 for the digit, -1 for the others

is to be least, with C = 1/2; divided by 10 C times the batch its second term is fdl's squared hinge, a mean. 64 units; 10 epochs in batches
of 128 on MNIST, 60 in batches of 32 on the small digits; Adam, its rate falling from 0.005 along a cosine. (The author's scripts for
MNIST have 32 or 256 units, 10 or 100 epochs, Adagrad or Adam.) The same network with a softmax and cross-entropy stands beside it.
Sources: Agarap 2018 (arXiv 1709.03082: the unit with this loss, there on network traffic; gru_svm_mnist.py in its repository);
Tang 2013 (the L2 support vector machine on top of a network); Cho et al. 2014.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, largest, not_run, relative_difference
from experiments._style import BLUE, CYCLE, GREY, INK, SEQUENTIAL, VERMILION, WIDE, figure, picture

UNITS, C, CLASSES, RATE = 64, 0.5, 10, 5e-3
HINGE = fdl.losses.squared_hinge
SOFTMAX = fdl.losses.softmax_cross_entropy_with_integer_labels
MODEL = fdl.serial(recurrence=fdl.gru(UNITS, return_final=True), output=fdl.dense(CLASSES))
SOURCE = "Agarap 2018; the accuracies of this unit with this loss on MNIST"
PUBLISHED = 0.965


class Task(NamedTuple):
    """Pictures as sequences of rows [N, T, I], and how to train on them."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    epochs: int
    batch: int


def margin_weights(path: str, array: Any) -> bool:
    return path == "output/w"


def run(settings: Settings) -> Iterator[Evidence]:
    task = digits()
    yield claim(
        "the gradients by hand, through time and through the squared hinge, are those of jax.grad",
        agreement(task, settings.seed),
        "<",
        1e-12,
        quantity="largest relative difference over the leaves, float64",
        source="chain rule; fdl/layers/gru/gated.py, fdl/losses/squared_hinge.py",
    )
    yield f"{task.name}, 3 seeds"
    results = [trained(task, settings.seed + k) for k in range(3)]
    yield accuracy_claim(task, results)
    title = "MNIST is read as well as published"
    if settings.data_dir is None:
        expected = f"test accuracy, the worst seed >= {PUBLISHED}"
        yield not_run(title, expected, "give --data-dir with a folder mnist/", source=SOURCE)
    else:
        task, results = mnist(settings), []
        for k in range(5 if settings.full else 1):
            yield f"MNIST, {task.epochs} epochs, seed {settings.seed + k}"
            results.append(trained(task, settings.seed + k))
        yield accuracy_claim(task, results)
    yield "the same with a softmax"
    softmax = [trained(task, settings.seed + k, hinge=False) for k in range(len(results))]
    yield from no_error_behind_the_margin(task, results[0])
    yield curves(task, results, softmax, settings.seed)
    yield margins(task, results[0])
    yield row_by_row(task, results[0])
    rows = [
        (settings.seed + k, *(float(r.history["valid_accuracy"][-1]) for r in pair))
        for k, pair in enumerate(zip(results, softmax, strict=True))
    ]
    columns = ("seed", "support vector machine", "softmax")
    yield Table("Test accuracy of both output layers", columns, rows, f"{task.name}, after {task.epochs} epochs.")


def digits() -> Task:
    train, test = ((x[..., 0], y) for x, y in fdl.data.digits(images=True))
    return Task("the digits of 8x8 pixels", train, test, 60, 32)


def mnist(settings: Settings) -> Task:
    assert settings.data_dir is not None
    train, test = ((x[..., 0], y) for x, y in fdl.data.mnist(settings.data_dir / "mnist"))
    return Task("MNIST", train, test, 10, 128)


def signed(labels: np.ndarray) -> np.ndarray:
    """1 for the class, -1 for the others."""
    return 2 * np.eye(CLASSES, dtype=np.float32)[labels] - 1


def penalty(batch: int) -> fdl.Op:
    """1/2 |w|^2 beside a loss that is the mean over batch and classes, in the place of C times their sum."""
    return fdl.regularizers.l2(1 / (C * batch * CLASSES), half=True, filter=margin_weights)


def trained(task: Task, seed: int, hinge: bool = True) -> fdl.train.Result:
    steps = task.epochs * -(-len(task.train[0]) // task.batch)
    train, test = ((x, signed(y) if hinge else y) for x, y in (task.train, task.test))
    return fdl.train.fit(
        MODEL,
        HINGE if hinge else SOFTMAX,
        optax.adam(optax.cosine_decay_schedule(RATE, steps)),
        train,
        valid=test,
        epochs=task.epochs,
        batch_size=task.batch,
        penalty=penalty(task.batch) if hinge else None,
        metrics=("accuracy",),
        key=jax.random.key(seed),
        progress=False,
    )


# ---- what is claimed


def agreement(task: Task, seed: int) -> float:
    with jax.enable_x64(True):
        x, y = jnp.asarray(task.train[0][:64], jnp.float64), jnp.asarray(signed(task.train[1][:64]), jnp.float64)
        params, state = MODEL.init(jax.random.key(seed), x.shape[1:], jnp.float64)
        rng = np.random.default_rng(seed)
        params = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)
        ours, theirs = (
            jax.jit(fdl.backprop.value_and_grad(MODEL, HINGE, penalty(64), gradient=gradient))(params, state, x, y)[1]
            for gradient in ("manual", "autodiff")
        )
        return largest(map(relative_difference, jax.tree.leaves(ours), jax.tree.leaves(theirs)))


def accuracy_claim(task: Task, results: list[fdl.train.Result]) -> Evidence:
    last = [float(result.history["valid_accuracy"][-1]) for result in results]
    return claim(
        f"{task.name} {'is' if task.name == 'MNIST' else 'are'} read as well as published",
        min(last),
        ">=",
        PUBLISHED,
        quantity="test accuracy, the worst seed",
        source=SOURCE,
        note=f"{len(last)} seed{'s' if len(last) > 1 else ''}: {', '.join(f'{a:.4f}' for a in last)}",
    )


def scores(params: Any, x: Any) -> Any:
    """f [N, V]"""
    return MODEL.apply(params, {}, jnp.asarray(x))[0]


def no_error_behind_the_margin(task: Task, result: fdl.train.Result) -> Iterator[Evidence]:
    x, y = jnp.asarray(task.train[0][:1000]), jnp.asarray(signed(task.train[1][:1000]))
    deltas = fdl.backprop.deltas(MODEL, HINGE, result.params, {}, x, y)["output"]
    behind = scores(result.params, x) * y >= 1
    silent = float((np.asarray(deltas) == 0).all(axis=1).mean())
    yield claim(
        "an output that is right by the margin sends no error back",
        int(((deltas != 0) & behind).sum()),
        "==",
        0,
        quantity="scores behind the margin that send one",
        source="the derivation in fdl/losses/squared_hinge.py",
        note=f"{float(behind.mean()):.1%} of the scores are there; {silent:.1%} of the examples send none at all",
    )


# ---- figures


def curves(task: Task, results: list[fdl.train.Result], softmax: list[fdl.train.Result], seed: int) -> Figure:
    fig, axes = figure(height=3.6)
    for k, (result, other, colour) in enumerate(zip(results, softmax, CYCLE, strict=False)):
        epochs = np.arange(1, task.epochs + 1)
        axes.plot(epochs, 100 * (1 - result.history["valid_accuracy"]), color=colour, label=f"seed {seed + k}")
        axes.plot(epochs, 100 * (1 - other.history["valid_accuracy"]), color=colour, linestyle=":", linewidth=1.2)
    axes.axhline(100 * (1 - PUBLISHED), color=INK, linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set_yticks((1, 2, 5, 10, 20, 50), ("1", "2", "5", "10", "20", "50"))
    axes.minorticks_off()
    axes.set_xlabel("epoch")
    axes.set_title("Test digits misread, %")
    axes.legend()
    caption = f"{task.name}: support vector machine (lines) and softmax (dotted); dashed the published 0.965."
    return Figure("learning curves", fig, caption)


def margins(task: Task, result: fdl.train.Result) -> Figure:
    f = np.asarray(scores(result.params, task.test[0]))
    y = signed(task.test[1])
    fig, axes = figure(height=3.6)
    edges = np.linspace(-2, 3, 101)
    for wanted, colour, label in ((1, BLUE, "of the digit itself"), (-1, VERMILION, "of the other nine")):
        margin = np.clip((y * f)[y == wanted], edges[0], edges[-1])
        axes.hist(margin, edges, weights=np.full(len(margin), 100 / len(margin)), color=colour, alpha=0.6, label=label)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle="--")
    axes.set_xlabel("y f: how far on the right side")
    axes.set_ylabel("scores, %")
    axes.set_title("Test scores crowd at the margin")
    axes.legend(loc="upper left")
    caption = (
        "Left of the dashed line the squared hinge pulls, and the harder the further; right of it it does nothing."
    )
    return Figure("margins", fig, caption)


def row_by_row(task: Task, result: fdl.train.Result) -> Figure:
    """Three test digits and the scores of all classes while they are read."""
    x, labels = task.test
    f = np.asarray(scores(result.params, x))
    right = f[np.arange(len(f)), labels] - np.where(np.eye(CLASSES, dtype=bool)[labels], -np.inf, f).max(axis=1)
    order = np.argsort(right)
    chosen = [int(order[3 * len(order) // 4]), int(order[len(order) // 20]), int(order[0])]
    fig, grid = figure(3, 2, width=WIDE, height=6.4, gridspec_kw={"width_ratios": [1, 2.6]})
    for (left, axes), n in zip(grid, chosen, strict=True):
        picture(left).imshow(x[n], cmap="gray_r", vmin=0, vmax=1)
        left.set_ylabel(f"{labels[n]}, read {f[n].argmax()}")
        states, _ = fdl.ops.gru(result.params["recurrence"], jnp.asarray(x[n : n + 1]))  # [1, T, D]
        so_far = np.asarray(fdl.ops.dense(result.params["output"], states[0]))  # [T, V]
        extent = (0.5, len(so_far) + 0.5, CLASSES - 0.5, -0.5)
        image = axes.imshow(so_far.T, cmap=SEQUENTIAL, vmin=-1.5, vmax=1.5, aspect="auto", extent=extent)
        axes.set_yticks(range(CLASSES))
        axes.tick_params(labelsize=8)
        axes.grid(False)
        axes.axhline(labels[n], color=GREY, linewidth=0.8, linestyle=":")
        fig.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    grid[0][1].set_title("score of each digit after each row")
    grid[-1][1].set_xlabel("rows read")
    caption = (
        "Three test digits from the easy to the worst, and what the machine would answer after every row, from the top down"
        " (bright: this digit; dotted: the true one). Only the last column is trained."
    )
    return Figure("row by row", fig, caption, wide=True)
