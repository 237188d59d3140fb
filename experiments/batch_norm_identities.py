"""What batch normalization does to gradients, weights and penalties, and what happens without its gradient.

Question: are the identities of Ioffe & Szegedy (2015) exact, does a bias before the normalization grow without bound when the
gradient ignores the statistics (section 2), what would full whitening give, do the singular values of a layer's Jacobian come
near 1 (section 3.3, a conjecture), and what does L2 on weights before a normalization do?

Command: python -m experiments batch_norm_identities

Expected: the identities hold to 1e-12 in float64. Without the gradient through the statistics the bias moves by the same amount
at every step and the loss does not move at all; with it the bias stays. The mean square of the singular values is near 1, the
single ones are not. Training with L2 before a normalization is, exactly, training without it at a learning rate that grows.

On the digits of 8x8 pixels that come with the package; with --data-dir on MNIST.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, relative_difference
from experiments._style import BLUE, DIVERGING, GREEN, GREY, INK, VERMILION, WIDE, figure, picture

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
BATCH, UNITS, EPS = 60, 32, 1e-5
SEEDS = 3  # where training is compared
PAPER = "Ioffe & Szegedy 2015"


def run(settings: Settings) -> Iterator[Evidence]:
    x, labels = data(settings)
    with jax.enable_x64(True):
        yield "the identities"
        yield from identities(x, labels, settings.seed)
        yield "without the gradient through the statistics"
        yield from ignored(x, labels, settings)
        yield "L2 before a normalization"
        yield from decayed(x, labels, settings)
    yield "whitening"
    yield from whitened(x, labels, settings)
    yield "singular values"
    yield from jacobians(x, labels, settings)


def data(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The pictures to train on, flat."""
    if settings.data_dir is None:
        return fdl.data.digits()[0]
    (x, labels), _ = fdl.data.mnist(settings.data_dir / "mnist")
    return x.reshape(len(x), -1), labels


def trained(
    model: fdl.Layer,
    x: Any,
    labels: Any,
    steps: int,
    rate: Any,
    *,
    seed: int,
    dtype: Any = jnp.float32,
    start: Any = None,
    penalty: Any = None,
    whole: bool = False,
    watch: Any = None,
) -> tuple[Any, dict[str, np.ndarray]]:
    """((params, state), {"loss" [steps], "watched" ...}) of gradient descent on random batches of 60.

    rate: a number, or (step, gradients) -> the updates. start: (params, state) to begin with. penalty: an Op. whole: all examples at
    every step. watch: (params, gradients) -> what to record.
    """
    key, dtype = jax.random.key(seed), jnp.dtype(dtype)
    start = start or model.init(key, x.shape[1:], dtype)
    settings = (steps, rate, penalty, whole, watch)
    carry, found = _all_steps(model, *settings, start, key, jnp.asarray(x, dtype), jnp.asarray(labels))
    return jax.device_get(carry), jax.device_get(found)


@functools.partial(jax.jit, static_argnums=range(6))
def _all_steps(
    model: fdl.Layer, steps: int, rate: Any, penalty: Any, whole: bool, watch: Any, start: Any, key: Any, *data: Any
) -> Any:
    gradients = fdl.backprop.value_and_grad(model, LOSS, penalty)

    def step(carry: Any, index: Any) -> Any:
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(key, index), (BATCH,), 0, len(data[0]))
        (value, state), grads = gradients(params, state, *(data if whole else (array[rows] for array in data)))
        updates = rate(index, grads) if callable(rate) else jax.tree.map(lambda g: rate * g, grads)
        found = {"loss": value, "watched": watch(params, grads) if watch else ()}
        return (jax.tree.map(jnp.subtract, params, updates), state), found

    return jax.lax.scan(step, start, jnp.arange(steps))


# ---- identities


def identities(x: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[Evidence]:
    norm = fdl.ops.batch_norm
    random = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape))
    u, w = jnp.asarray(x[:BATCH], jnp.float64), draw(x.shape[1], UNITS)
    z, dy = u @ w, draw(BATCH, UNITS)
    close: Any = functools.partial(_small, bound=1e-12, quantity="largest relative difference, float64")

    normalized, batch = norm({}, z, eps=0.0)
    recovered, _ = norm({"scale": jnp.sqrt(batch["var"]), "shift": batch["mean"]}, z, eps=0.0)
    yield close(
        "scale = sqrt(Var) and shift = E recover the input", relative_difference(recovered, z), source="section 3"
    )
    with_eps, _ = norm({}, z, eps=0.1)
    moments = (jnp.abs(normalized.mean(0)), jnp.abs((with_eps**2).mean(0) - batch["var"] / (batch["var"] + 0.1)))
    yield close(
        "the normalized values have mean 0 and mean square var / (var + eps)",
        max(float(m.max()) for m in moments),
        quantity="largest difference, float64",
        source="section 3",
    )
    yield from _six_formulas(z, dy, draw)
    yield from _wrong_backwards(x, seed)
    yield from _inference(x, labels, seed)
    yield from _scaled_weights(u, w, dy)


def _small(name: str, measured: float, *, bound: float, quantity: str, source: str, note: str = "") -> Evidence:
    return claim(name, measured, "<", bound, quantity=quantity, source=f"{PAPER}, {source}", note=note)


def _six_formulas(z: Any, dy: Any, draw: Any) -> Iterator[Evidence]:
    norm = fdl.ops.batch_norm
    params = {"scale": draw(UNITS), "shift": draw(UNITS)}
    named = fdl.batch_norm.terms(params, z, dy)
    (_, batch), residuals = norm.forward(params, z)
    put_together = norm.backward(residuals, (dy, jax.tree.map(jnp.zeros_like, batch)))
    _, pull = jax.vjp(lambda params, z: norm.equation(params, z)[0], params, z)
    ways = [
        ({name: named[f"d{name}"] for name in params}, named["dx"]),
        put_together[:2],
    ]
    apart = [max(map(relative_difference, jax.tree.leaves(way), jax.tree.leaves(pull(dy)))) for way in ways]
    yield _small(
        "the six formulas of the backward pass, and their sum put together, are jax.grad",
        max(apart),
        bound=1e-12,
        quantity="largest relative difference, float64",
        source="section 3, before simplification",
    )
    (normalized, batch), residuals = norm.forward({}, z, eps=0.0)
    _, dx, _ = norm.backward(residuals, (dy, jax.tree.map(jnp.zeros_like, batch)), eps=0.0)
    yield _small(
        "the error that goes on has mean 0 and no share along the normalized values",
        float(jnp.abs(jnp.stack([dx.mean(0), (dx * normalized).mean(0)])).max() / jnp.abs(dx).max()),
        bound=1e-12,
        quantity="largest mean of dx and of dx times the output, relative to dx",
        source="the put-together form of dx",
    )


def plain(x: Any, *, scaled: bool = True, eps: float = EPS) -> Any:
    """x^, or x minus its mean alone."""
    d = x - jnp.mean(x, axis=0, keepdims=True)
    return d / jnp.sqrt(jnp.mean(d**2, axis=0, keepdims=True) + eps) if scaled else d


def _forward(x: Any, *, scaled: bool, eps: float) -> Any:
    return plain(x, scaled=scaled, eps=eps), x


def _ignoring(x: Any, dy: Any, *, scaled: bool, eps: float) -> Any:
    return (dy / jnp.sqrt(jnp.var(x, axis=0, keepdims=True) + eps) if scaled else dy,)


def _bessel(x: Any, dy: Any, *, scaled: bool, eps: float) -> Any:
    d, m = x - jnp.mean(x, axis=0, keepdims=True), len(x)
    deviation = jnp.sqrt(jnp.sum(d**2, axis=0, keepdims=True) / (m - 1) + eps)
    along = d / deviation
    return ((dy - dy.mean(0, keepdims=True) - along * (dy * along).sum(0, keepdims=True) / m) / deviation,)


# the backward as if mean and variance were constants, and one with the variance of 1 / (m - 1) that the forward does not use
IGNORING = fdl.Op(plain, _forward, _ignoring, name="statistics taken as constants")
BESSEL = fdl.Op(plain, _forward, _bessel, name="variance with m - 1 in the backward only")


def _wrong_backwards(x: np.ndarray, seed: int) -> Iterator[Evidence]:
    from jax.test_util import check_grads

    many = jnp.asarray(x[:1200] @ np.random.default_rng(seed).normal(size=(x.shape[1], 3)), jnp.float32)
    for op in (IGNORING, BESSEL):
        try:
            check_grads(op, (many,), order=1, modes="rev", eps=1e-2)
            accepts = "accepts"
        except AssertionError:
            accepts = "refuses"
        yield claim(
            f"fdl.check convicts the backward with {op.name}",
            fdl.check.gradients(op, many).verdict,
            "==",
            "wrong",
            quantity="verdict, float32, 1,200 examples",
            source=f"{PAPER}, section 2" if op is IGNORING else "an error of many implementations",
            note=f"jax.test_util.check_grads {accepts} it",
        )


NETWORK = fdl.serial(
    hidden=fdl.dense(UNITS),
    batch_norm=fdl.batch_norm(eps=0.0),
    sigmoid=fdl.sigmoid(),
    second=fdl.dense(UNITS),
    second_norm=fdl.batch_norm(eps=0.0),
    second_sigmoid=fdl.sigmoid(),
    output=fdl.dense(10),
)


def _inference(x: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[Evidence]:
    (params, state), _ = trained(NETWORK, x, labels, 50, 0.3, seed=seed, dtype=jnp.float64)
    some = jnp.asarray(x[:BATCH], jnp.float64)
    logits, _ = NETWORK.apply(params, state, some)
    folded = fdl.batch_norm.fold(NETWORK, params, state)
    alone = jnp.concatenate([NETWORK.apply(params, state, some[n : n + 1])[0] for n in range(8)])
    together, _ = NETWORK.apply(params, state, some[:8], train=True)
    yield _small(
        "in use it is one affine map: folded into the layer before it, the network is the same",
        relative_difference(folded[0].apply(*folded[1:], some)[0], logits),
        bound=1e-12,
        quantity="largest relative difference of the logits, float64",
        source="section 3.1, algorithm 2",
        note=f"layers left: {', '.join(folded[0].names)}",
    )
    yield _small(
        "in use an example's output does not depend on the others",
        relative_difference(alone, logits[:8]),
        bound=1e-12,
        quantity="alone against in a batch, float64",
        source="section 3.1",
        note=f"in training, in a batch of 8, it is {relative_difference(together, logits[:8]):.2f} off",
    )
    _, grads = fdl.backprop.value_and_grad(NETWORK, LOSS)(params, state, some, jnp.asarray(labels[:BATCH]))
    yield _small(
        "a bias before it has no gradient",
        max(float(jnp.abs(grads[n]["b"]).max() / jnp.abs(grads[n]["w"]).max()) for n in ("hidden", "second")),
        bound=1e-12,
        quantity="largest entry of db against that of dw, float64",
        source="section 3.2",
    )


def _scaled_weights(u: Any, w: Any, dy: Any) -> Iterator[Evidence]:
    def after(u: Any, w: Any, eps: float = 0.0) -> Any:
        return fdl.ops.batch_norm({}, u @ w, eps=eps)[0]

    y, pull = jax.vjp(after, u, w)
    du, dw = pull(dy)
    found = []
    for a in (7.0, 1e-3, -7.0):
        scaled, pull = jax.vjp(after, u, a * w)
        du_scaled, dw_scaled = pull(dy)
        sign = np.sign(a)
        pairs = ((scaled, sign * y), (du_scaled, sign * du), (dw_scaled, sign * dw / a))
        found += [relative_difference(*pair) for pair in pairs]
    yield _small(
        "BN(aWu) = BN(Wu); the error at u is the same, that of aW is 1/a of it; below 0 the sign turns",
        max(found),
        bound=1e-11,
        quantity="largest relative difference for a = 7, 0.001 and -7, float64, eps = 0",
        source="section 3.3",
    )
    cosine = jnp.abs((w * dw).sum(0)) / (jnp.linalg.norm(w, axis=0) * jnp.linalg.norm(dw, axis=0))
    yield _small(
        "a unit's weights and their gradient are orthogonal",
        float(cosine.max()),
        bound=1e-12,
        quantity="largest cosine, float64, eps = 0",
        source="section 3.3, by derivation of BN(aWu) with respect to a",
    )
    rows = [(a, float(relative_difference(after(u, a * w, EPS), after(u, w, EPS)))) for a in (100, 10, 0.1, 0.01, 1e-3)]
    yield Table(
        "What eps does to BN(aWu) = BN(Wu)",
        ("a", "largest relative difference"),
        rows,
        f"With eps = {EPS:g} the identity is not exact: small weights feel it.",
    )


# ---- the bias, when the gradient ignores the statistics


def _before_sigmoids(norm: fdl.Layer) -> fdl.Layer:
    return fdl.serial(hidden=fdl.dense(UNITS), norm=norm, sigmoid=fdl.sigmoid(), output=fdl.dense(10))


NETWORKS = {
    "mean taken out": fdl.Layer.from_op("centred", IGNORING.bind(scaled=False)),
    "mean and variance": fdl.Layer.from_op("normalized", IGNORING),
    "full gradient": fdl.batch_norm(scale=False, shift=False),
}
NETWORKS = {name: _before_sigmoids(layer) for name, layer in NETWORKS.items()}


def ignored(x: np.ndarray, labels: np.ndarray, settings: Settings) -> Iterator[Evidence]:
    source = f"{PAPER}, section 2"
    size = lambda params, grads: {name: jnp.linalg.norm(params["hidden"][name]) for name in params["hidden"]}
    steps, rate = (20_000 if settings.full else 3000), 0.1

    def bias_alone(_: Any, grads: Any) -> Any:
        still = jax.tree.map(jnp.zeros_like, grads)
        return {**still, "hidden": {**still["hidden"], "b": rate * grads["hidden"]["b"]}}

    alone = {}
    for name in ("mean taken out", "mean and variance"):
        few = (x[:500], labels[:500])
        _, alone[name] = trained(
            NETWORKS[name], *few, 1000, bias_alone, seed=settings.seed, dtype=jnp.float64, whole=True, watch=size
        )
    b = alone["mean taken out"]["watched"]["b"]
    loss = np.stack([found["loss"] for found in alone.values()])
    yield claim(
        "the gradient of the bias moves it for ever, by the same step",
        float(np.abs(b[2:] / b[1] / np.arange(2, len(b)) - 1).max()),
        "<",
        1e-9,
        quantity="|b| after n steps against n first steps, 1,000 steps, float64",
        source=source,
        note=f"only b is trained; |b| reaches {b[-1]:.1f} with the mean taken out,"
        f" {alone['mean and variance']['watched']['b'][-1]:.1f} if the values are scaled too",
    )
    yield claim(
        "and the loss does not move",
        float(np.max(np.ptp(loss, axis=1) / loss[:, 0])),
        "<",
        1e-12,
        quantity="range of the loss over these steps, relative, float64",
        source=source,
    )
    whole = {
        name: trained(model, x, labels, steps, rate, seed=settings.seed, dtype=jnp.float64, watch=size)[1]
        for name, model in NETWORKS.items()
    }
    slope = {
        name: float(np.polyfit(np.arange(steps // 2), f["watched"]["b"][steps // 2 :], 1)[0])
        for name, f in whole.items()
    }
    for name in ("mean taken out", "mean and variance"):
        yield claim(
            f"it still grows at the end when all parameters learn ({name} as constants)",
            1000 * slope[name],
            ">",
            0.05,
            quantity="slope of |b| per 1,000 steps, second half",
            source=source,
            note=f"|b| {whole[name]['watched']['b'][-1]:.2f} after {steps:,} steps",
        )
    yield claim(
        "with the full gradient it stays where it is",
        float(whole["full gradient"]["watched"]["b"].max()),
        "<",
        1e-12,
        quantity="largest |b| in the same run, float64",
        source=source,
    )
    yield claim(
        "and the loss is lower",
        float(_smooth(whole["mean and variance"]["loss"])[-1] / _smooth(whole["full gradient"]["loss"])[-1]),
        ">",
        1.0,
        quantity="last loss with constant statistics / with the full gradient",
        source=source,
        note="mean of the last 200 batches",
    )
    yield _bias_figure(alone, whole)


def _smooth(values: np.ndarray, width: int = 200) -> np.ndarray:
    """The mean of so many values up to each place."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    return (sums[width:] - sums[:-width]) / width


def _bias_figure(alone: dict[str, Any], whole: dict[str, Any]) -> Figure:
    fig, (left, middle, right) = figure(1, 3, width=WIDE, height=3.4)
    colours = {"mean taken out": VERMILION, "mean and variance": GREEN, "full gradient": BLUE}
    for name, found in alone.items():
        left.plot(found["watched"]["b"], color=colours[name], label=f"{name}")
    loss = alone["mean and variance"]["loss"]
    left.plot(loss, color=GREY, linestyle="--", label="loss")
    left.set_title("|b|, only b is trained")
    for name, found in whole.items():
        middle.plot(found["watched"]["b"], color=colours[name], label=name)
        right.plot(np.arange(len(found["loss"]) - 199) + 199, _smooth(found["loss"]), color=colours[name], label=name)
    middle.set_title("|b|, everything is trained")
    right.set_title("Training loss")
    right.set_yscale("log")
    for axes in (left, middle, right):
        axes.set_xlabel("step")
        axes.legend(fontsize=9)
    caption = (
        "The bias before a normalization whose statistics the gradient takes as constants (red: the mean; green: mean and"
        " variance). Left: the bias moves at every step, the loss (grey, both) at none: the next mean takes the bias out again."
        " Middle: among other parameters it goes on growing too, with the full gradient (blue) it stays at 0. Right: the loss of"
        " these runs, mean of 200 batches."
    )
    return Figure("bias", fig, caption, wide=True)


# ---- L2


DECAY = fdl.serial(
    hidden=fdl.dense(UNITS, bias=False), batch_norm=fdl.batch_norm(eps=0.0), sigmoid=fdl.sigmoid(), output=fdl.dense(10)
)


def only_hidden(path: str, array: Any) -> bool:
    return path == "hidden/w"


def decayed(x: np.ndarray, labels: np.ndarray, settings: Settings) -> Iterator[Evidence]:
    steps, rate, strength = 1500, 0.5, 1e-3
    shrink = 1 - 2 * rate * strength
    sizes = lambda params, grads: {
        name: jnp.sum(tree["hidden"]["w"] ** 2) for name, tree in (("w", params), ("dw", grads))
    }
    train: Any = functools.partial(trained, DECAY, x, labels, steps, seed=settings.seed, dtype=jnp.float64, watch=sizes)

    def growing(step: Any, grads: Any) -> Any:
        updates = jax.tree.map(lambda g: rate * g, grads)
        return {**updates, "hidden": {"w": rate / shrink ** (2 * step + 1.0) * grads["hidden"]["w"]}}

    source = "van Laarhoven 2017, Li & Arora 2020; " + PAPER + ", section 3.3"
    _, without = train(rate)
    (params, state), with_it = train(rate, penalty=fdl.regularizers.l2(strength, filter=only_hidden))
    (faster, _), instead = train(growing)
    some = jnp.asarray(x[:BATCH], jnp.float64)
    logits = [DECAY.apply(p, state, some, train=True)[0] for p in (params, faster)]
    yield claim(
        "L2 on weights before it is a learning rate that grows, and nothing else",
        relative_difference(*logits),
        "<",
        1e-8,
        quantity=f"logits after {steps:,} steps with L2, against those at rate / (1 - 2 rate strength)^(2 step + 1), float64",
        source=source,
        note=f"that rate ends {shrink ** (-2.0 * steps):.0f} times higher",
    )
    yield claim(
        "w scaled by a, trained at a^2 times the rate, is the same network",
        _rate_of_scaled(x, labels, rate, settings.seed),
        "<",
        1e-11,
        quantity="logits after 20 steps for a = 10, relative difference, float64",
        source=source,
    )
    w, dw = without["watched"]["w"], without["watched"]["dw"]
    yield claim(
        "without L2 the weights only grow, by the square of every step",
        float(np.abs(np.diff(w) - rate**2 * dw[:-1]).max() / w[0]),
        "<",
        1e-12,
        quantity="difference between the growth of |w|^2 and |rate dw|^2, relative to |w|^2, float64",
        source=f"{PAPER}, section 3.3: the gradient is orthogonal to the weights",
        note=f"|w| goes from {w[0] ** 0.5:.2f} to {w[-1] ** 0.5:.2f}; the least step adds {np.diff(w).min():.1e}",
    )
    effective = {name: rate / found["watched"]["w"] for name, found in (("without", without), ("with", with_it))}
    yield claim(
        "with L2 they shrink, and the step relative to them grows",
        float(effective["with"][-1] / effective["without"][-1]),
        ">",
        2.0,
        quantity="rate / |w|^2 at the end, with L2 / without",
        source=source,
    )
    yield _decay_figure(without, with_it, instead, rate, strength)


def _rate_of_scaled(x: np.ndarray, labels: np.ndarray, rate: float, seed: int) -> float:
    params, state = DECAY.init(jax.random.key(seed), x.shape[1:], jnp.float64)
    some = jnp.asarray(x[:BATCH], jnp.float64)

    def logits(a: float) -> Any:
        update = lambda _, grads: {
            **jax.tree.map(lambda g: rate * g, grads),
            "hidden": {"w": a**2 * rate * grads["hidden"]["w"]},
        }
        start = ({**params, "hidden": {"w": a * params["hidden"]["w"]}}, state)
        (found, _), _ = trained(DECAY, x, labels, 20, update, seed=seed, dtype=jnp.float64, start=start)
        return DECAY.apply(found, state, some, train=True)[0]

    return relative_difference(logits(10.0), logits(1.0))


def _decay_figure(without: Any, with_it: Any, instead: Any, rate: float, strength: float) -> Figure:
    fig, (left, middle, right) = figure(1, 3, width=WIDE, height=3.4)
    for found, colour, label in ((without, VERMILION, "without L2"), (with_it, BLUE, "with L2")):
        size = found["watched"]["w"]
        left.plot(np.sqrt(size), color=colour, label=label)
        middle.plot(rate / size, color=colour, label=label)
        loss = found["loss"] - (strength * size if found is with_it else 0)
        right.plot(_smooth(loss, 50), color=colour, label=label, linewidth=3, alpha=0.5)
    right.plot(_smooth(instead["loss"], 50), color=INK, linestyle="--", linewidth=1.2, label="growing rate instead")
    for axes, title in ((left, "|w|"), (middle, "Rate / |w|^2"), (right, "Loss without the penalty")):
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.legend(fontsize=9)
    middle.set_yscale("log")
    right.set_yscale("log")
    caption = (
        "L2 on the weights before a normalization. The function does not depend on |w|; the step relative to it does. With L2"
        " (blue) the weights shrink and that step grows. Training without L2 at a rate that grows as fast (dashed) gives the same"
        " network at every step. Losses are means of 50 batches."
    )
    return Figure("weight decay", fig, caption, wide=True)


# ---- whitening


def whitened(x: np.ndarray, labels: np.ndarray, settings: Settings) -> Iterator[Evidence]:
    random = np.random.default_rng(settings.seed)
    z = x[:1000].astype(np.float64) @ random.normal(size=(x.shape[1], 8))
    with jax.enable_x64(True):
        values = jnp.asarray(z)
        each, whole = fdl.ops.batch_norm({}, values, eps=0.0)[0], fdl.ops.whiten(values, eps=0.0)
        covariances = [np.cov(np.asarray(v).T, bias=True) for v in (values, each, whole)]
        yield claim(
            "full whitening makes the covariance the identity",
            float(np.abs(covariances[2] - np.eye(8)).max()),
            "<",
            1e-10,
            quantity="largest difference, float64",
            source=f"{PAPER}, section 2",
        )
        yield claim(
            "normalizing each feature leaves them correlated",
            float(np.abs(covariances[1] - np.eye(8)).max()),
            ">",
            0.2,
            quantity="largest correlation of two features",
            source=f"{PAPER}, section 3: the simplification",
        )
        yield _degenerate(random)
    yield _covariance_figure(covariances)
    steps, rate = 600, 0.1
    nets = {
        "neither": _two_hidden(()),
        "each feature": _two_hidden((fdl.batch_norm(scale=False, shift=False),)),
        "whitening": _two_hidden((fdl.Layer.from_op("whiten", fdl.ops.whiten.bind(eps=1e-2)),)),
    }
    losses = {
        name: [
            _smooth(trained(model, x, labels, steps, rate, seed=settings.seed + k)[1]["loss"], 50) for k in range(SEEDS)
        ]
        for name, model in nets.items()
    }
    for name in ("each feature", "whitening"):
        shares = [_share(*pair) for pair in zip(losses[name], losses["neither"], strict=True)]
        last = [
            f"{found[-1]:.3f} against {without[-1]:.3f}"
            for found, without in zip(losses[name], losses["neither"], strict=True)
        ]
        yield claim(
            f"training is faster with the hidden layers normalized: {name}",
            max(shares),
            "<",
            1.0,
            quantity=f"share of the steps to the loss that the network without has after {steps}, the worst of {SEEDS} seeds",
            source=f"{PAPER}, sections 2 and 3, after LeCun, Bottou, Orr & Muller 1998",
            note=f"last losses {', '.join(last)}",
        )
    yield _whitening_figure({name: found[0] for name, found in losses.items()})


def _share(losses: np.ndarray, others: np.ndarray) -> float:
    """Of the steps that the other network took, those to its last loss; infinity if they do not suffice."""
    there = np.flatnonzero(losses <= others[-1])
    return (float(there[0]) + 1) / len(others) if there.size else float("inf")


def _degenerate(random: Any) -> Evidence:
    """Equal eigenvalues: orthogonal columns of equal length, against autodiff of an iteration without eigenvectors."""
    columns = np.linalg.qr(np.concatenate([np.ones((40, 1)), random.normal(size=(40, 5))], axis=1))[0][:, 1:]
    z, dy = jnp.asarray(columns * np.sqrt(40)), jnp.asarray(random.normal(size=(40, 5)))

    def by_iteration(z: Any) -> Any:
        d = z - z.mean(axis=0, keepdims=True)
        root, inverse = d.T @ d / len(d) + 0.1 * jnp.eye(5), jnp.eye(5)
        for _ in range(12):  # Denman & Beavers: root -> S^(1/2), inverse -> S^(-1/2)
            root, inverse = (root + jnp.linalg.inv(inverse)) / 2, (inverse + jnp.linalg.inv(root)) / 2
        return d @ inverse

    ours, theirs, plain = (
        np.asarray(jax.vjp(f, z)[1](dy)[0])
        for f in (lambda z: fdl.ops.whiten(z, eps=0.1), by_iteration, lambda z: fdl.ops.whiten.equation(z, eps=0.1))
    )
    return claim(
        "its backward pass is right where all eigenvalues are equal",
        relative_difference(ours, theirs),
        "<",
        1e-10,
        quantity="relative difference from jax.grad of an iteration without eigenvectors, float64",
        source=f"{PAPER}, section 2: the Jacobians of whitening",
        note=f"jax.grad through eigh is {relative_difference(plain, theirs):.1e} off there",
    )


def _two_hidden(norm: tuple[fdl.Layer, ...]) -> fdl.Layer:
    bias = not norm
    layers: list[fdl.Layer] = []
    for _ in range(2):
        layers += [fdl.dense(UNITS, bias=bias), *norm, fdl.sigmoid()]
    return fdl.serial(*layers, fdl.dense(10))


def _covariance_figure(covariances: list[np.ndarray]) -> Figure:
    fig, row = figure(1, 3, height=2.2)
    for axes, matrix, title in zip(row, covariances, ("as they are", "each feature", "whitening"), strict=True):
        picture(axes).imshow(matrix / np.abs(matrix).max(), cmap=DIVERGING, vmin=-1, vmax=1)
        axes.set_title(title, fontsize=10)
    caption = (
        "Covariances of eight linear features of the digits (each picture on its own scale; red positive, blue negative):"
        " normalizing each feature sets the diagonal to 1, whitening the rest to 0."
    )
    return Figure("covariance", fig, caption)


def _whitening_figure(losses: dict[str, np.ndarray]) -> Figure:
    fig, axes = figure(height=3.3)
    for (name, found), colour in zip(losses.items(), (VERMILION, BLUE, GREEN), strict=True):
        axes.plot(np.arange(49, 49 + len(found)), found, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_title("Training loss")
    axes.legend(title="hidden layers normalized by", loc="lower left", fontsize=9, title_fontsize=9)
    axes.set_ylim(bottom=min(found[-1] for found in losses.values()) / 4)  # room for the legend
    caption = (
        "Two hidden layers of 32 sigmoids at the same learning rate; mean of the last 50 batches. Whitening is no gain over each"
        " feature by itself here; with batches of 240 in place of 60, or another eps, it is none either."
    )
    return Figure("whitening", fig, caption)


# ---- the singular values of a layer


DEPTH, CHECKS = 5, 6


def deep(activation: str, normalized: bool) -> fdl.Layer:
    layers: dict[str, fdl.Layer] = {}
    for place in range(1, DEPTH + 1):
        layers[f"dense_{place}"] = fdl.dense(UNITS, bias=not normalized)
        if normalized:
            layers[f"batch_norm_{place}"] = fdl.batch_norm()
        layers[f"{activation}_{place}"] = getattr(fdl, activation)()
    return fdl.serial(**layers, output=fdl.dense(10))


@functools.partial(jax.jit, static_argnums=(0, 1))
def singular_values(activation: str, normalized: bool, params: Any, x: Any) -> jax.Array:
    """[N, DEPTH - 1, UNITS] of the Jacobians from one layer's normalized values to the next one's.

    Without normalization, from what one activation gets to what the next gets. Means and variances are those of x, and constants.
    """
    f, values, found = getattr(fdl.ops, activation), x, []
    slope: Any = None
    for place in range(1, DEPTH + 1):
        dense = params[f"dense_{place}"]
        got = fdl.ops.dense(dense, values)
        rstd = 1 / jnp.sqrt(got.var(axis=0) + EPS) if normalized else jnp.ones(UNITS, got.dtype)
        if slope is not None:
            # d(next)[o] / d(this)[i] = rstd[o] w[i, o] f'[i]
            jacobian = slope[:, :, None] * dense["w"][None] * rstd[None, None]
            found.append(jnp.linalg.svd(jacobian, compute_uv=False))
        affine = params.get(f"batch_norm_{place}", {})
        got = fdl.ops.batch_norm(affine, got, eps=EPS)[0] if normalized else got
        values, pull = jax.vjp(f, got)
        slope = pull(jnp.ones_like(got))[0] * affine.get("scale", jnp.ones(UNITS, got.dtype))[None]
    return jnp.stack(found, axis=1)


def jacobians(x: np.ndarray, labels: np.ndarray, settings: Settings) -> Iterator[Evidence]:
    every = 1000 if settings.full else 300
    some = jnp.asarray(x[:50])
    spectra: dict[tuple[str, bool], np.ndarray] = {}
    rows = []
    for activation, rate in (("sigmoid", 0.3), ("tanh", 0.1)):
        for normalized in (False, True):
            model = deep(activation, normalized)
            carry, values = model.init(jax.random.key(settings.seed), x.shape[1:]), []
            for check in range(CHECKS):
                if check:
                    carry, found = trained(model, x, labels, every, rate, seed=settings.seed + check, start=carry)
                values.append(np.asarray(singular_values(activation, normalized, carry[0], some)))
                rows.append((activation, normalized, check * every, *_spread(values[-1])))
            spectra[activation, normalized] = np.stack(values)  # [checks, N, layers, UNITS]
    source = f"{PAPER}, section 3.3, a conjecture"
    size = {which: np.sqrt((s**2).mean(axis=(1, 2, 3))) for which, s in spectra.items()}  # [checks]
    for activation in ("sigmoid", "tanh"):
        found = size[activation, True]
        yield claim(
            f"with it J J^T has the trace of the identity, along training ({activation})",
            float(found[np.abs(np.log(found)).argmax()]),
            "in",
            (0.8, 1.25),
            quantity="root mean square singular value, the worst check",
            source=source,
            note=f"{found.min():.3f} to {found.max():.3f}; without it {size[activation, False].min():.3f} to"
            f" {size[activation, False].max():.3f}",
        )
        near = _near_1(spectra[activation, True])
        yield claim(
            f"but J is not orthogonal: the conjecture itself is refuted ({activation})",
            float(near.max()),
            "<",
            0.75,
            quantity="share of singular values between 1/2 and 2, the best check",
            source=source,
        )
    yield claim(
        "with it more singular values are near 1 than without (sigmoid)",
        float((_near_1(spectra["sigmoid", True]) - _near_1(spectra["sigmoid", False])).min()),
        ">",
        0.0,
        quantity="share between 1/2 and 2, with minus without, the worst check",
        source=source,
        note="with tanh the shares are {:.2f} to {:.2f} with it and {:.2f} to {:.2f} without".format(
            *(f(_near_1(spectra["tanh", n])) for n in (True, False) for f in (np.min, np.max))
        ),
    )
    yield _spectra_figure(spectra, every)
    yield Table(
        "Singular values of the layers' Jacobians",
        (
            "activation",
            "normalized",
            "step",
            "root mean square",
            "10th percentile",
            "median",
            "90th",
            "share in [1/2, 2]",
        ),
        rows,
        f"{DEPTH} hidden layers of {UNITS}; 50 examples, {DEPTH - 1} Jacobians each."
        " Without normalization the sigmoids have not learned by then.",
    )


def _near_1(values: np.ndarray) -> np.ndarray:
    """[checks]: the share between 1/2 and 2."""
    return ((values >= 0.5) & (values <= 2)).mean(axis=(1, 2, 3))


def _spread(values: np.ndarray) -> tuple[float, ...]:
    return (
        float(np.sqrt((values**2).mean())),
        *map(float, np.quantile(values, (0.1, 0.5, 0.9))),
        float(_near_1(values[None])[0]),
    )


def _spectra_figure(spectra: dict[tuple[str, bool], np.ndarray], every: int) -> Figure:
    fig, row = figure(1, 2, width=WIDE, height=3.6, sharey=True)
    for axes, activation in zip(row, ("sigmoid", "tanh"), strict=True):
        for normalized, colour, label in ((False, VERMILION, "without"), (True, BLUE, "with batch normalization")):
            values = spectra[activation, normalized]
            low, middle, high = np.quantile(values.reshape(CHECKS, -1), (0.1, 0.5, 0.9), axis=1)
            steps = every * np.arange(CHECKS)
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(steps, middle, color=colour, label=label)
            axes.plot(steps, np.sqrt((values**2).mean(axis=(1, 2, 3))), color=colour, linestyle="--", linewidth=1.2)
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_title(activation)
    row[0].set_ylabel("singular value")
    row[0].legend(loc="lower right", fontsize=9)
    caption = (
        "Singular values of the Jacobians between consecutive layers: median, 10th to 90th percentile (band) and root mean square"
        " (dashed). With batch normalization their mean square is near 1, as if J J^T were the identity; the single values are not."
        " Without it a layer of sigmoids shrinks every error to a fifth."
    )
    return Figure("singular values", fig, caption, wide=True)
