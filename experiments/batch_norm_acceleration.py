"""High learning rates, sigmoids, no dropout: the accelerations of batch normalization, on a small convolutional network.

Question: do the networks of Ioffe & Szegedy (2015, section 4.2, figures 2 to 4) come out in the same order when they are small:
which of them trains at 5 and at 30 times the learning rate, how many steps does each need for the baseline's accuracy, can sigmoids be
trained, is dropout needed, what does an ensemble of six gain, and how far do the inputs to a layer drift?

Command: python -m experiments batch_norm_acceleration

Expected: without batch normalization the network loses accuracy at 5 times its best learning rate and learns nothing at 30 times;
with sigmoids it learns at no rate. With it all of these train. It reaches the baseline's accuracy in fewer steps, in fewer still at 5
times the rate. The ensemble beats its members, and the inputs to the last hidden layer drift less. Of the paper's findings in its own
words (--full, --data-dir) some fail at this scale: nothing overflows (the relus die first), 30 times the rate is too much, and six times
faster decay ends such short runs early; at the baseline's decay BN-x5 is the best on CIFAR-10. That 30 times is too much holds for runs
of 2,400 steps, for twice the baseline's rate (the largest at which it still trains), and for ten layers in place of four too.

The network has two convolutions with max pooling and one dense hidden layer; batches of 32, momentum 0.9, a learning rate that
decays exponentially. The variants are those of the paper: "baseline" (dropout 40 %, L2), "BN" (the same with batch normalization),
"BN-x5" and "BN-x30" (5 and 30 times the rate, no dropout, a fifth of L2, six times faster decay), "BN-x5-sigmoid". Local response
normalization, shuffling within shards and photometric distortion have no counterpart here. By default: digits of 8x8 pixels, 400 steps,
3 seeds, all variants of one network in one vmapped program. With --full 1,200 steps, eight seeds, and the paper's claims in its own
words, whether they hold at this scale or not; with --data-dir these claims on 10,000 pictures of CIFAR-10 too.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, not_run
from experiments._style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, WIDE, figure

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
BATCH, MOMENTUM, DECAY = 32, 0.9, 2.3
DROPOUT, STRENGTH = 0.4, 1e-4
WATCHED = 128  # examples on which the inputs to the last hidden layer's activations are looked at
CHECKS, LAST = 40, 3  # points of every curve; those whose mean is the end
CHANCE = 0.15  # ten classes
# the baseline's rate: the best of a grid for itself. Digits, test accuracy after 500 steps: 0.02 0.933, 0.05 0.959, 0.1 0.960, 0.25 0.36;
# CIFAR-10, after 400 steps: 0.01 0.406, 0.02 0.448, 0.05 0.448, 0.1 0.408. Of two as good the smaller.
DIGITS_BASE, CIFAR_BASE = 0.05, 0.02
PAPER = "Ioffe & Szegedy 2015"


class Task(NamedTuple):
    """What is trained on. base: the baseline's learning rate, chosen for its own best accuracy."""

    name: str
    train: Any
    test: Any
    widths: tuple[int, int, int]
    base: float
    steps: int
    seeds: int
    in_turn: bool  # the networks one after the other, where each alone fills the machine


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the paper's figure 3: what is trained, and how; rate and decay as multiples of the baseline's."""

    normalized: bool = True
    activation: str = "relu"
    rate: float = 1.0
    dropout: float = 0.0
    l2: float = STRENGTH / 5
    decay: float = 6.0
    wider: float = 1.0  # the initial weights of the convolutions


BASELINE: Any = {"dropout": DROPOUT, "l2": STRENGTH, "decay": 1.0}
VARIANTS = {
    "baseline": Variant(False, **BASELINE),
    "baseline-x5": Variant(False, rate=5.0, **BASELINE),
    "baseline-x30": Variant(False, rate=30.0, **BASELINE),
    "BN": Variant(**BASELINE),
    "BN-x5": Variant(rate=5.0),
    "BN-x30": Variant(rate=30.0),
    "BN-x5 with dropout": Variant(rate=5.0, dropout=DROPOUT),
    "BN-x5 with slow decay": Variant(rate=5.0, decay=1.0),
    "BN-x30 with slow decay": Variant(rate=30.0, decay=1.0),
    "sigmoid": Variant(False, "sigmoid", **BASELINE),
    "sigmoid-x5": Variant(False, "sigmoid", rate=5.0, **BASELINE),
    "sigmoid-x30": Variant(False, "sigmoid", rate=30.0, **BASELINE),
    "BN-x5-sigmoid": Variant(activation="sigmoid", rate=5.0),
}
MEMBERS = [Variant(rate=30.0, dropout=d, wider=w) for d in (0.0, 0.05, 0.1) for w in (1.0, 2.0)]
SWEEP = (0.2, 2.0, 10.0)  # further rates, one seed each, with and without normalization


class Run(NamedTuple):
    """What came of some variants: all arrays begin with [networks]."""

    loss: np.ndarray  # [networks, checks]
    accuracy: np.ndarray  # [networks, checks], on the test examples
    inputs: np.ndarray  # [networks, checks, WATCHED, units], sorted over the examples
    params: Any
    state: Any


def run(settings: Settings) -> Iterator[Evidence]:
    (x, labels), test = fdl.data.digits(images=True)
    steps, seeds = (1200, 8) if settings.full else (400, 3)  # after 1,200 the baseline gains no more
    digits = Task("digits", (x, labels), test, (8, 16, 32), DIGITS_BASE, steps, seeds, False)
    found: dict[str, Run] = {}
    yield from trained_variants(digits, settings.seed, found)
    yield from judged(digits, found)
    if settings.full:
        yield from as_published(digits, found)
    else:
        yield not_run(
            "the paper's order, in its own words", "see the claims of --full", "only with --full or --data-dir"
        )
    yield from noise(digits, found["BN-x5"], settings.seed)
    yield from ensemble(digits, settings.seed, found)
    yield from drift(digits, found)
    yield curves(digits, found)
    yield rates(digits, found)
    yield table(digits, found)
    if settings.data_dir is not None:
        (x, labels), test = fdl.data.cifar10(settings.data_dir / "cifar10")
        task = Task("CIFAR-10", (x - 0.5, labels), (test[0] - 0.5, test[1]), (16, 32, 64), CIFAR_BASE, 1500, 1, True)
        found = {}
        yield from trained_variants(task, settings.seed, found)
        yield from as_published(task, found)
        yield curves(task, found)
        yield table(task, found)


# ---- training


def network(normalized: bool, activation: str, widths: tuple[int, int, int], dropout: Any) -> fdl.Layer:
    layers: dict[str, fdl.Layer] = {}
    for place, width in enumerate(widths, 1):
        if place == 3:
            layers["flatten"] = fdl.flatten()
        bias = not normalized
        layers[f"layer_{place}"] = fdl.dense(width, bias=bias) if place == 3 else fdl.conv(width, (3, 3), bias=bias)
        if normalized:
            layers[f"batch_norm_{place}"] = fdl.batch_norm()
        layers[f"activation_{place}"] = getattr(fdl, activation)()
        if place < 3:
            layers[f"pool_{place}"] = fdl.max_pool((2, 2))
    return fdl.serial(**layers, dropout=fdl.dropout(dropout), output=fdl.dense(10))


def before_last(model: fdl.Layer) -> fdl.Layer:
    """Up to the last activation: what it gets."""
    names = [name for name, _ in model.layers]
    return fdl.serial(**dict(model.layers[: names.index("activation_3")]))


def trained(task: Task, variants: list[Variant], seeds: list[int]) -> Run:
    """Variants of one network (normalized and activation are the same for all), each with its seed."""
    (kind,) = {(v.normalized, v.activation) for v in variants}
    names = ("rate", "dropout", "l2", "decay", "wider")
    settings = {n: jnp.asarray([getattr(v, n) for v in variants], jnp.float32) for n in names}
    settings["rate"] = settings["rate"] * task.base
    arrays = tuple(map(jnp.asarray, (*task.train, *task.test)))
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    found: Any = jax.device_get(_all(kind, task.widths, task.steps, task.in_turn, settings, keys, arrays))
    return Run(*found)


@functools.partial(jax.jit, static_argnums=range(4))
def _all(kind: Any, widths: Any, steps: int, in_turn: bool, settings: Any, keys: Any, arrays: Any) -> Any:
    one = lambda each: _one(kind, widths, steps, each[0], each[1], arrays)
    return jax.lax.map(one, (settings, keys)) if in_turn else jax.vmap(one)((settings, keys))


def _one(kind: Any, widths: Any, steps: int, setting: Any, key: Any, arrays: Any) -> Any:
    x, labels, x_test, labels_test = arrays
    every = steps // CHECKS
    model = network(kind[0], kind[1], widths, setting["dropout"])
    before = before_last(model)
    gradients = fdl.backprop.value_and_grad(model, LOSS, fdl.regularizers.l2(setting["l2"], half=True))

    def step(carry: Any, index: Any) -> Any:
        params, state, velocity = carry
        own = jax.random.fold_in(key, index)
        rows = jax.random.randint(own, (BATCH,), 0, len(x))
        (value, state), grads = gradients(params, state, x[rows], labels[rows], key=own)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, grads)
        past = jnp.asarray(index, jnp.float32) / steps
        rate = setting["rate"] * jnp.exp(-DECAY * setting["decay"] * past)
        return (jax.tree.map(lambda p, v: p - rate * v, params, velocity), state, velocity), value

    def check(carry: Any, index: Any) -> Any:
        carry, values = jax.lax.scan(step, carry, index * every + jnp.arange(every))
        params, state, _ = carry
        right = model.apply(params, state, x_test)[0].argmax(axis=1) == labels_test
        own = lambda tree: {name: tree[name] for name in dict(before.layers) if name in tree}
        inputs, _ = before.apply(own(params), own(state), x[:WATCHED], train=True)
        return carry, (values.mean(), right.mean(), jnp.sort(inputs, axis=0))

    params, state = model.init(key, x.shape[1:])
    for place in (1, 2):
        params[f"layer_{place}"]["w"] = setting["wider"] * params[f"layer_{place}"]["w"]
    start = params, state, jax.tree.map(jnp.zeros_like, params)
    (params, state, _), found = jax.lax.scan(check, start, jnp.arange(CHECKS))
    return *found, params, state


def trained_variants(task: Task, seed: int, found: dict[str, Run]) -> Iterator[Evidence]:
    """Every network with all its variants, seeds and rates in one program; into `found`, by name."""
    for kind in ((False, "relu"), (True, "relu"), (False, "sigmoid"), (True, "sigmoid")):
        yield f"{task.name}: {'with' if kind[0] else 'without'} batch normalization, {kind[1]}"
        chosen = {name: v for name, v in VARIANTS.items() if (v.normalized, v.activation) == kind}
        jobs = [(name, v, seed + k) for name, v in chosen.items() for k in range(task.seeds)]
        if kind[1] == "relu" and not task.in_turn:
            more = {"normalized": kind[0], **({} if kind[0] else BASELINE)}
            jobs += [(f"sweep {kind[0]} {rate:g}", Variant(rate=rate, **more), seed) for rate in SWEEP]
            if kind[0]:
                jobs += [("ensemble", v, seed + k) for k, v in enumerate(MEMBERS)]
        result = trained(task, [v for _, v, _ in jobs], [s for *_, s in jobs])
        for name in dict.fromkeys(name for name, *_ in jobs):
            rows = [k for k, job in enumerate(jobs) if job[0] == name]
            found[name] = jax.tree.map(lambda array, rows=rows: array[np.asarray(rows)], result)


# ---- what is claimed


def final(run: Run) -> np.ndarray:
    """[networks]: the test accuracy at the end, mean of the last checks."""
    return run.accuracy[:, -LAST:].mean(axis=1)


def steps_to(task: Task, run: Run, accuracy: float) -> float:
    """Steps until the networks' mean accuracy is this; infinity if it never is."""
    there = np.flatnonzero(run.accuracy.mean(axis=0) >= accuracy)
    return float((there[0] + 1) * (task.steps // CHECKS)) if there.size else float("inf")


def finite(run: Run) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))


def judged(task: Task, found: dict[str, Run]) -> Iterator[Evidence]:
    last = {name: float(final(r).mean()) for name, r in found.items()}
    level = last["baseline"]
    steps = {name: steps_to(task, found[name], level) for name in ("baseline", "BN", "BN-x5", "BN-x30")}
    ends = "test accuracy at the end, mean over seeds"
    source = f"{PAPER}, section 4.2.2, figures 2 and 3"
    seeds = ", ".join(f"{accuracy:.2f}" for accuracy in final(found["baseline-x5"]))
    lost = [n for n in ("baseline-x5", "baseline-x30") if not finite(found[n])]
    alive = float((found["baseline-x30"].inputs[:, -1] > 0).mean())
    yield claim(
        "without batch normalization 5 times the rate costs accuracy",
        last["baseline-x5"] - level,
        "<",
        -0.05,
        quantity=f"change of {ends}",
        source=f"{PAPER}, sections 3.3 and 4.2.2",
        note=f"from {level:.3f} to {seeds}, one by one",
    )
    yield claim(
        "and at 30 times the rate nothing is learned",
        last["baseline-x30"],
        "<",
        CHANCE,
        quantity=ends,
        source=f"{PAPER}, sections 3.3 and 4.2.2",
        note=f"parameters that are not finite: {', '.join(lost) or 'none'}; {alive:.1%} of the inputs to the last relu are above 0",
    )
    yield claim(
        "with it it trains at 5 and at 30 times the rate",
        min(last["BN-x5"], last["BN-x30"]),
        ">",
        0.9,
        quantity=f"{ends}, the worse of the two",
        source=f"{PAPER}, section 3.3",
        note=f"x5 {last['BN-x5']:.3f}, x30 {last['BN-x30']:.3f}",
    )
    for name, other in (("BN", "baseline"), ("BN-x5", "BN")):
        yield claim(
            f"{name} reaches the baseline's last accuracy in fewer steps than {other}",
            steps[name] / steps[other],
            "<",
            1.0,
            quantity="ratio of the steps",
            source=source,
            note=f"{steps[name]:g} against {steps[other]:g} steps to {level:.3f}",
        )
    yield claim(
        "and ends higher", min(last["BN"], last["BN-x5"]) - level, ">", 0.0, quantity="gain in " + ends, source=source
    )
    stuck = max(last[name] for name in ("sigmoid", "sigmoid-x5", "sigmoid-x30"))
    yield claim(
        "sigmoids without it stay at chance at every rate",
        stuck,
        "<",
        CHANCE,
        quantity=f"{ends}, the best of x1, x5 and x30",
        source=source,
    )
    yield claim(
        "with it they train",
        last["BN-x5-sigmoid"],
        ">",
        0.8,
        quantity=ends,
        source=source,
        note=f"with relu {last['BN-x5']:.3f}",
    )


def as_published(task: Task, found: dict[str, Run]) -> Iterator[Evidence]:
    """The paper's findings as it has them, at a scale at which they need not hold."""
    last = {name: float(final(r).mean()) for name, r in found.items()}
    steps = {name: steps_to(task, found[name], last["baseline"]) for name in ("baseline", "BN", "BN-x5", "BN-x30")}
    say: Any = lambda name: f"{task.name}: {name}"
    source = f"{PAPER}, section 4.2.2, figures 2 and 3"
    yield claim(
        say("the baseline's parameters reach machine infinity at 5 times the rate"),
        not finite(found["baseline-x5"]),
        "==",
        True,
        quantity="a parameter is infinite or NaN",
        source=source,
        note=f"test accuracy {last['baseline-x5']:.3f}",
    )
    yield claim(
        say("BN matches the baseline in less than half of its steps"),
        steps["BN"] / steps["baseline"],
        "<",
        0.5,
        quantity="ratio of the steps",
        source=source,
    )
    yield claim(
        say("BN-x5 needs the fewest steps, BN-x30 somewhat more, BN more than both"),
        steps["BN-x5"] < steps["BN-x30"] < steps["BN"] < steps["baseline"],
        "==",
        True,
        quantity="BN-x5 < BN-x30 < BN < baseline",
        source=source,
        note=", ".join(f"{name} {n:g}" for name, n in steps.items())
        + f"; at the baseline's decay BN-x5 {steps_to(task, found['BN-x5 with slow decay'], last['baseline']):g}",
    )
    order = ("baseline", "BN", "BN-x5", "BN-x30")
    yield claim(
        say("BN-x30 ends highest, then BN-x5, BN, the baseline"),
        all(last[a] < last[b] for a, b in zip(order, order[1:], strict=False)),
        "==",
        True,
        quantity="baseline < BN < BN-x5 < BN-x30",
        source=source,
        note=", ".join(
            f"{name} {last[name]:.4f}" for name in (*order, "BN-x5 with slow decay", "BN-x30 with slow decay")
        ),
    )
    yield claim(
        say("sigmoids without it never do better than chance"),
        max(last[name] for name in ("sigmoid", "sigmoid-x5")),
        "<",
        CHANCE,
        quantity="test accuracy at the end, the better of x1 and x5",
        source=source,
    )
    yield claim(
        say("with it they train, to less than relu"),
        last["BN-x5-sigmoid"],
        "in",
        (2 * CHANCE, last["BN-x5"]),
        quantity="test accuracy at the end",
        source=source,
    )
    yield claim(
        say("without dropout the normalized network ends higher than with it"),
        last["BN-x5"] - last["BN-x5 with dropout"],
        ">",
        0.0,
        quantity="gain in test accuracy at the end",
        source=f"{PAPER}, section 4.2.1",
    )


def noise(task: Task, run: Run, seed: int) -> Iterator[Evidence]:
    """One example in many batches."""
    model = network(True, "relu", task.widths, 0.0)
    params, state = jax.tree.map(lambda array: jnp.asarray(array[0]), (run.params, run.state))
    x = jnp.asarray(task.train[0])
    rows = jax.random.randint(jax.random.key(seed), (100, BATCH), 0, len(x)).at[:, 0].set(0)

    def logits(train: bool) -> np.ndarray:
        one = lambda rows: model.apply(params, state, x[rows], train=train, key=jax.random.key(0))[0]
        return np.asarray(jax.jit(jax.vmap(one))(rows))  # [100, BATCH, 10]

    in_training, in_use = logits(True), logits(False)
    spread = float(in_training[:, 0].std(axis=0).mean() / in_training.std(axis=(0, 1)).mean())
    yield claim(
        "in training an example's output depends on the batch it is in",
        spread,
        ">",
        0.02,
        quantity="its deviation over 100 batches, relative to that over examples",
        source=f"{PAPER}, section 3.4",
    )
    yield claim(
        "in use it does not",
        float(np.ptp(in_use[:, 0], axis=0).max()),
        "<",
        1e-5,
        quantity="largest difference of its logits over 100 batches, float32",
        source=f"{PAPER}, section 3.1",
    )


def ensemble(task: Task, seed: int, found: dict[str, Run]) -> Iterator[Evidence]:
    members = found["ensemble"]
    model = network(True, "relu", task.widths, 0.0)
    one = lambda params, state: jax.nn.softmax(model.apply(params, state, jnp.asarray(task.test[0]))[0])
    p = np.asarray(jax.jit(jax.vmap(one))(members.params, members.state))  # [6, N, 10]
    labels = task.test[1]
    single = (p.argmax(axis=2) == labels).mean(axis=1)
    together = float((p.mean(axis=0).argmax(axis=1) == labels).mean())
    yield claim(
        "six networks whose probabilities are averaged make fewer errors than one",
        (1 - together) / float(1 - single.mean()),
        "<",
        1.0,
        quantity="errors of the ensemble / mean of its members",
        source=f"{PAPER}, section 4.2.3, figure 4",
        note=f"test accuracy {together:.4f}; members {single.min():.4f} to {single.max():.4f}",
    )


def shift_index(task: Task, run: Run) -> np.ndarray:
    """[networks, checks - 1]: how far the inputs to the last hidden layer move, per 1,000 steps.

    The Wasserstein distance between a unit's inputs at two checks, on the same examples: the mean difference of their sorted values; in
    deviations of these inputs, the median over the units.
    """
    moved = np.abs(np.diff(run.inputs, axis=1)).mean(axis=2)  # [networks, checks - 1, units]
    width = run.inputs[:, :-1].std(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.median(moved / width, axis=2)
    return relative * 1000 / (task.steps // CHECKS)


def drift(task: Task, found: dict[str, Run]) -> Iterator[Evidence]:
    index = {name: shift_index(task, found[name]) for name in ("baseline", "BN")}
    early = {name: float(values[:, : CHECKS // 4].mean()) for name, values in index.items()}
    all_of_it = {name: float(values.mean()) for name, values in index.items()}
    yield claim(
        "the inputs to the last hidden layer drift less with it",
        all_of_it["BN"] / all_of_it["baseline"],
        "<",
        1.0,
        quantity="index of covariate shift, with / without, mean over training",
        source=f"{PAPER}, sections 2 and 4.1",
        note=f"{all_of_it['BN']:.2f} against {all_of_it['baseline']:.2f} deviations per 1,000 steps; in the first quarter"
        f" {early['BN']:.2f} against {early['baseline']:.2f}",
    )
    fig, axes = figure(height=3.4)
    for name, colour in (("baseline", VERMILION), ("BN", BLUE)):
        axes.plot(_checks(task)[1:], index[name].mean(axis=0), color=colour, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_title("Index of covariate shift")
    axes.legend()
    caption = (
        "How far the distribution of a unit's input moves, in its deviations per 1,000 steps (Wasserstein distance between"
        " neighbouring checks, median over the units of the last hidden layer, mean over seeds). Same learning rate."
    )
    yield Figure("covariate shift", fig, caption)


# ---- figures


def _checks(task: Task) -> np.ndarray:
    return (task.steps // CHECKS) * np.arange(1, CHECKS + 1)


COLOURS = {
    "baseline": INK,
    "baseline-x5": GREY,
    "BN": VERMILION,
    "BN-x5": BLUE,
    "BN-x5 with slow decay": SKY,
    "BN-x30": ORANGE,
    "BN-x5-sigmoid": GREEN,
    "sigmoid-x5": PURPLE,
}


def curves(task: Task, found: dict[str, Run]) -> Figure:
    fig, (left, right) = figure(1, 2, width=WIDE, height=4.2)
    level = float(final(found["baseline"]).mean())
    for name, colour in COLOURS.items():
        values, style = found[name].accuracy, "--" if "baseline" in name else ":" if "sigmoid" in name else "-"
        left.plot(_checks(task), values.T, color=colour, linewidth=0.6, alpha=0.25)
        for axes in (left, right):
            axes.plot(_checks(task), values.mean(axis=0), color=colour, linestyle=style, label=name)
    for axes in (left, right):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=":")
        axes.set_xlabel("step")
    left.set_ylim(bottom=0)
    left.set_title(f"Test accuracy, {task.name}")
    right.set_ylim(level - 0.1, min(1.0, level + 0.1))
    right.set_title("Near the baseline's last accuracy")
    right.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        "Figure 2 of the paper: thick the mean over seeds, thin every seed; the dotted line is the baseline's last accuracy, near"
        " which the right half looks closer. What is not there never comes near it."
    )
    return Figure(f"accuracy {task.name}", fig, caption, wide=True)


def rates(task: Task, found: dict[str, Run]) -> Figure:
    fig, axes = figure(height=3.4)
    known = {
        "baseline": {1: "baseline", 5: "baseline-x5", 30: "baseline-x30"},
        "BN": {5: "BN-x5", 30: "BN-x30"},
        "sigmoid": {1: "sigmoid", 5: "sigmoid-x5", 30: "sigmoid-x30"},
    }
    for label, colour, marker in (("baseline", VERMILION, "o"), ("BN", BLUE, "s"), ("sigmoid", PURPLE, "^")):
        points = {rate: float(final(found[name]).mean()) for rate, name in known[label].items()}
        if label != "sigmoid":
            points |= {rate: float(final(found[f"sweep {label == 'BN'} {rate:g}"]).mean()) for rate in SWEEP}
        axes.plot(*zip(*sorted(points.items()), strict=True), color=colour, marker=marker, markersize=5, label=label)
    axes.set_xscale("log")
    shown = sorted({*SWEEP, *known["baseline"]})
    axes.set_xticks(shown, [f"{rate:g}" for rate in shown])
    axes.minorticks_off()
    axes.set_xlabel("learning rate / the baseline's")
    axes.set_ylim(0, 1)
    axes.set_title("Test accuracy at the end")
    axes.legend(title="", fontsize=9)
    caption = "Where training breaks down: the baseline, the normalized network with the paper's changes, sigmoids without it."
    return Figure("learning rates", fig, caption)


def table(task: Task, found: dict[str, Run]) -> Table:
    level = float(final(found["baseline"]).mean())
    base = steps_to(task, found["baseline"], level)
    rows = []
    for name in VARIANTS:
        last, steps = final(found[name]), steps_to(task, found[name], level)
        rows.append((name, float(last.mean()), float(last.min()), float(last.max()), steps, base / steps))
    columns = ("variant", "accuracy", "worst seed", "best seed", "steps to the baseline's accuracy", "times fewer")
    caption = (
        "Figure 3 of the paper; inf: it never has that accuracy. With slow decay: the baseline's, in place of six times faster, which"
        " leaves these short runs little time to learn."
    )
    return Table(f"Variants, {task.name}", columns, rows, caption)
