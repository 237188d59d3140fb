"""Support vector machines by the hinge losses: which examples draw the line.

Question: does minimising the hinge or the squared hinge plus L2 by the hand-written gradients give the support vector
machines of scikit-learn; and is it true that only the examples within the margin count?

Command: python -m experiments hinge

Expected: with the squared hinge the coefficients and the cost are those of LinearSVC to 1e-6, with the hinge those of
SVC, where the cost is proven to be the smallest to 1e-9. The examples with a gradient are scikit-learn's support
vectors. Leaving out any other example moves the line by less than 1e-12; of logistic regression every example moves the
line. Beyond its margin the categorical hinge has a gradient of exactly 0, and cross-entropy never has.

scikit-learn minimises |w|^2 / 2 + C sum_n loss_n. Divided by C N that is the mean loss plus `l2(1 / (C N), half=True)`,
which spares the bias as SVC does; LinearSVC penalises the bias too, and there the filter of l2 says so. At its kink the
hinge has no gradient that descent could follow. Its subgradient still says on which side the minimum lies, which is
enough for the ellipsoid method, and bounds from below what the cost can be anywhere.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments import Evidence, Figure, Settings, claim, relative_difference
from experiments._ellipsoid import Least, ellipsoid
from experiments._style import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION, WIDE, figure

MODEL = fdl.serial(line=fdl.dense(1))
HINGE, SQUARED = fdl.losses.hinge, fdl.losses.squared_hinge
LOGISTIC = fdl.losses.sigmoid_binary_cross_entropy
C, EACH = 1.0, 40  # scikit-learn's strength of the loss, examples per class
N = 2 * EACH


def run(settings: Settings) -> Iterator[Evidence]:
    x, y = data(settings.seed)
    with jax.enable_x64(True):
        yield "squared hinge, by gradient descent"
        smooth = descend(SQUARED, x, y, np.ones(N))
        yield from as_linear_svc(x, y, smooth)
        yield "hinge, by the ellipsoid method"
        margin = maximum_margin(x, y)
        yield from as_svc(x, y, margin)
        yield "leaving out one example at a time"
        moved = {}
        for name, loss in (("squared hinge", SQUARED), ("logistic", LOGISTIC)):
            whole, *rest = descend(loss, x, y, np.concatenate([np.ones((1, N)), 1 - np.eye(N)]))
            moved[name] = np.linalg.norm(np.stack(rest) - whole, axis=1) / np.linalg.norm(whole)
        yield from without_one(pull(SQUARED, y, height(x, smooth)) != 0, moved)
        yield "several classes"
        yield from classes(settings.seed)
        yield margin_figure(x, y, margin.point)
        yield left_out_figure(y * height(x, smooth), moved)
        yield losses_figure()


def data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping clouds in the plane [N, 2], and their labels -1 and +1."""
    random = np.random.default_rng(seed)
    y = np.repeat([-1.0, 1.0], EACH)
    return 0.9 * random.normal(size=(N, 2)) + y[:, None] * [1.2, 0.9], y


def height(x: np.ndarray, line: np.ndarray) -> np.ndarray:
    """w x + b for line = (w, b)."""
    return x @ line[:2] + line[2]


def pull(loss: fdl.Op, y: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """dloss/dpred of every example."""
    return slopes(loss, pred[:, None], y[:, None])[:, 0]


def slopes(loss: fdl.Op, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    def backward(pred, target):
        values, residuals = loss.forward(pred, target)
        return loss.backward(residuals, jnp.ones_like(values))[0]

    return np.asarray(jax.jit(backward)(pred, target))


def cost(loss: fdl.Op, penalty: fdl.Op, x: Any, target: Any, line: Any, weights: Any = None) -> tuple[Any, Any]:
    """(mean loss + penalty, its gradient [3]) at line = (w, b)."""
    params = {"line": {"w": line[:2, None], "b": line[2:]}}
    gradient = fdl.backprop.value_and_grad(MODEL, loss, penalty)
    (value, _), grads = gradient(params, {}, jnp.asarray(x), jnp.asarray(target)[:, None], weights=weights)
    return value, jnp.concatenate([grads["line"]["w"][:, 0], grads["line"]["b"]])


# ---- squared hinge


def with_bias(examples: Any) -> fdl.Op:
    """L2 as LinearSVC has it."""
    return fdl.regularizers.l2(1 / (C * examples), half=True, filter=lambda path, array: True)


def descend(loss: fdl.Op, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(w, b) by gradient descent from 0, for weights [N] or many of them [..., N]; weight 0 leaves an example out."""
    target, curvature = ((y + 1) / 2, 1 / 4) if loss is LOGISTIC else (y, 2)
    inputs = np.concatenate([x, np.ones((N, 1))], axis=1)
    rate = 0.9 / (curvature * np.linalg.eigvalsh(inputs.T @ inputs / N)[-1])

    def whole(weights):
        penalty = with_bias(weights.sum())
        step = lambda _, line: line - rate * cost(loss, penalty, x, target, line, weights)[1]
        return jax.lax.fori_loop(0, 10_000, step, jnp.zeros(3))

    return np.asarray(jax.jit(jnp.vectorize(whole, signature="(n)->(d)"))(jnp.asarray(weights)))


def as_linear_svc(x: np.ndarray, y: np.ndarray, line: np.ndarray) -> Iterator[Evidence]:
    from sklearn.svm import LinearSVC

    dual: Any = False
    peer = LinearSVC(C=C, loss="squared_hinge", dual=dual, tol=1e-8, max_iter=10_000).fit(x, y)
    theirs = np.append(peer.coef_, peer.intercept_)
    yield claim(
        "squared hinge: the line is that of LinearSVC",
        relative_difference(line, theirs),
        "<",
        1e-6,
        quantity="relative difference of (w, b)",
        source="the same objective, by a trust-region Newton method",
        note=f"w = ({line[0]:.5f}, {line[1]:.5f}), b = {line[2]:.5f}",
    )
    cost_of = jax.jit(lambda line: cost(SQUARED, with_bias(N), x, y, line)[0])
    ours, at_theirs = float(cost_of(line)), float(cost_of(theirs))
    yield claim(
        "squared hinge: no lower cost is known to LinearSVC",
        (ours - at_theirs) / at_theirs,
        "<=",
        1e-14,
        quantity="cost less that of LinearSVC, relative",
        source="both minimise it",
        note=f"cost {ours:.9f}",
    )


# ---- hinge


def maximum_margin(x: np.ndarray, y: np.ndarray) -> Least:
    penalty = fdl.regularizers.l2(1 / (C * len(y)), half=True)
    whole = jax.jit(lambda: ellipsoid(lambda line: cost(HINGE, penalty, x, y, line), jnp.zeros(3), 30.0, 1500))
    return jax.device_get(whole())


def as_svc(x: np.ndarray, y: np.ndarray, margin: Least) -> Iterator[Evidence]:
    from sklearn.svm import SVC

    peer = SVC(kernel="linear", C=C, tol=1e-10, max_iter=10_000_000).fit(x, y)
    theirs, line = np.append(peer.coef_, peer.intercept_), margin.point
    yield claim(
        "hinge: the line is that of SVC",
        relative_difference(line, theirs),
        "<",
        1e-6,
        quantity="relative difference of (w, b)",
        source="Cortes & Vapnik 1995; the dual problem, by sequential minimal optimisation",
        note=f"w = ({line[0]:.5f}, {line[1]:.5f}), b = {line[2]:.5f}",
    )
    penalty = fdl.regularizers.l2(1 / (C * N), half=True)
    at_theirs = float(jax.jit(lambda line: cost(HINGE, penalty, x, y, line)[0])(theirs))
    yield claim(
        "hinge: the cost is that of SVC",
        abs(margin.value - at_theirs) / at_theirs,
        "<",
        1e-6,
        quantity="relative difference",
        source="both minimise it; SVC keeps its kernel in float32",
        note=f"cost {margin.value:.9f}, of SVC {at_theirs:.9f}",
    )
    yield claim(
        "hinge: no (w, b) within 30 of the origin has a lower cost",
        abs(margin.gap) / margin.value,
        "<",
        1e-9,
        quantity="cost less its lower bound by the subgradients, relative",
        source="the cost is convex and above each of its tangents",
    )
    # those on the margin have y pred = 1 up to rounding, on either side
    support = pull(HINGE, y, (1 - 1e-7) * height(x, line)) != 0
    yield claim(
        "hinge: the examples with a gradient are the support vectors of SVC",
        int((support != np.isin(np.arange(N), peer.support_)).sum()),
        "==",
        0,
        quantity="examples that are one and not the other",
        source="a support vector has a dual variable above 0, which is its slope",
        note=f"{support.sum()} of {N}, {(np.abs(y * height(x, line) - 1) < 1e-7).sum()} of them on the margin",
    )
    yield claim(
        "hinge: the support vectors alone have the same line",
        relative_difference(maximum_margin(x[support], y[support]).point, line),
        "<",
        1e-9,
        quantity="relative difference of (w, b)",
        source="all others have loss 0 and slope 0 at the minimum",
    )


# ---- what counts


def without_one(support: np.ndarray, moved: dict[str, np.ndarray]) -> Iterator[Evidence]:
    source = "slopes at the minimum: 0 beyond the margin, or never 0"
    quantity = "move of (w, b), relative to its length"
    yield claim(
        "squared hinge: without an example that is beyond the margin the line stays",
        moved["squared hinge"][~support].max(),
        "<",
        1e-12,
        quantity=f"largest {quantity}",
        source=source,
        note=f"{(~support).sum()} of {N} examples",
    )
    yield claim(
        "squared hinge: without a support vector it moves",
        moved["squared hinge"][support].min(),
        ">",
        1e-6,
        quantity=f"smallest {quantity}",
        source=source,
        note=f"largest {moved['squared hinge'].max():.3f}",
    )
    yield claim(
        "logistic regression: every example moves the line",
        moved["logistic"].min(),
        ">",
        1e-6,
        quantity=f"smallest {quantity}",
        source=source,
        note=f"largest {moved['logistic'].max():.3f}",
    )


def classes(seed: int) -> Iterator[Evidence]:
    random = np.random.default_rng(seed + 1)
    pred = 4 * random.normal(size=(2000, 5))
    target = np.eye(5)[random.integers(5, size=len(pred))]
    ahead = (pred * target).sum(1) - np.where(target == 1, 0.0, pred).max(1)
    sizes = {}
    for loss in (fdl.losses.categorical_hinge, fdl.losses.softmax_cross_entropy):
        sizes[loss] = np.abs(slopes(loss, pred, target)).max(1)
    by_hinge, by_entropy = sizes.values()
    yield claim(
        "categorical hinge: a gradient exactly where the wanted class is not ahead by 1",
        int(((by_hinge != 0) != (ahead < 1)).sum()),
        "==",
        0,
        quantity=f"of {len(pred)} random predictions, exceptions",
        source="Keras's categorical_hinge: ahead of the others and of 0",
        note=f"{(ahead > 1).sum()} are ahead, with gradients of exactly 0",
    )
    yield claim(
        "cross-entropy: a gradient everywhere",
        by_entropy.min(),
        ">",
        0.0,
        quantity="smallest max |dlogits| over the predictions",
        source="p - t, and p is never 0 or 1",
        note=f"of the example with the wanted class {ahead[by_entropy.argmin()]:.1f} ahead",
    )


# ---- figures

LABELS = {-1.0: (VERMILION, "s"), 1.0: (GREEN, "o")}


def margin_figure(x: np.ndarray, y: np.ndarray, line: np.ndarray) -> Figure:
    fig, axes = figure(height=4.4)
    support = y * height(x, line) < 1 + 1e-7
    for label, (colour, marker) in LABELS.items():
        mine = x[y == label]
        axes.scatter(*mine.T, s=18, color=colour, marker=marker, label=f"y = {label:+g}")
    axes.scatter(*x[support].T, s=85, facecolor="none", edgecolor=INK, linewidth=1.1, label="has a gradient")
    low, high = x.min(0) - 0.4, x.max(0) + 0.4
    grid = np.meshgrid(*np.linspace(low, high, 120).T)
    heights = height(np.stack(grid, axis=-1), line)
    axes.contourf(*grid, heights, levels=[-1, 1], colors=[BLUE], alpha=0.08)
    axes.contour(*grid, heights, levels=[-1, 0, 1], colors=BLUE, linestyles=["--", "-", "--"], linewidths=1.3)
    axes.set_aspect("equal")
    axes.set_xlabel("x1")
    axes.set_ylabel("x2")
    axes.set_title("Who draws the line")
    fig.legend(loc="outside lower center", ncols=3, columnspacing=1)
    caption = (
        f"The hinge's line and its margin y pred < 1 (shaded, {2 / np.linalg.norm(line[:2]):.2f} wide). Only the circled"
        f" examples, {support.sum()} of {N}, have a gradient: those on the edge of the margin, inside it, or on the wrong"
        " side. All others could be taken away, and the line would stay."
    )
    return Figure("margin", fig, caption)


def left_out_figure(margins: np.ndarray, moved: dict[str, np.ndarray]) -> Figure:
    fig, axes = figure(height=4.4)
    floor = 1e-17
    for (name, moves), colour, marker in zip(moved.items(), (BLUE, ORANGE), ("o", "^"), strict=True):
        axes.scatter(margins, np.maximum(moves, floor), s=16, color=colour, marker=marker, label=name)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel("y pred: how far on the right side")
    axes.set_ylabel("relative move of the line")
    axes.set_title("If one example is left out")
    axes.legend(loc="center left")
    caption = (
        "How far the line moves without one example, against where that example stands. Beyond the margin (dotted) the"
        f" squared hinge does not notice, but for rounding (a move of 0 is drawn at {floor:g}). Logistic regression listens"
        " to everyone, if less and less."
    )
    return Figure("left out", fig, caption)


def losses_figure() -> Figure:
    z = np.linspace(-2, 3, 1001)
    fig, (left, right) = figure(1, 2, width=WIDE, height=3.6)
    looks = (
        ("hinge", HINGE, BLUE, "-"),
        ("squared hinge", SQUARED, PURPLE, "--"),
        ("logistic", LOGISTIC, ORANGE, "-."),
    )
    for name, loss, colour, style in looks:
        values = jax.jit(loss)(z[:, None], np.ones((len(z), 1)))
        left.plot(z, np.asarray(values).reshape(len(z)), color=colour, linestyle=style, label=name)
        right.plot(z, pull(loss, np.ones_like(z), z), color=colour, linestyle=style, label=name)
    for axes in (left, right):
        axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel("y pred")
    left.set_ylim(-0.1, 4)
    right.set_ylim(-3, 0.15)
    left.set_title("The loss of an example")
    right.set_title("Its gradient")
    left.legend(loc="upper right")
    caption = (
        "Loss and gradient against y pred. From y pred = 1 on (dotted) both hinges are satisfied and pull no more; the"
        " logistic loss fades without ever being done. The hinge jumps there, which is why an example can rest on the"
        " margin with any pull between 0 and 1; the squared hinge bends."
    )
    return Figure("losses", fig, caption, wide=True)
