"""The doctor on patients whose illness is known, and on healthy ones.

Question: when one fault is planted in a training, does `fdl.doctor.diagnose` name that fault first; and does it find nothing
wrong with trainings that are well?

Command: python -m experiments doctor_cases

Expected: of the planted faults, covering every code, the first finding is the planted one in at least 19 of 20; of 10 healthy
trainings (dense, convolutional, recurrent) none raises an alarm.

Every patient learns the 8x8 digits (with --data-dir one healthy one learns MNIST) for some hundred steps; a chart is made at
the start and after each part of the training, and the diagnosis sees these charts and the history of losses. The patients are
chosen so that many share a compiled program: a fault is a rate, a mask on the updates, other initial parameters or other data.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Settings, Table, claim, not_run

LABELS = fdl.losses.softmax_cross_entropy_with_integer_labels
BINARY = fdl.losses.sigmoid_binary_cross_entropy
PARTS, STEPS = 4, 40  # a chart, then so many steps; four times, and a last chart
BATCH = 32


def _unchanged(params: Any) -> Any:
    return params


class Patient(NamedTuple):
    """`wanted` is the code of the planted fault. start: changes the initial parameters; moves: 1 where updates count, else 0;
    data: changes (x, y) of training; first: how many examples there are; fresh: the state is not carried from step to step."""

    name: str
    wanted: str
    model: fdl.Layer
    rate: float = 3e-3
    loss: Any = LABELS
    start: Callable[[Any], Any] = _unchanged
    moves: Callable[[Any], Any] | None = None
    data: Callable[..., Any] | None = None
    batch: int = BATCH
    first: int = 0
    parts: int = PARTS
    steps: int = STEPS
    optimizer: str = "adam"
    fresh: bool = False
    shape: tuple[int, ...] = (64,)


def run(settings: Settings) -> Iterator[Evidence]:
    examples = fdl.data.digits()
    rows, right = [], 0
    yield "planted faults"
    sick = planted()
    for patient in sick:
        findings = examined(patient, examples, settings.seed)
        right += findings[0].code == patient.wanted
        rows.append((patient.name, patient.wanted, findings[0].code == patient.wanted, str(findings[0])))
        if findings[0].code != patient.wanted:
            yield f"{patient.name}: wanted {patient.wanted}, found " + " | ".join(map(str, findings[:3]))
    yield claim(
        "the first finding is the planted fault",
        right,
        ">=",
        math.ceil(0.95 * len(sick)),
        quantity=f"of {len(sick)} planted faults, named first",
        source="19 of 20",
    )
    covered = {patient.wanted for patient in sick}
    yield claim(
        "every code is planted at least once",
        len(set(fdl.doctor.CODES) - covered - {"healthy"}),
        "==",
        0,
        quantity="codes without a patient",
    )
    yield "healthy trainings"
    alarms = []
    for patient, data in healthy(settings, examples):
        findings = examined(patient, data, settings.seed)
        rows.append((patient.name, "healthy", findings[0].code == "healthy", str(findings[0])))
        if findings[0].code != "healthy":
            alarms.append(f"{patient.name}: {findings[0]}")
            yield alarms[-1]
    yield claim(
        "healthy trainings raise no alarm",
        len(alarms),
        "==",
        0,
        quantity=f"of {len(rows) - len(sick)} healthy trainings, with an alarm",
        note="; ".join(alarms),
    )
    if settings.data_dir is None:
        yield not_run("a convolutional net on MNIST raises no alarm", "healthy", "MNIST needs --data-dir")
    yield Table("Patients", ("patient", "planted", "named first", "first finding"), rows)


# ---- a training that is watched


def examined(patient: Patient, data: Any, seed: int) -> list[fdl.doctor.Finding]:
    """The findings of one training."""
    (x, y), (xv, yv) = data
    x, xv = (a.reshape(len(a), *patient.shape) for a in (x, xv))
    if patient.data is not None:
        x, y, xv, yv = patient.data(x, y, xv, yv, np.random.default_rng(seed))
    key = jax.random.key(seed)
    params, state = patient.model.init(key, x.shape[1:])
    params = patient.start(params)
    moves = jax.tree.map(jnp.ones_like, params) if patient.moves is None else patient.moves(params)
    sizes = (patient.batch, patient.parts, patient.steps)
    course = training(patient.model, patient.loss, patient.optimizer, patient.fresh, *sizes)
    charts, history = course(params, state, moves, patient.rate, patient.first or len(x), (x, y), (xv, yv), key)
    return fdl.doctor.diagnose(charts, history)


@functools.cache
def training(model: fdl.Layer, loss: Any, optimizer: str, fresh: bool, batch: int, parts: int, steps: int) -> Callable:
    """(params, state, moves, rate, first, (x, y), valid, key) -> (charts [parts + 1], history), compiled."""
    gradients = fdl.backprop.value_and_grad(model, loss)

    def run(params, state, moves, rate, first, data, valid, key):
        own = {"adam": optax.adam, "sgd": optax.sgd}[optimizer](rate)
        mask = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, moves))
        made = optax.chain(own, mask)

        def draw(key):
            rows = jax.random.randint(key, (batch,), 0, first)
            return jax.tree.map(lambda a: a[rows], data)

        def step(carry, key):
            params, state, opt = carry
            x, y = draw(key)
            (value, new), grads = gradients(params, state, x, y, key if model.stochastic else None)
            updates, opt = made.update(grads, opt, params)
            moved: Any = optax.apply_updates(params, updates)
            return (moved, state if fresh else new, opt), value

        def chart(carry, key, number):
            params, state, opt = carry
            x, y = draw(jax.random.fold_in(key, 1))
            key = key if model.stochastic else None
            return fdl.doctor.examine(model, loss, params, state, x, y, key, made, opt, step=number * steps, spectrum=0)

        def part(carry, at):
            number, key = at
            seen = chart(carry, key, number)
            carry, values = jax.lax.scan(step, carry, jax.random.split(key, steps))
            params, state, _ = carry
            of_valid = loss(model.apply(params, state, valid[0])[0], valid[1])
            return carry, (seen, jnp.mean(values), jnp.mean(of_valid))

        start = (params, state, made.init(params))
        # the last chart is that of one more part, whose steps nobody sees
        _, found = jax.lax.scan(part, start, (jnp.arange(parts + 1), jax.random.split(key, parts + 1)))
        return found

    program = jax.jit(run)

    def course(*args):
        charts, losses, of_valid = program(*args)
        return charts, {"loss": np.asarray(losses)[:-1], "valid_loss": np.asarray(of_valid)[:-1]}

    return course


# ---- models

RELU = fdl.serial(fdl.dense(32), fdl.relu(), fdl.dense(32), fdl.relu(), output=fdl.dense(10))
TANH = fdl.serial(fdl.dense(32), fdl.tanh(), fdl.dense(32), fdl.tanh(), output=fdl.dense(10))
SIGMOIDS = fdl.serial(*(layer for _ in range(8) for layer in (fdl.dense(24), fdl.sigmoid())), output=fdl.dense(10))
DEEP = fdl.serial(*(layer for _ in range(8) for layer in (fdl.dense(24), fdl.relu())), output=fdl.dense(10))
NORMED = fdl.serial(fdl.dense(32), fdl.batch_norm(), fdl.relu(), output=fdl.dense(10))
CONV = fdl.serial(
    fdl.conv(8, (3, 3)),
    fdl.relu(),
    fdl.max_pool((2, 2)),
    fdl.conv(16, (3, 3)),
    fdl.relu(),
    fdl.flatten(),
    fdl.dense(10),
)
NORMED_CONV = fdl.serial(
    fdl.conv(8, (3, 3), bias=False), fdl.batch_norm(), fdl.relu(), fdl.global_avg_pool(), output=fdl.dense(10)
)
GRU = fdl.serial(fdl.gru(24), fdl.last_step(), output=fdl.dense(10))


def _root(x):
    return jnp.sqrt(jnp.maximum(x, 0))


def _centred(x):
    return x - jnp.mean(x, axis=0, keepdims=True)


# two layers with a mistake in them: the slope of a root at 0, and a mean over the examples
ROOT = fdl.Op(_root, lambda x: (_root(x), x), lambda x, dy: (jnp.where(x >= 0, dy / (2 * _root(x)), 0.0),), name="root")
CENTRED = fdl.Op(_centred, lambda x: (_centred(x), ()), lambda _, dy: (_centred(dy),), name="centred")


# ---- planted faults


def planted() -> list[Patient]:
    layers = ("dense_0", "dense_2", "output")

    def scaled(factor, names=layers):
        return lambda params: {
            name: {**own, "w": factor * own["w"]} if name in names else own for name, own in params.items()
        }

    def drawn(scale):  # normal weights with deviation scale / sqrt(I), the same for every model
        def start(params):
            random = np.random.default_rng(5)

            def draw(leaf):
                size = scale / math.sqrt(leaf.shape[0])
                return jnp.asarray(random.normal(size=leaf.shape) * size, leaf.dtype) if leaf.ndim == 2 else leaf

            return jax.tree.map(draw, params)

        return start

    def biased(params):
        return {**params, "dense_0": {**params["dense_0"], "b": params["dense_0"]["b"] - 30.0}}

    def without_outgoing(params):
        w = params["output"]["w"].at[:5].set(0.0)
        return {**params, "output": {**params["output"], "w": w}}

    def pruned(params):
        ones = jax.tree.map(jnp.ones_like, params)
        ones["output"]["w"] = ones["output"]["w"].at[:5].set(0.0)
        return ones

    def only(*names):
        def moves(params):
            count = {name: float(name in names) for name in params}
            return {
                name: {leaf: jnp.full_like(a, count[name]) for leaf, a in own.items()} for name, own in params.items()
            }

        return moves

    def alike(value):
        return lambda params: jax.tree.map(lambda a: jnp.full_like(a, value) if a.ndim > 1 else a, params)

    def broken(params):
        return {**params, "dense_2": {**params["dense_2"], "w": params["dense_2"]["w"].at[3, 4].set(jnp.nan)}}

    def infinite(x, y, xv, yv, random):
        x = x.copy()
        x[::7, 5] = np.inf
        return x, y, xv, yv

    def outside(x, y, xv, yv, random):
        return x, y + 1, xv, yv

    def bytes_(x, y, xv, yv, random):
        return 255 * x, y, 255 * xv, yv

    def offset(x, y, xv, yv, random):
        return x + 100, y, xv + 100, yv

    def stuck(x, y, xv, yv, random):
        x = x.copy()
        x[:, 20:30] = 0.7
        return x, y, xv, yv

    def same(x, y, xv, yv, random):
        return x, np.full_like(y, 3), xv, yv

    def shuffled(x, y, xv, yv, random):
        return x, random.permutation(y), xv, yv

    def noisy(x, y, xv, yv, random):
        return x, np.where(random.random(len(y)) < 0.8, random.integers(0, 10, len(y)), y).astype(y.dtype), xv, yv

    def one_hot(x, y, xv, yv, random):
        eye = np.eye(10, dtype=np.float32)
        return x, eye[y], xv, eye[yv]

    deep: dict[str, Any] = {"start": drawn(4.0), "rate": 1e-3, "optimizer": "sgd"}
    few: dict[str, Any] = {"batch": 2, "steps": 20}
    softmaxed = fdl.serial(fdl.dense(32), fdl.relu(), fdl.dense(10), fdl.softmax())
    sigmoids = fdl.serial(fdl.dense(32), fdl.relu(), fdl.dense(10), fdl.sigmoid())
    plain = fdl.serial(fdl.dense(32), fdl.relu(), fdl.dense(10))
    rooted = fdl.serial(fdl.dense(16), fdl.relu(), fdl.Layer.from_op("root", ROOT), fdl.dense(10))
    centred = fdl.serial(fdl.dense(16), fdl.Layer.from_op("centred", CENTRED), fdl.relu(), fdl.dense(10))
    axis = fdl.serial(fdl.dense(16), fdl.softmax(axis=0), fdl.dense(10))
    return [
        Patient("eight sigmoids", "vanishing", SIGMOIDS),
        Patient("eight relus, tiny weights", "vanishing", DEEP, start=drawn(0.3), optimizer="sgd", rate=1e-2),
        Patient("eight relus, large weights", "exploding", DEEP, **deep),
        Patient("tanh, weights 30 times too large", "saturated", TANH, start=scaled(30.0, ("dense_0", "dense_2"))),
        Patient("relu, biases of -30", "dead_units", RELU, start=biased),
        Patient("pruned outgoing weights", "dead_weights", RELU, start=without_outgoing, moves=pruned),
        Patient("all weights 0", "zero_init_symmetry", RELU, start=alike(0.0)),
        Patient("all weights 0.1", "zero_init_symmetry", TANH, start=alike(0.1)),
        Patient("output weights 20 times too large", "bad_initial_loss", RELU, start=scaled(20.0, ("output",))),
        Patient("rate 100 times too high", "learning_rate_too_high", RELU, rate=1.0),
        Patient("sgd, rate 30", "learning_rate_too_high", TANH, rate=30.0, optimizer="sgd"),
        Patient("rate 10,000 times too low", "learning_rate_too_low", RELU, rate=3e-8),
        Patient("a NaN among the weights", "non_finite", RELU, start=broken),
        Patient("infinite pixels", "non_finite", RELU, data=infinite),
        Patient("labels from 1 to 10", "non_finite", RELU, data=outside),
        Patient("the slope of a root at 0", "non_finite", rooted),
        Patient("pixels up to 255", "input_not_scaled", RELU, data=bytes_),
        Patient("pixels with an offset of 100", "input_not_scaled", TANH, data=offset),
        Patient("ten stuck pixels", "constant_feature", RELU, data=stuck),
        Patient("one label for all", "labels_shuffled_or_constant", RELU, data=same),
        Patient("shuffled labels", "labels_shuffled_or_constant", RELU, data=shuffled),
        Patient("softmax before a loss of logits", "loss_expects_logits", softmaxed),
        Patient("sigmoid before a loss of logits", "loss_expects_logits", sigmoids, loss=BINARY, data=one_hot),
        Patient(
            "logits to a loss of probabilities",
            "loss_expects_logits",
            plain,
            loss=fdl.losses.categorical_crossentropy,
            data=one_hot,
        ),
        Patient("batch norm on batches of 2", "batch_norm_small_batch", NORMED, **few),
        Patient("state not carried", "batch_norm_train_eval_gap", NORMED, fresh=True, rate=1e-2),
        Patient("centred over the batch", "example_leak", centred),
        Patient("softmax over the batch", "example_leak", axis),
        Patient("a layer without updates", "frozen_layer", RELU, moves=only("dense_2", "output")),
        Patient("noisy labels, batches of 2", "gradient_noise", RELU, data=noisy, **few),
        Patient("40 examples, 2,000 steps", "overfit", RELU, first=40, parts=6, steps=300, rate=1e-2),
    ]


# ---- healthy trainings


def healthy(settings: Settings, digits: Any) -> Iterator[tuple[Patient, Any]]:
    block = fdl.residual(fdl.layer_norm(), fdl.dense(32), fdl.gelu())
    normed = (fdl.dense(32), fdl.batch_norm(), fdl.sigmoid())
    normed_sigmoids = fdl.serial(*normed, *normed, output=fdl.dense(10))
    picture: dict[str, Any] = {"shape": (8, 8, 1)}
    sequence: dict[str, Any] = {"shape": (8, 8)}
    for patient in (
        Patient("two relu layers", "healthy", RELU),
        Patient("two relu layers, sgd", "healthy", RELU, rate=0.1, optimizer="sgd"),
        Patient("two tanh layers", "healthy", TANH),
        Patient("batch norm", "healthy", NORMED),
        Patient("sigmoids behind batch norm", "healthy", normed_sigmoids, rate=1e-2),
        Patient("residual blocks", "healthy", fdl.serial(fdl.dense(32), block, block, output=fdl.dense(10))),
        Patient("convolutions", "healthy", CONV, **picture),
        Patient("convolution, batch norm, pooling", "healthy", NORMED_CONV, rate=1e-2, **picture),
        Patient("gated recurrent unit", "healthy", GRU, rate=1e-2, **sequence),
        Patient("dropout", "healthy", fdl.serial(fdl.dense(32), fdl.relu(), fdl.dropout(0.2), output=fdl.dense(10))),
    ):
        yield patient, digits
    if settings.data_dir is not None:
        (x, y), (xv, yv) = fdl.data.mnist(settings.data_dir / "mnist")
        mnist = (x[:6000], y[:6000]), (xv[:1000], yv[:1000])
        yield Patient("convolutions on MNIST", "healthy", CONV, shape=(28, 28, 1)), mnist
