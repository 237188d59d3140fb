"""Binary cross-entropy on ten points, and its gradient where the model is sure and wrong.

Question: does logistic regression with the hand-written gradients reproduce the published probabilities of Godoy's ten
points and their loss; and does the gradient stay alive for a confident mistake, where a clipped formula has none?

Command: python -m experiments binary_cross_entropy

Expected: with L2 (C = 1, the intercept free) the ten probabilities and the mean loss 0.3329, as published; w and b are
those of Newton's method to 1e-12 and of scikit-learn to 1e-6. Without L2 the loss is 0.30516. dL/dz = p - y to the last
digits for |z| up to 1e4, where the loss is |z|; dL/dp = -1/p grows without end. Keras's formula of probabilities,
clipped at 1e-7, has a loss of at most 16.12 and no gradient beyond, so that a model that starts confidently wrong never
learns with it.

The line itself, w = 0.971934 and b = 0.655536, is not published: Godoy's script prints the probabilities and the loss.

Keras's formula is written out in numpy here: p = clip(sigmoid(z), 1e-7, 1 - 1e-7), then -y log p - (1 - y) log(1 - p).
"""

import decimal
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, relative_difference
from experiments._style import BLUE, GREEN, GREY, INK, VERMILION, WIDE, figure

X = np.asarray([-2.2, -1.4, -0.8, 0.2, 0.4, 0.8, 1.2, 2.2, 2.9, 4.6])
Y = np.asarray([0, 0, 1, 0, 1, 1, 1, 1, 1, 1], np.float64)
PUBLISHED_P = (0.19, 0.33, 0.47, 0.70, 0.74, 0.81, 0.86, 0.94, 0.97, 0.99)
MODEL = fdl.serial(z=fdl.dense(1))
LOSS = fdl.losses.sigmoid_binary_cross_entropy
PENALTY = fdl.regularizers.l2(1 / len(X), half=True)  # w^2 / (2 C N): scikit-learn's C = 1; biases are free
STEPS, LEARNING_RATE = 5000, 0.5
CLIP = 1e-7  # Keras's epsilon
EPS = np.finfo(np.float64).eps
GODOY = "Godoy 2018, Understanding binary cross-entropy"


def run(settings: Settings) -> Iterator[Evidence]:
    with jax.enable_x64(True):
        yield from ten_points()
        yield from sure_and_wrong()


# ---- the ten points


class Fit(NamedTuple):
    w: float
    b: float
    p: np.ndarray  # of being 1, at every point
    losses: np.ndarray  # of every point, without the penalty


def ten_points() -> Iterator[Evidence]:
    yield "logistic regression on the ten points"
    fitted, free = fit(PENALTY), fit(None)
    yield claim(
        "the loss is the published 0.3329",
        abs(fitted.losses.mean() - 0.3329),
        "<=",
        5e-5,
        quantity="difference",
        source=GODOY,
        note=f"{fitted.losses.mean():.6f}",
    )
    yield claim(
        "the ten probabilities are the published ones",
        np.abs(fitted.p - PUBLISHED_P).max(),
        "<=",
        0.005,
        quantity="largest difference",
        source=f"{GODOY}, rounded to two digits",
    )
    yield claim(
        "without the penalty the loss is 0.30516",
        abs(free.losses.mean() - 0.30516),
        "<=",
        5e-6,
        quantity="difference",
        source="maximum likelihood",
        note=f"w = {free.w:.5f}, b = {free.b:.5f}, loss {free.losses.mean():.6f}",
    )
    yield claim(
        "(w, b) is where Newton's method ends",
        relative_difference([fitted.w, fitted.b], newton()),
        "<",
        1e-12,
        quantity="relative difference of (w, b)",
        source="the same objective, w^2 / 2 + C sum loss, by its second derivatives in numpy",
        note=f"w = {fitted.w:.8f}, b = {fitted.b:.8f}",
    )
    peer = LogisticRegression(C=1.0, tol=1e-12, max_iter=1000).fit(X[:, None], Y)
    yield claim(
        "scikit-learn's LogisticRegression has the same line",
        relative_difference([fitted.w, fitted.b], [peer.coef_.item(), peer.intercept_.item()]),
        "<",
        1e-6,
        quantity="relative difference of (w, b)",
        source="the same objective, by L-BFGS",
    )
    yield claim(
        "the gradient at the start is the one of jax.grad",
        relative_difference(*(start_gradient(gradient) for gradient in ("manual", "autodiff"))),
        "<",
        1e-14,
        quantity="relative difference",
        source="chain rule",
    )
    share = Y.mean()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    constant = np.asarray(
        fdl.losses.binary_crossentropy(jnp.full((1, len(Y)), share), jnp.asarray(Y)[None], axis=-1)
    ).item()
    yield claim(
        "a model that only knows the share of ones pays the entropy of the labels",
        relative_difference(constant, entropy),
        "<",
        1e-14,
        quantity="relative difference",
        source=f"{GODOY}: entropy, cross-entropy and the divergence between them",
        note=f"H(0.7) = {entropy:.4f}; knowing x brings the loss to {fitted.losses.mean():.4f}",
    )
    yield points_figure(fitted)
    yield bars_figure(fitted)
    yield Table(
        "The ten points",
        ("x", "y", "p(y = 1)", "published", "p of what happened", "-log p of it"),
        [
            (float(x), int(y), float(p), q, math.exp(-loss), float(loss))
            for x, y, p, q, loss in zip(X, Y, fitted.p, PUBLISHED_P, fitted.losses, strict=True)
        ],
        "The loss is the mean of the last column.",
    )


def fit(penalty: fdl.Op | None) -> Fit:
    """Full-batch gradient descent from 0, in one program."""
    x, y = jnp.asarray(X)[:, None], jnp.asarray(Y)[:, None]
    gradient = fdl.backprop.value_and_grad(MODEL, LOSS, penalty)

    @jax.jit
    def whole(params):
        def step(_, params):
            grads = gradient(params, {}, x, y)[1]
            return jax.tree.map(lambda w, g: w - LEARNING_RATE * g, params, grads)

        params = jax.lax.fori_loop(0, STEPS, step, params)
        z = MODEL.apply(params, {}, x)[0]
        return params, jax.nn.sigmoid(z)[:, 0], LOSS(z, y)[:, 0]

    params, p, losses = whole(zeros())
    return Fit(float(params["z"]["w"][0, 0]), float(params["z"]["b"][0]), np.asarray(p), np.asarray(losses))


def newton() -> np.ndarray:
    """(w, b) of the penalised fit, without a line of fdl."""
    inputs, ridge, line = np.stack([X, np.ones_like(X)], axis=1), np.diag([1.0, 0.0]), np.zeros(2)
    for _ in range(20):
        p = 1 / (1 + np.exp(-inputs @ line))
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + ridge
        line = line - np.linalg.solve(hessian, inputs.T @ (p - Y) + ridge @ line)
    return line


def zeros() -> Any:
    return {"z": {"w": jnp.zeros((1, 1)), "b": jnp.zeros(1)}}


def start_gradient(gradient: str) -> np.ndarray:
    run = jax.jit(fdl.backprop.value_and_grad(MODEL, LOSS, PENALTY, gradient=gradient))
    grads = run(zeros(), {}, jnp.asarray(X)[:, None], jnp.asarray(Y)[:, None])[1]
    return np.asarray([grads["z"]["w"].item(), grads["z"]["b"].item()])


# ---- sure and wrong


def sure_and_wrong() -> Iterator[Evidence]:
    yield "confident mistakes"
    z = np.concatenate([-np.logspace(4, -4, 400), [0.0], np.logspace(-4, 4, 400)])
    logits = jnp.asarray(np.concatenate([z, z]))
    labels = jnp.asarray(np.repeat([0.0, 1.0], len(z)))
    slope = lambda z, y: LOSS.backward(LOSS.forward(z, y)[1], jnp.ones_like(z))[0]
    values, slopes = (np.asarray(a) for a in jax.jit(lambda z, y: (LOSS(z, y), slope(z, y)))(logits, labels))
    exact = np.asarray([error(float(s), int(y)) for s, y in zip(logits, labels, strict=True)])
    tiny = np.finfo(np.float64).tiny
    normal = np.abs(exact) >= tiny
    yield claim(
        "dL/dz = p - y for |z| up to 1e4, right answers and wrong ones",
        (np.abs(slopes - exact)[normal] / np.abs(exact)[normal]).max() / EPS,
        "<=",
        4,
        quantity="largest relative difference to 60-digit arithmetic, in eps",
        source="dL/dz = dL/dp dp/dz; Goodfellow et al. 2016, section 6.2.2.2",
        note=f"{(~normal).sum()} of {len(exact)} values are below the smallest normal float64, {tiny:.1e}",
    )
    yield claim(
        "and where |p - y| is below the range of float64 there is nothing left",
        np.abs(slopes - exact)[~normal].max(),
        "<=",
        tiny,
        quantity="largest difference",
    )
    wrong = np.asarray([(-1e4, 1.0), (1e4, 0.0)])
    value, pull = LOSS(jnp.asarray(wrong[:, 0]), jnp.asarray(wrong[:, 1])), slope(*jnp.asarray(wrong).T)
    yield claim(
        "sure and wrong, at |z| = 1e4, the pull is exactly 1",
        np.abs(np.asarray(pull) - [-1, 1]).max(),
        "==",
        0.0,
        quantity="largest |dL/dz - (p - y)|",
        source="p - y at p = 0 and 1",
    )
    yield claim(
        "and the loss is exactly |z|",
        np.abs(np.asarray(value) - 1e4).max(),
        "==",
        0.0,
        quantity="largest difference",
        source="softplus(z) -> z",
    )

    clipped_value, clipped_slope = clipped(np.asarray(logits), np.asarray(labels))
    edge = -math.log(CLIP)  # 16.118
    far = (np.abs(logits) > 1.01 * edge) & ((np.asarray(logits) > 0) != (np.asarray(labels) == 1))
    source = "Keras's binary_crossentropy of probabilities, epsilon 1e-7"
    yield claim(
        "clipped at 1e-7, the loss of a confident mistake stops growing",
        clipped_value.max(),
        "<",
        16.12,
        quantity="largest loss up to |z| = 1e4",
        source=source,
    )
    yield claim(
        "and its gradient is gone beyond |z| = 16.3",
        np.abs(clipped_slope[far]).max(),
        "==",
        0.0,
        quantity="largest |dL/dz| of a mistake",
        source=source,
    )
    p = np.logspace(-300, -0.5, 200)
    op = fdl.losses.binary_crossentropy
    dp = np.asarray(jax.jit(jax.grad(lambda p: op(p[:, None], jnp.ones((len(p), 1))).sum()))(jnp.asarray(p)))
    yield claim(
        "of probabilities, dL/dp = -1/p keeps growing down to p = 1e-300: nothing is clipped by default",
        np.abs(dp * p + 1).max(),
        "<",
        1e-14,
        quantity="largest |p dL/dp + 1| for y = 1",
        source="d(-log p)/dp",
    )
    rescue = recover()
    reached = np.flatnonzero(rescue.logit > 0)
    yield claim(
        "from z = -40 the logit of a positive example becomes right",
        int(reached[0]) if len(reached) else math.inf,
        "<=",
        41,
        quantity="steps of size 1",
        source="the pull is p - y = -1 until it is nearly right",
    )
    yield claim(
        "with the clipped formula it does not move at all",
        np.abs(rescue.clipped - rescue.clipped[0]).max(),
        "==",
        0.0,
        quantity="largest movement of z",
        source=source,
    )
    yield slopes_figure()
    yield rescue_figure(rescue)


def error(z: float, y: int) -> float:
    """p - y to 60 digits, then rounded once."""
    with decimal.localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -99999, 99999
        tail = 1 / (1 + decimal.Decimal(z if y else -z).exp())  # 1 - p of what happened, without a difference
        return float(-tail if y else tail)


def clipped(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss, dL/dz) of Keras's formula of probabilities: the clip has no derivative outside its range."""
    p = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
    held = np.clip(p, CLIP, 1 - CLIP)
    loss = -y * np.log(held) - (1 - y) * np.log(1 - held)
    inside = (p > CLIP) & (p < 1 - CLIP)
    return loss, np.where(inside, ((1 - y) / (1 - held) - y / held) * p * (1 - p), 0.0)


class Rescue(NamedTuple):
    """The logit of one positive example while it is learned, before every step and after the last."""

    logit: np.ndarray
    clipped: np.ndarray


def recover(steps: int = 60) -> Rescue:
    """One weight, x = 1, y = 1, from z = -40 in steps of learning rate 1: fdl's gradients, and the clipped ones."""
    gradient = fdl.backprop.value_and_grad(fdl.serial(z=fdl.dense(1, bias=False)), LOSS)
    one = jnp.ones((1, 1))

    @jax.jit
    def whole(w):
        def step(w, _):
            return w - gradient({"z": {"w": w}}, {}, one, one)[1]["z"]["w"], w[0, 0]

        return jax.lax.scan(step, w, length=steps + 1)[1]

    z = [-40.0]
    for _ in range(steps):
        z.append(z[-1] - clipped(np.asarray(z[-1]), np.asarray(1.0))[1].item())
    return Rescue(np.asarray(whole(jnp.full((1, 1), -40.0))), np.asarray(z))


# ---- figures

COLOURS = {0.0: VERMILION, 1.0: GREEN}


def points_figure(fitted: Fit) -> Figure:
    fig, axes = figure(height=3.8)
    x = np.linspace(-3.2, 5.2, 300)
    axes.plot(x, 1 / (1 + np.exp(-(fitted.w * x + fitted.b))), color=BLUE, label="fitted p(y = 1)")
    axes.vlines(X, Y, fitted.p, color=[COLOURS[y] for y in Y], linewidth=1, linestyle=":")
    for y, colour in COLOURS.items():
        axes.scatter(X[y == Y], Y[y == Y], s=55, color=colour, edgecolor="white", zorder=3, label=f"y = {y:g}")
    axes.scatter(X, fitted.p, s=14, color=INK, zorder=3)
    axes.axvline(-fitted.b / fitted.w, color=GREY, linewidth=1)
    axes.set_xlabel("x")
    axes.set_ylabel("probability")
    axes.set_ylim(-0.07, 1.07)
    axes.set_title("Ten points and their sigmoid")
    axes.legend(loc="center right")
    caption = (
        f"Godoy's ten points and the fitted p = sigmoid({fitted.w:.3f} x + {fitted.b:.3f}). A dotted line is what the model"
        " is short of certainty in what happened; the grey line is where it changes its mind."
    )
    return Figure("points", fig, caption)


def bars_figure(fitted: Fit) -> Figure:
    fig, (left, right) = figure(1, 2, width=WIDE, height=3.6)
    places, colours = np.arange(len(X)), [COLOURS[y] for y in Y]
    happened = np.exp(-fitted.losses)
    left.bar(places, np.ones(len(X)), color="#EEF0F3", width=0.8)
    for axes, heights in ((left, happened), (right, fitted.losses)):
        box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        axes.bar_label(axes.bar(places, heights, color=colours, width=0.8), fmt="%.2f", fontsize=9, padding=3, bbox=box)
        axes.set_xticks(places, [f"{x:g}" for x in X])
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("x")
    right.axhline(fitted.losses.mean(), color=INK, linewidth=1, linestyle="--", zorder=0)
    right.text(len(X) - 0.5, fitted.losses.mean() + 0.04, f"mean {fitted.losses.mean():.4f}", ha="right", va="bottom")
    right.margins(y=0.1)
    left.set_ylim(0, 1.1)
    left.set_title("p: the probability given to what happened")
    right.set_title("-log p: the loss of each point")
    caption = (
        "Left: how much probability the model gave to each point's own label (green: y = 1, orange: y = 0)."
        " Right: the negative logarithm of that, which is the point's loss; their mean is the binary cross-entropy. The"
        " one negative among the positives, at x = 0.2, costs the most."
    )
    return Figure("bars", fig, caption, wide=True)


def slopes_figure() -> Figure:
    z = np.linspace(-40, 10, 1001)
    y = np.ones_like(z)
    logits = jnp.asarray(z)
    values, residuals = LOSS.forward(logits, jnp.asarray(y))
    slopes = LOSS.backward(residuals, jnp.ones_like(logits))[0]
    fig, (left, right) = figure(1, 2, width=WIDE, height=3.6)
    for axes, ours, theirs, title in (
        (left, values, clipped(z, y)[0], "loss of a positive example"),
        (right, slopes, clipped(z, y)[1], "its gradient dL/dz"),
    ):
        axes.axvspan(-40, math.log(CLIP), color=VERMILION, alpha=0.07, linewidth=0)
        axes.plot(z, np.asarray(ours), color=BLUE, label="from logits (fdl)")
        axes.plot(z, theirs, color=VERMILION, linestyle="--", label="p clipped at 1e-7 (Keras's formula)")
        axes.set_xlabel("logit z")
        axes.set_xlim(-40, 10)
        axes.set_title(title)
    left.legend(loc="upper right")
    right.text(-39, -0.5, "sure and wrong:\nno gradient\nonce clipped", color=VERMILION, va="center")
    caption = (
        "Where the model is sure and wrong (left of the picture, z = -16.1 is p = 1e-7) the loss must keep growing and the"
        " gradient must stay: p - y = -1. The clipped formula goes flat there, in the shaded part, and cannot be learned"
        " from."
    )
    return Figure("confidently wrong", fig, caption, wide=True)


def rescue_figure(rescue: Rescue) -> Figure:
    fig, axes = figure(height=3.8)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.plot(rescue.logit, color=BLUE, label="from logits (fdl)")
    axes.plot(rescue.clipped, color=VERMILION, linestyle="--", label="p clipped at 1e-7")
    axes.set_xlabel("step")
    axes.set_ylabel("logit z of a positive example")
    axes.set_title("Learning from a confident mistake")
    axes.legend(loc="center right")
    caption = (
        "One positive example that the model begins by denying, at p = 4e-18. Step by step the unclipped gradient brings"
        " it over 0, where the model is right more often than not; the clipped one never starts."
    )
    return Figure("recovery", fig, caption)
