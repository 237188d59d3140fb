"""Feedback alignment (Lillicrap et al. 2016) beside backpropagation: the error comes back by another way.

Backpropagation sends the error back through the weights that brought the activity forward, delta_{l+1} = h' * W^T
delta_l. Feedback alignment puts a fixed random matrix B in the place of W^T and leaves all else as it is. The result is
not the gradient of anything, but the forward weights come to agree with B, and then it helps.

Source: Lillicrap, Cownden, Tweed & Akerman, "Random synaptic feedback weights support error backpropagation for deep
learning", Nature Communications 7, 13276 (2016).
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments._evidence import Claim, Figure, Settings, claim
from experiments._style import BLUE, GREEN, PURPLE, VERMILION, figure

MODEL = fdl.serial(
    first=fdl.dense(64), tanh_1=fdl.tanh(), second=fdl.dense(64), tanh_2=fdl.tanh(), output=fdl.dense(10)
)
LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
DENSE = ("first", "second", "output")
SOURCE = "Lillicrap et al. 2016"
SAME = "the same weights on the way back"
SEEDS, EPOCHS, BATCH, RATE = 5, 40, 32, 0.1


class Alignment(NamedTuple):
    """Curves of both ways of learning. Angles in degrees [seed, step, layer of DENSE], accuracies [seed, epoch]."""

    feedback_angles: np.ndarray  # between the feedback update and the gradient, at the same parameters
    backprop_angles: np.ndarray  # between hand-written backprop and jax.grad
    feedback_accuracy: np.ndarray
    backprop_accuracy: np.ndarray
    steps_per_epoch: int


def feedback_alignment(settings: Settings) -> Alignment:
    """Train both ways from the same start, in the same order, over several seeds at once."""
    train, test = (tuple(map(jnp.asarray, part)) for part in fdl.data.digits())
    keys = jax.random.split(jax.random.key(settings.seed), 4 * SEEDS if settings.full else SEEDS)
    curves = jax.jit(jax.vmap(functools.partial(_train, train, test)))(keys)
    return Alignment(*(np.asarray(c) for c in curves), steps_per_epoch=len(train[0]) // BATCH)


def feedback_update(params: Any, feedback: Any, x: Any, y: Any) -> Any:
    """Backpropagation with `feedback[layer]` in the place of every dense layer's weights on the way back.

    A dense layer keeps its weights as a residual for the error and its input for the gradient. So a forward pass with
    the other weights yields the residuals wanted here; its output is not used.
    """
    kept = {}
    for name, layer in MODEL.layers:
        other = {name: {**params[name], "w": feedback[name]["w"]}} if name in feedback else params
        _, _, kept[name] = layer.forward(other.get(name, {}), {}, x)
        x, _ = layer.apply(params.get(name, {}), {}, x)
    values, residuals = LOSS.forward(x, y)
    delta, _ = LOSS.backward(residuals, jnp.full_like(values, 1 / len(values)))
    update = {}
    for name, layer in reversed(MODEL.layers):
        dparams, delta = layer.backward(kept[name], delta)
        if dparams:
            update[name] = dparams
    return update


def proven(seed: int) -> Iterator[Claim]:
    """What the gradient prover says of a dense layer, and of the same layer with random feedback."""
    draw = np.random.default_rng(seed).normal
    params = {"w": jnp.asarray(draw(size=(7, 5)), jnp.float32), "b": jnp.asarray(draw(size=5), jnp.float32)}
    x, feedback = jnp.asarray(draw(size=(3, 7)), jnp.float32), jnp.asarray(draw(size=(7, 5)), jnp.float32)
    dense = fdl.ops.dense

    def forward(params, x):
        _, kept = dense.forward({**params, "w": feedback.astype(x.dtype)}, x)
        return dense(params, x), kept

    aligned = fdl.Op(dense.equation, forward, dense.backward, name="dense_with_random_feedback")
    for op, verdict, name in (
        (dense, "right", "the prover accepts the dense layer, whose error goes back through its own weights"),
        (aligned, "wrong", "the prover rejects the same layer with random feedback"),
    ):
        report = fdl.check.gradients(op, params, x, modes="quick", key=seed)
        yield claim(name, report.verdict, "==", verdict, quantity="verdict", source=SAME, note=report.sentence)


def alignment_claims(found: Alignment) -> Iterator[Claim]:
    hidden = found.feedback_angles[:, :, :2]
    first, last = hidden[:, 0], hidden[:, -found.steps_per_epoch :].mean(axis=1)  # [seed, layer]
    yield claim(
        "backprop by hand points where jax.grad points, at every step",
        found.backprop_angles.max(),
        "<",
        0.01,
        quantity="largest angle in degrees, float32",
        source=SAME,
    )
    yield claim(
        "with random feedback the hidden layers start at right angles to the gradient",
        first.mean(),
        "in",
        (80, 100),
        quantity="mean angle in degrees",
        source=SOURCE,
        note=f"over {len(first)} seeds and two layers, from {first.min():.0f} to {first.max():.0f}",
    )
    yield claim(
        "the forward weights align with the feedback",
        last.max(),
        "<",
        90,
        quantity="largest angle in degrees, mean of the last epoch",
        source=SOURCE,
        note=f"mean {last.mean():.0f}",
    )
    yield claim(
        "the update still is not the gradient",
        last.min(),
        ">",
        10,
        quantity="smallest angle in degrees, mean of the last epoch",
        source="the feedback matrix is not the transposed weights",
    )
    ours, theirs = found.backprop_accuracy[:, -1], found.feedback_accuracy[:, -1]
    yield claim(
        "backpropagation learns the digits",
        ours.mean(),
        ">",
        0.95,
        quantity="mean test accuracy",
        source="a small network on these data",
    )
    yield claim(
        "feedback alignment learns them too", theirs.mean(), ">", 0.9, quantity="mean test accuracy", source=SOURCE
    )


def angle_figure(found: Alignment) -> Figure:
    fig, axes = figure(height=3.6)
    steps = np.arange(found.feedback_angles.shape[1])
    for layer, (name, colour) in enumerate(zip(DENSE[:2], (VERMILION, PURPLE), strict=True)):
        angles = found.feedback_angles[:, :, layer]
        axes.plot(steps, angles.T, color=colour, alpha=0.13, linewidth=0.7)
        axes.plot(steps, _smooth(angles.mean(axis=0)), color=colour, label=f"feedback, {name} layer")
    axes.plot(steps, found.backprop_angles.max(axis=(0, 2)), color=BLUE, linewidth=2.2, label="backprop, all layers")
    axes.axhline(90, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(-4, 120)
    axes.set_yticks(range(0, 121, 30))
    axes.set_xlabel("step")
    axes.set_ylabel("angle in degrees")
    axes.set_title("Angle of the update to the gradient")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.05))
    seeds = len(found.feedback_angles)
    caption = (
        "Backpropagation stays at 0. Feedback alignment starts at right angles and turns towards the gradient; thin"
        f" lines are {seeds} seeds, the thick one is their running mean. Its output layer needs no feedback and has the"
        " exact gradient."
    )
    return Figure("feedback angle", fig, caption)


def learning_figure(found: Alignment) -> Figure:
    fig, axes = figure(height=3.6)
    pairs = (
        (found.backprop_accuracy, BLUE, "-", "backprop"),
        (found.feedback_accuracy, GREEN, "--", "feedback alignment"),
    )
    for curves, colour, style, label in pairs:
        epochs = np.arange(1, curves.shape[1] + 1)
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(epochs, curves.mean(axis=0), style, color=colour, label=f"{label}: {curves[:, -1].mean():.3f}")
    axes.set_ylim(0.5, 1.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy")
    axes.set_title("Learning the digits both ways")
    axes.legend(loc="lower right")
    seeds = len(found.backprop_accuracy)
    caption = f"Test accuracy on the digits, mean and range over {seeds} seeds, same start and same order."
    return Figure("feedback accuracy", fig, caption)


def _train(train: Any, test: Any, key: Any) -> tuple[Any, Any, Any, Any]:
    init_key, feedback_key, order_key = jax.random.split(key, 3)
    start, _ = MODEL.init(init_key, train[0].shape[1:])
    drawn, _ = MODEL.init(feedback_key, train[0].shape[1:])
    feedback = {name: drawn[name] for name in DENSE[1:]}  # the first layer passes no error on
    by_hand = fdl.backprop.value_and_grad(MODEL, LOSS)
    by_jax = fdl.backprop.value_and_grad(MODEL, LOSS, gradient="autodiff")

    def step(carry, rows):
        aligned, exact = carry
        x, y = train[0][rows], train[1][rows]
        update, truth = feedback_update(aligned, feedback, x, y), by_hand(aligned, {}, x, y)[1]
        gradient, oracle = by_hand(exact, {}, x, y)[1], by_jax(exact, {}, x, y)[1]
        angles = jnp.stack([_angle(update[n]["w"], truth[n]["w"]) for n in DENSE])
        check = jnp.stack([_angle(gradient[n]["w"], oracle[n]["w"]) for n in DENSE])
        move = lambda params, by: jax.tree.map(lambda p, g: p - RATE * g, params, by)
        return (move(aligned, update), move(exact, gradient)), (angles, check)

    def epoch(carry, key):
        rows = jax.random.permutation(key, len(train[0]))[: len(train[0]) // BATCH * BATCH].reshape(-1, BATCH)
        carry, angles = jax.lax.scan(step, carry, rows)
        return carry, (*angles, *(_accuracy(params, *test) for params in carry))

    _, (angles, check, aligned, exact) = jax.lax.scan(epoch, (start, start), jax.random.split(order_key, EPOCHS))
    return angles.reshape(-1, len(DENSE)), check.reshape(-1, len(DENSE)), aligned, exact


def _accuracy(params: Any, x: Any, y: Any) -> Any:
    return jnp.mean(MODEL.apply(params, {}, x)[0].argmax(axis=-1) == y)


def _angle(u: Any, v: Any) -> Any:
    """The angle between two arrays in degrees, by half-angles (Kahan): arccos is blind below 0.02 degrees."""
    u, v = u / jnp.linalg.norm(u), v / jnp.linalg.norm(v)
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(u - v), jnp.linalg.norm(u + v)))


def _smooth(curve: np.ndarray, width: int = 25) -> np.ndarray:
    """The running mean, over what there is at the ends."""
    ones = np.ones(min(width, len(curve)))
    return np.convolve(curve, ones, mode="same") / np.convolve(np.ones(len(curve)), ones, mode="same")
