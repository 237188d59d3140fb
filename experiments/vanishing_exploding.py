"""Vanishing and exploding gradients: the size of the error over depth, for every activation and start.

Question: how does the size of the error that flows back through twenty layers depend on the activation, on how the weights
start, and on batch normalization; does it ever exceed (max |h'| ||W||) to the power of the depth; and what do weights do where
it explodes?

Command: python -m experiments vanishing_exploding

Expected: without normalization, sigmoid shrinks the error by more than half in every layer whatever the start, and weights
of size 0.01 do so with every activation. He keeps it level for relu, Glorot and orthogonal do for tanh. Behind batch
normalization the scale of the weights does not matter, and the error of relu grows by a factor of 1.1 to 1.3 per layer. In
none of 64 runs does the error exceed the bound. Where it explodes, one step moves the first weights by more than
themselves.

A run is a network at its start, one batch of the digits and one backward pass: four activations, four starts, with and
without batch normalization, two draws. The eight runs of an activation and a normalization are one program under vmap.
Behind batch normalization the bound has a factor more, the largest 1 / deviation, for that is the norm of its Jacobian at
most.

B. Hanin, "Which neural net architectures give rise to exploding and vanishing gradients?", NeurIPS 2018. G. Yang et al.,
"A mean field theory of batch normalization", ICLR 2019, where the factor of relu, (pi / (pi - 1))^(1/2) = 1.21, is derived
for wide layers and large batches.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, claim
from experiments._style import BLUE, GREEN, HALF, INK, ORANGE, PURPLE, VERMILION, WIDE, figure

DEPTH, WIDTH, BATCH, DRAWS = 20, 64, 128, 2
ACTIVATIONS = {"sigmoid": fdl.sigmoid, "tanh": fdl.tanh, "relu": fdl.relu, "gelu": fdl.gelu}
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0, "gelu": 1.1289042}  # max |h'|; gelu's is at sqrt(2)
STARTS = ("0.01", "Glorot", "He", "orthogonal")
LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
RATE, JUMP = 0.1, 2.0  # of gradient descent; by how much the weights of the exploding network are larger than He's
HIDDEN = [f"dense_{i}" for i in range(DEPTH)]


class Runs(NamedTuple):
    """Of one activation, with or without normalization. error: [start, draw, DEPTH] at the outputs of the hidden dense layers, the
    first layer first, root mean square over the examples; bound: the same, of the bound."""

    error: np.ndarray
    bound: np.ndarray

    @property
    def factor(self) -> np.ndarray:
        """[start, draw] of the error per layer, on its way from the last hidden layer to the second. At the first one the error
        behind batch normalization also depends on the scale of the data."""
        return (self.error[..., 1] / self.error[..., -1]) ** (1 / (DEPTH - 2))


def run(settings: Settings) -> Iterator[Evidence]:
    (x, y), _ = fdl.data.digits()
    weights = starts(settings.seed)
    with jax.enable_x64(True):  # float32 has no numbers for what is left of some errors
        batch = jnp.asarray(x[:BATCH], jnp.float64), jnp.asarray(y[:BATCH])
        runs = {}
        for norm in (False, True):
            for activation in ACTIVATIONS:
                yield f"{activation}{' behind batch normalization' if norm else ''}"
                runs[activation, norm] = measured(activation, norm, weights, batch)
        yield "the doctor, and weights that jump"
        jumping = jump(weights, batch)
        chart = examined("sigmoid", weights, batch)
    yield from bound_claims(runs)
    yield from without_norm(runs)
    yield from with_norm(runs)
    yield from jump_claims(jumping)
    yield from named(runs, chart, jumping)
    yield flow_figure(runs)
    yield bound_figure(runs)
    yield jump_figure(jumping)
    rows = [
        (activation, "yes" if norm else "no", start, float(np.exp(np.log(of.factor[at]).mean())))
        for (activation, norm), of in runs.items()
        for at, start in enumerate(STARTS)
    ]
    title = "The factor of the error per layer"
    yield Table(title, ("activation", "batch normalization", "start", "factor"), rows, "Geometric mean of two draws.")


def model(activation: str, norm: bool) -> fdl.Layer:
    layers: dict[str, fdl.Layer] = {}
    for i in range(DEPTH):
        layers[f"dense_{i}"] = fdl.dense(WIDTH)
        if norm:
            layers[f"norm_{i}"] = fdl.batch_norm()
        layers[f"{activation}_{i}"] = ACTIVATIONS[activation]()
    return fdl.serial(**layers, output=fdl.dense(10))


def starts(seed: int) -> dict[str, np.ndarray]:
    """{layer: [start, draw, I, O]}: all starts have the same draws of normal numbers."""
    random = np.random.default_rng(seed)
    found = {}
    for name in (*HIDDEN, "output"):
        wide = 10 if name == "output" else WIDTH
        normal = random.normal(size=(DRAWS, WIDTH, wide))
        q, r = np.linalg.qr(normal)
        signs = np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]  # without them q is not uniformly distributed
        scales = (0.01, (2 / (WIDTH + wide)) ** 0.5, (2 / WIDTH) ** 0.5)
        found[name] = np.stack([*(scale * normal for scale in scales), signs * q])
    return found


def measured(activation: str, norm: bool, weights: dict[str, np.ndarray], batch: Any) -> Runs:
    net = model(activation, norm)
    params, state = net.init(jax.random.key(0), (WIDTH,), dtype=jnp.float64)

    def one(weights):
        started = {name: {**own, "w": weights[name]} if name in weights else own for name, own in params.items()}
        deltas = fdl.backprop.deltas(net, LOSS, started, state, *batch)
        return {name: deltas[name] for name in (*HIDDEN, "output")}, steepest(net, activation, started, state, batch[0])

    deltas, factors = jax.jit(jax.vmap(jax.vmap(one)))(weights)
    # the mean's 1 / N taken out, as in charts
    error = {name: np.linalg.norm(delta, axis=(-2, -1)) * BATCH**0.5 for name, delta in deltas.items()}
    norms = np.stack([spectral(weights[name]) for name in (*HIDDEN[1:], "output")], axis=-1)
    # the error at a dense layer's output comes through its activation (and normalization) and through the next weights
    steps = np.asarray(factors) * norms  # [start, draw, DEPTH]
    bound = np.cumprod(steps[..., ::-1], axis=-1)[..., ::-1] * error["output"][..., None]
    return Runs(np.stack([error[name] for name in HIDDEN], axis=-1), bound)


def steepest(net: fdl.Layer, activation: str, params: Any, state: Any, x: jax.Array) -> jax.Array:
    """[DEPTH] max |h'| of every hidden layer, times the largest 1 / deviation where it is normalized."""
    found = []
    for name, layer in net.layers:
        if name.startswith("norm"):
            found.append(STEEPEST[activation] / jnp.sqrt(jnp.min(jnp.var(x, axis=0)) + 1e-5))
        x = layer.apply(params.get(name, {}), state.get(name, {}), x, train=True)[0]
    return jnp.stack(found) if found else jnp.full(DEPTH, STEEPEST[activation])


def spectral(w: np.ndarray) -> np.ndarray:
    return np.linalg.norm(w, ord=2, axis=(-2, -1))


# ---- claims


def bound_claims(runs: dict[tuple[str, bool], Runs]) -> Iterator[Evidence]:
    share = {name: of.error / of.bound for name, of in runs.items()}
    count = sum(of.error[..., 0].size for of in runs.values())
    yield claim(
        f"the error never exceeds the bound, in {count} runs of {DEPTH} layers",
        max(values.max() for values in share.values()),
        "<=",
        1 + 1e-12,
        quantity="largest ||delta|| / bound",
        source="submultiplicative norms: (max |h'| ||W||)^depth",
    )


def without_norm(runs: dict[tuple[str, bool], Runs]) -> Iterator[Evidence]:
    of = {name: found.factor for (name, norm), found in runs.items() if not norm}
    at = {name: place for place, name in enumerate(STARTS)}
    source = "factor per layer, from the last hidden layer to the second"
    yield claim(
        "sigmoid: the error vanishes whatever the start",
        of["sigmoid"].max(),
        "<",
        0.5,
        quantity=f"largest {source}",
        source="h' <= 1/4",
        note=f"over {DEPTH} layers at most {runs['sigmoid', False].error[..., 0].max():.1e} is left",
    )
    yield claim(
        "weights of size 0.01: the error vanishes whatever the activation",
        max(values[at["0.01"]].max() for values in of.values()),
        "<",
        0.5,
        quantity=f"largest {source}",
        source="0.01 sqrt(width) = 0.08",
    )
    yield claim(
        "relu: He keeps the error level",
        float(np.exp(np.log(of["relu"][at["He"]]).mean())),
        "in",
        (0.9, 1.1),
        quantity=source,
        source="He et al. 2015: variance 2 / I, for half of the units are silent",
    )
    yield claim(
        "relu: Glorot loses a factor of sqrt(2) per layer",
        float(np.exp(np.log(of["relu"][at["Glorot"]]).mean())),
        "in",
        (0.9 / 2**0.5, 1.1 / 2**0.5),
        quantity=source,
        source="He et al. 2015",
    )
    for start in ("Glorot", "orthogonal"):
        yield claim(
            f"tanh: {start} keeps the error level",
            float(np.exp(np.log(of["tanh"][at[start]]).mean())),
            "in",
            (0.85, 1.1),
            quantity=source,
            source="Glorot & Bengio 2010; Saxe et al. 2014",
        )


def with_norm(runs: dict[tuple[str, bool], Runs]) -> Iterator[Evidence]:
    small, he = list(STARTS).index("0.01"), list(STARTS).index("He")
    apart = {norm: 0.0 for norm in (False, True)}
    for (_, norm), of in runs.items():
        apart[norm] = max(apart[norm], float(np.abs(np.log(of.factor[small] / of.factor[he])).max()))
    yield claim(
        "behind batch normalization the scale of the weights does not matter",
        apart[True],
        "<",
        0.02,
        quantity="largest |log of (factor from 0.01 / factor from He)|",
        source="Ioffe & Szegedy 2015, section 3.3; what is left is eps = 1e-5 beside variances of 1e-3",
        note=f"without it {apart[False]:.2f}",
    )
    yield claim(
        "behind batch normalization the error of relu grows",
        float(np.exp(np.log(runs["relu", True].factor).mean())),
        "in",
        (1.1, 1.3),
        quantity="factor per layer, mean of all starts",
        source="Yang et al. 2019: (pi / (pi - 1))^(1/2) = 1.21",
    )
    yield claim(
        "behind batch normalization no activation lets the error vanish",
        min(of.factor.min() for (_, norm), of in runs.items() if norm),
        ">",
        0.9,
        quantity="smallest factor per layer",
        source="each layer is scaled to unit variance, on the way back too",
    )


class Jump(NamedTuple):
    """ratio: {start: [DEPTH + 1] ||update|| / ||weight||}; loss: {start: (before, after)} one step; chart: of the large start."""

    ratio: dict[str, np.ndarray]
    loss: dict[str, tuple[float, float]]
    chart: fdl.doctor.Chart


def jump(weights: dict[str, np.ndarray], batch: Any) -> Jump:
    """One step of gradient descent from He, and from weights that are larger."""
    net = model("relu", False)
    params, state = net.init(jax.random.key(0), (WIDTH,), dtype=jnp.float64)
    he = list(STARTS).index("He")
    pair = {name: jnp.stack([w[he, 0], w[he, 0] * (JUMP if name in HIDDEN else 1.0)]) for name, w in weights.items()}
    optimizer, (x, y) = optax.sgd(RATE), batch
    cheap: Any = {"step": 0, "noise": None, "spectrum": 0, "leak": False}

    def one(weights):
        started: Any = {name: {**own, "w": weights[name]} for name, own in params.items()}
        chart, (value, _), _, stepped = fdl.doctor.examine_step(
            net, LOSS, started, state, x, y, None, optimizer, optimizer.init(started), **cheap
        )
        assert stepped is not None  # there is an optimizer
        moved: Any = optax.apply_updates(started, stepped[0])
        return chart, value, jnp.mean(LOSS(net.apply(moved, state, x)[0], y))

    charts, before, after = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(pair))
    places = [charts.parameters.index(f"{name}/w") for name in (*HIDDEN, "output")]
    names = ("He", f"{JUMP:g} times He")
    ratios = {name: charts.update_ratio[i, places] for i, name in enumerate(names)}
    losses = {name: (float(before[i]), float(after[i])) for i, name in enumerate(names)}
    return Jump(ratios, losses, jax.tree.map(lambda a: a[1], charts))


def jump_claims(jumping: Jump) -> Iterator[Evidence]:
    calm, wild = jumping.ratio.values()
    (_, (before, after)) = jumping.loss.values()
    quantity = "||update|| / ||weight|| of the first layer"
    source = "notes: weights jump like crazy"
    yield claim(
        "from He no weight jumps", calm.max(), "<", 0.1, quantity="largest ||update|| / ||weight||", source=source
    )
    yield claim(
        f"from weights {JUMP:g} times as large the first one moves by more than itself",
        wild[0],
        ">",
        1.0,
        quantity=quantity,
        source=source,
        note=f"the loss goes from {before:.3g} to {after:.3g} in one step of rate {RATE:g}",
    )


def examined(activation: str, weights: dict[str, np.ndarray], batch: Any) -> fdl.doctor.Chart:
    """The chart of the start from Glorot."""
    net = model(activation, False)
    params, state = net.init(jax.random.key(0), (WIDTH,), dtype=jnp.float64)
    started = {name: {**own, "w": jnp.asarray(weights[name][1, 0])} for name, own in params.items()}
    cheap: Any = {"step": 0, "noise": None, "spectrum": 0, "leak": False}
    return jax.jit(lambda started: fdl.doctor.examine(net, LOSS, started, state, *batch, **cheap))(started)


def named(runs: dict[tuple[str, bool], Runs], chart: fdl.doctor.Chart, jumping: Jump) -> Iterator[Evidence]:
    seen = np.asarray(chart.error)[[chart.names.index(name) for name in HIDDEN]]
    yield claim(
        "the doctor's chart has the errors of fdl.backprop.deltas",
        float(np.abs(seen / runs["sigmoid", False].error[1, 0] - 1).max()),
        "<",
        1e-9,
        quantity="largest relative difference over the layers",
        source="the same backward pass",
    )
    for wanted, one in (("vanishing", chart), ("exploding", jumping.chart)):
        first = fdl.doctor.diagnose(one)[0]
        yield claim(
            f"the doctor says {wanted}",
            first.code,
            "==",
            wanted,
            quantity="code of the first finding",
            source="fdl.doctor.diagnose of the first batch",
            note=first.evidence,
        )


# ---- figures

COLOURS = dict(zip(STARTS, (VERMILION, ORANGE, BLUE, GREEN), strict=True))


def flow_figure(runs: dict[tuple[str, bool], Runs]) -> Figure:
    fig, grid = figure(2, 4, width=WIDE, height=5.6, sharex=True, sharey="row")
    for (activation, norm), of in runs.items():
        axes = grid[int(norm), list(ACTIVATIONS).index(activation)]
        for (start, colour), curves, style in zip(COLOURS.items(), of.error, ("-", "--", "-", "-."), strict=True):
            for draw, curve in enumerate(curves):
                label = start if draw == 0 else None
                axes.plot(range(1, DEPTH + 1), curve, style, color=colour, linewidth=1.5, label=label)
        axes.set_yscale("log")
        if not norm:
            axes.set_title(activation)
    for axes, label in zip(grid[:, 0], ("||δ||", "||δ||, batch normalization"), strict=True):
        axes.set_ylabel(label)
    for axes in grid[1]:
        axes.set_xlabel("layer (data enters at 1)")
        axes.set_xticks([1, 5, 10, 15, 20])
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = (
        "Size of the error at the output of each of twenty layers, at the start of training, for two draws. The error enters on"
        " the right and flows to the left. Without normalization (above) the start decides how fast it vanishes; behind batch"
        " normalization (below) the scale of the start is of no account, and for relu the error grows instead. The rows have"
        " different scales."
    )
    return Figure("flow", fig, caption, wide=True)


def bound_figure(runs: dict[tuple[str, bool], Runs]) -> Figure:
    fig, axes = figure(width=HALF, height=4.2)
    looks = dict(zip(ACTIVATIONS, ((VERMILION, "o"), (BLUE, "s"), (GREEN, "^"), (PURPLE, "D")), strict=True))
    lowest = min(of.error[..., 0].min() for of in runs.values())
    highest = max(of.bound[..., 0].max() for of in runs.values())
    for (activation, norm), of in runs.items():
        colour, marker = looks[activation]
        fill = {"facecolor": colour if not norm else "white", "edgecolor": colour}
        label = activation if not norm else None
        axes.scatter(of.bound[..., 0], of.error[..., 0], s=22, marker=marker, label=label, **fill)
    axes.plot([lowest, highest], [lowest, highest], color=INK, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bound for the first layer")
    axes.set_ylabel("||δ|| at the first layer")
    axes.set_title("Below the bound, always")
    axes.legend(loc="upper left")
    caption = (
        "The error at the first layer against the product of max |h'| ||W|| over the layers behind it, in 64 runs (hollow:"
        " with batch normalization, and its largest 1 / deviation). On the dotted line they would be equal."
    )
    return Figure("bound", fig, caption)


def jump_figure(jumping: Jump) -> Figure:
    fig, axes = figure(width=HALF, height=4.2)
    for (name, ratio), colour, marker in zip(jumping.ratio.items(), (BLUE, VERMILION), ("o", "^"), strict=True):
        axes.plot(range(1, DEPTH + 2), ratio, color=colour, marker=marker, markersize=5, label=f"weights from {name}")
    axes.axhline(1, color=INK, linewidth=1, linestyle=":", label="by all of itself")
    axes.axhline(1e-3, color=GREEN, linewidth=1, linestyle="--", label="usual: 1e-3")
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_ylabel("||update|| / ||weight||")
    axes.set_title("Weights that jump")
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.legend(loc="center", bbox_to_anchor=(0.5, 0.6))
    caption = (
        f"By how much of itself each weight moves in the first step of gradient descent with rate {RATE:g}, in the relu network."
        f" Weights only {JUMP:g} times as large as He's make activities that grow on the way forward and an error that grows on the"
        " way back. A gradient is the product of the two, so that all weights are thrown far beyond where they were."
    )
    return Figure("jump", fig, caption)
