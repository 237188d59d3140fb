"""Cross-entropy as likelihood: why the loss is the negative logarithm of a product of probabilities, and its sign.

Question: is minimising the cross-entropy the same as maximising the probability of what was counted; what happens when
the minus sign is lost on the way, as in the notes ("loss = sum p lg q = -H, minimise"); and what else does the formula
say: about the base of the logarithm, the least possible loss, logistic regression, samples, and ensembles?

Command: python -m experiments likelihood

Expected: with counts n_i among N and p = n / N, P = prod q_i^n_i is exp(-N H(p, q)) to rounding. Minimising +H ends at
q = p, where P is largest; minimising sum p lg q = -H ends with everything bet on the rarest event and P falling without
end. H(p, q) = H(p) + KL(p || q), in every base. The gradient of logistic regression is X^T (yhat - y). The mean of
-log q over samples errs by N^-1/2. In an ensemble trained by the amended cross-entropy with diversity lambda, classifiers
that must all learn the same p forget their differences at 1 - lambda times the rate.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, relative_difference
from experiments._style import BLUE, CYCLE, GREEN, GREY, INK, VERMILION, figure

COUNTS = np.asarray([13, 8, 5, 3, 1])  # how often each of five events was seen
CODE = [Fraction(n, 20) for n in (3, 3, 4, 4, 6)]  # a model that is wrong about them
TOTAL = int(COUNTS.sum())
TRUTH = COUNTS / TOTAL
H, KL, AMENDED = fdl.losses.cross_entropy, fdl.losses.kl_divergence, fdl.losses.amended_cross_entropy
MODEL = fdl.serial(logits=fdl.dense(len(COUNTS), bias=False), q=fdl.softmax())  # its one input is 1
BASES = {"e": math.e, "2": 2.0, "10": 10.0}
STEPS, WRONG_STEPS, LEARNING_RATE = 3000, 300, 0.5
CLASSIFIERS, CLASSES, DIVERSITIES = 3, 4, (0.0, 0.5, 0.75, 1.0)
NOTES = "notes on cross-entropy: P = prod q_i^n_i"
WIKIPEDIA = "Wikipedia, Cross-entropy"

# what the notes minimise: sum p lg q, which is -H
WITHOUT_THE_MINUS = fdl.Op(
    lambda pred, target: -H.equation(pred, target),
    lambda pred, target: (-H(pred, target), (pred, target)),
    lambda residuals, dloss: H.backward(residuals, -dloss, base=math.e),
    name="sum p log q",
)


def run(settings: Settings) -> Iterator[Evidence]:
    with jax.enable_x64(True):
        yield from product_and_sign(settings.seed)
        yield from decomposition(settings.seed)
        yield from logistic_regression(settings.seed)
        yield from samples(settings)
        yield from ensemble(settings.seed)


# ---- the product of probabilities, its logarithm, and the sign


class Descent(NamedTuple):
    """q, and H(p, q) in nats, before every step and after the last."""

    q: np.ndarray  # [steps + 1, V]
    h: np.ndarray


def product_and_sign(seed: int) -> Iterator[Evidence]:
    yield "the probability of what was counted"
    exact = math.prod(q ** int(n) for q, n in zip(CODE, COUNTS, strict=True))  # a fraction: no rounding at all
    p, q = jnp.asarray(TRUTH), jnp.asarray([float(part) for part in CODE])
    h = float(H(q, p))
    yield claim(
        "P = prod q_i^n_i is exp(-N H(p, q))",
        relative_difference(math.exp(-TOTAL * h), float(exact)),
        "<",
        1e-12,
        quantity="relative difference to the exact fraction",
        source=NOTES,
    )
    yield claim(
        "log P / N = sum p_i log q_i = -H(p, q)",
        abs((math.log(exact.numerator) - math.log(exact.denominator)) / TOTAL + h),
        "<",
        1e-13,
        quantity="absolute difference",
        source=NOTES,
    )

    yield "minimising +H, and minimising what the notes call the loss"
    right, wrong = descend(H, STEPS), descend(WITHOUT_THE_MINUS, WRONG_STEPS)
    entropy = float(H(p, p))
    yield claim(
        "minimising +H ends at q = p",
        np.abs(right.q[-1] - TRUTH).max(),
        "<",
        1e-9,
        quantity="largest difference to p",
        source=f"{NOTES}; Gibbs inequality",
    )
    yield claim(
        "every step that lowers H raises P",
        np.diff(right.h).max(),
        "<=",
        1e-15,
        quantity="largest rise of H in a step",
        source=NOTES,
        note="log P = -N H; the bound is the rounding at the end of the run",
    )
    others = np.random.default_rng(seed).dirichlet(np.ones(len(COUNTS)), 10_000)
    best = (COUNTS * np.log(others)).sum(axis=1).max()
    yield claim(
        "no other q gives the counts a larger P",
        best + TOTAL * right.h[-1],
        "<",
        0.0,
        quantity="largest log P of 10,000 random q, less that of the trained one",
        source="Gibbs inequality: H(p, q) >= H(p)",
    )
    yield claim(
        "the notes' loss, sum p lg q without the minus, makes P smaller when it is minimised",
        np.diff(-TOTAL * wrong.h).max(),
        "<",
        0.0,
        quantity="largest change of log P in a step",
        source="the notes drop a sign: sum p lg q is -H, and the loss is +H",
    )
    yield claim(
        "its minimum is no model of the data: all is bet on the rarest event",
        int(wrong.q[-1].argmax()),
        "==",
        int(TRUTH.argmin()),
        quantity="index of the likeliest event",
        source="sum p lg q has no lower bound",
        note=f"after {WRONG_STEPS} steps log P is {-TOTAL * wrong.h[-1]:.0f}; the right sign reaches {-TOTAL * entropy:.2f}",
    )
    yield sign_figure(right, wrong, entropy)
    yield bets_figure(right, wrong)


def descend(loss: fdl.Op, steps: int) -> Descent:
    """Gradient descent on the logits from the uniform distribution, with the backward passes of fdl."""
    one, p = jnp.ones((1, 1)), jnp.asarray(TRUTH)[None]
    gradient = fdl.backprop.value_and_grad(MODEL, loss)

    @jax.jit
    def whole(params):
        def step(params, _):
            _, grads = gradient(params, {}, one, p)
            return jax.tree.map(lambda w, g: w - LEARNING_RATE * g, params, grads), MODEL.apply(params, {}, one)[0][0]

        last, q = jax.lax.scan(step, params, length=steps)
        return jnp.concatenate([q, MODEL.apply(last, {}, one)[0]])

    q = whole({"logits": {"w": jnp.zeros((1, len(COUNTS)))}})
    return Descent(np.asarray(q), np.asarray(H(q, jnp.broadcast_to(p, q.shape))))


# ---- H(p, q) = H(p) + KL(p || q)


def decomposition(seed: int) -> Iterator[Evidence]:
    yield "entropy, divergence and bases"
    pairs = np.random.default_rng(seed + 1).dirichlet(np.ones(6), (2, 1000))
    p, q = jnp.asarray(pairs)

    @jax.jit
    def measured(p, q):
        values = {name: H(q, p, base=base) for name, base in BASES.items()}
        slopes = {name: jax.grad(lambda q, b=base: H(q, p, base=b).sum())(q) for name, base in BASES.items()}
        return values, slopes, H(p, p), KL(q, p)

    values, slopes, entropy, divergence = jax.tree.map(np.asarray, measured(p, q))
    yield claim(
        "H(p, q) = H(p) + KL(p || q)",
        relative_difference(entropy + divergence, values["e"]),
        "<",
        1e-14,
        quantity="largest relative difference over 1,000 pairs",
        source=WIKIPEDIA,
    )
    yield claim(
        "H(p, q) is above H(p): the least loss is the entropy of the data, not 0",
        (values["e"] - entropy).min(),
        ">",
        0.0,
        quantity="smallest H(p, q) - H(p) over 1,000 pairs",
        source="Gibbs inequality",
    )
    for name in ("2", "10"):
        unit = {"2": "bits", "10": "hartleys"}[name]
        yield claim(
            f"base {name} measures in {unit}: everything is divided by log {name}, the gradient too",
            max(
                relative_difference(values[name] * math.log(BASES[name]), values["e"]),
                relative_difference(slopes[name] * math.log(BASES[name]), slopes["e"]),
            ),
            "<",
            1e-14,
            quantity="largest relative difference",
            source="log_b x = log x / log b; the notes write lg",
        )
    yield gibbs_figure()
    p, q = TRUTH, np.asarray([float(part) for part in CODE])
    rows = [
        (name, *(float(f(jnp.asarray(a), jnp.asarray(p), base=base)) for f, a in ((H, p), (H, q))))
        for name, base in BASES.items()
    ]
    yield Table(
        "The counts in three bases",
        ("base", "H(p)", "H(p, q)", "KL(p || q)", "N H(p, q) = -log P"),
        [(name, low, high, high - low, TOTAL * high) for name, low, high in rows],
        f"Counts {', '.join(map(str, COUNTS))} under q = {', '.join(f'{float(part):g}' for part in CODE)}.",
    )


# ---- the gradient of logistic regression


def logistic_regression(seed: int) -> Iterator[Evidence]:
    yield "logistic regression"
    rng = np.random.default_rng(seed + 2)
    x, w, b = rng.normal(size=(50, 4)), rng.normal(size=(4, 1)), rng.normal(size=1)
    y = (rng.uniform(size=(50, 1)) < 0.4).astype(np.float64)
    gradient = jax.jit(fdl.backprop.value_and_grad(fdl.serial(z=fdl.dense(1)), fdl.losses.sigmoid_binary_cross_entropy))
    _, grads = gradient({"z": {"w": jnp.asarray(w), "b": jnp.asarray(b)}}, {}, jnp.asarray(x), jnp.asarray(y))
    error = 1 / (1 + np.exp(-(x @ w + b))) - y
    yield claim(
        "the gradient of logistic regression is X^T (yhat - y)",
        max(
            relative_difference(len(x) * grads["z"]["w"], x.T @ error),
            relative_difference(len(x) * grads["z"]["b"], error.sum(axis=0)),
        ),
        "<",
        1e-14,
        quantity="relative difference, weights and bias",
        source=WIKIPEDIA,
    )


# ---- cross-entropy from samples


def samples(settings: Settings) -> Iterator[Evidence]:
    yield "the estimate from samples"
    repeats = 20_000 if settings.full else 4000
    sizes = 2 ** np.arange(4, 15)
    p, q = TRUTH, np.asarray([float(part) for part in CODE])
    rng = np.random.default_rng(settings.seed + 3)
    h = float(H(jnp.asarray(q), jnp.asarray(p)))
    # the mean of -log q over n samples: how often each event came is multinomial
    estimates = np.stack([np.asarray(_means(rng.multinomial(n, p, repeats) / n, q)) for n in sizes])
    rms = np.sqrt(((estimates - h) ** 2).mean(axis=1))
    sigma = math.sqrt((p * (np.log(q) + h) ** 2).sum())
    yield claim(
        "the error of -1/N sum log q(x_i) falls with the root of the number of samples",
        np.polyfit(np.log(sizes), np.log(rms), 1)[0],
        "in",
        (-0.52, -0.48),
        quantity="slope of log error against log N",
        source=f"{WIKIPEDIA}: Monte-Carlo estimate of the true cross-entropy",
    )
    yield claim(
        "and is the standard deviation of log q over that root",
        np.abs(rms * np.sqrt(sizes) / sigma - 1).max(),
        "<",
        0.05,
        quantity=f"largest relative difference, {repeats:,} repeats",
        source="variance of a mean",
    )
    yield samples_figure(sizes, estimates, h, sigma)


@jax.jit
def _means(frequencies: Any, q: Any) -> Any:
    return H(jnp.broadcast_to(q, frequencies.shape), frequencies)


# ---- the amended cross-entropy


def ensemble(seed: int) -> Iterator[Evidence]:
    yield "an ensemble that is paid for being diverse"
    rng = np.random.default_rng(seed + 4)
    q, p = jnp.asarray(rng.dirichlet(np.ones(CLASSES), CLASSIFIERS)), jnp.asarray(rng.dirichlet(np.ones(CLASSES)))
    ours = np.asarray(AMENDED(q, p, diversity=0.7))
    h = lambda a, b: -float((np.asarray(a) * np.log(np.asarray(b))).sum())
    theirs = [
        h(p, q[k]) - 0.7 / CLASSIFIERS * sum(h(q[j], q[k]) for j in range(CLASSIFIERS) if j != k)
        for k in range(CLASSIFIERS)
    ]
    source = "Shoham and Permuter 2019"
    yield claim(
        "the amended cross-entropy is H(p, q_k) - lambda/K sum_{j != k} H(q_j, q_k)",
        relative_difference(ours, theirs),
        "<",
        1e-14,
        quantity="relative difference",
        source=source,
    )
    spreads = np.asarray(spread_over_time(seed))
    rates = -np.polyfit(np.arange(spreads.shape[1])[200:], np.log(spreads[:, 200:]).T, 1)[0]
    for diversity, rate in list(zip(DIVERSITIES, rates, strict=True))[1:]:
        yield claim(
            f"with lambda = {diversity:g}, differences between classifiers of the same p fade at 1 - lambda the rate",
            rate / rates[0],
            "in",
            (1 - diversity - 0.01, 1 - diversity + 0.01),
            quantity="rate / rate at lambda = 0",
            source=f"{source}; linearised at q = p, derived in `spread_over_time`",
        )
    yield ensemble_figure(spreads)


def spread_over_time(seed: int, steps: int = 600) -> Any:
    """[diversity, step]: the root mean square distance of K classifiers from their mean, each trained on its own cost.

    With S = 1 - lambda (K - 1)/K the sum of w = p - lambda/K sum_{j != k} q_j, the gradient by the logits of k is
    S q_k - w. Near q = p, for deviations d that sum to 0 over k, it is S d_k + lambda/K sum_{j != k} d_j
    = (S - lambda/K) d_k = (1 - lambda) d_k.
    """
    start = jnp.asarray(0.3 * np.random.default_rng(seed + 5).normal(size=(CLASSIFIERS, CLASSES)))
    p = jnp.full(CLASSES, 1 / CLASSES)

    def own_costs(z, diversity):
        """Each classifier's cost, in which the others are constants."""
        q = jax.nn.softmax(z)
        total = 0.0
        for k in range(CLASSIFIERS):
            mine = (jnp.arange(CLASSIFIERS) == k)[:, None]
            total += AMENDED(jnp.where(mine, q, jax.lax.stop_gradient(q)), p, diversity=diversity)[k]
        return total

    @jax.jit
    @jax.vmap
    def whole(diversity):
        def step(z, _):
            q = jax.nn.softmax(z)
            spread = jnp.sqrt(jnp.mean((q - q.mean(axis=0)) ** 2))
            return z - 0.05 * jax.grad(own_costs)(z, diversity), spread

        return jax.lax.scan(step, start, length=steps)[1]

    return whole(jnp.asarray(DIVERSITIES))


# ---- figures


def sign_figure(right: Descent, wrong: Descent, entropy: float) -> Figure:
    fig, axes = figure(height=3.6)
    shown = 60
    steps = np.arange(shown + 1)
    axes.plot(steps, -TOTAL * right.h[: shown + 1], color=BLUE, label="minimise +H")
    axes.plot(steps, -TOTAL * wrong.h[: shown + 1], color=VERMILION, linestyle="--", label="minimise -H (the notes)")
    axes.axhline(-TOTAL * entropy, color=INK, linewidth=1, linestyle=":")
    axes.text(shown, -TOTAL * entropy + 3, "largest possible: -N H(p)", ha="right", va="bottom", fontsize=10)
    axes.set_ylim(-260, -5)
    axes.set_xlabel("step")
    axes.set_ylabel("log P of the counts")
    axes.set_title("The sign decides")
    axes.legend(loc="center right")
    caption = (
        f"The log-probability that the model gives to the {TOTAL} counted events. The notes write the loss as sum p lg q"
        " = -H and say minimise: taken literally, the model gets worse without end. The loss is +H."
    )
    return Figure("sign", fig, caption)


def bets_figure(right: Descent, wrong: Descent) -> Figure:
    fig, axes = figure(height=3.6)
    places = np.arange(len(COUNTS))
    for offset, values, colour, label in (
        (-0.27, TRUTH, GREY, "seen: p = n / N"),
        (0.0, right.q[-1], BLUE, "q that minimises +H"),
        (0.27, wrong.q[-1], VERMILION, "q from minimising -H"),
    ):
        axes.bar(places + offset, values, width=0.25, color=colour, label=label)
    axes.set_xticks(places, [f"{n} times" for n in COUNTS])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("probability")
    axes.set_title("What each sign believes in")
    axes.legend(loc="upper center")
    caption = (
        "The trained distribution beside what was seen. With +H they are the same (to nine digits); with the sign lost,"
        " the whole bet is on the event that was seen once."
    )
    return Figure("bets", fig, caption)


def gibbs_figure() -> Figure:
    """H(p, q) of two outcomes against q, for three p."""
    fig, axes = figure(height=3.6)
    q = np.linspace(0.01, 0.99, 197)
    for p, colour in ((0.5, BLUE), (0.7, VERMILION), (0.9, GREEN)):
        pairs = jnp.asarray(np.stack([q, 1 - q], axis=1))
        h = np.asarray(H(pairs, jnp.broadcast_to(jnp.asarray([p, 1 - p]), pairs.shape), base=2.0))
        axes.plot(q, h, color=colour, label=f"p = {p}")
        axes.plot(p, -(p * np.log2(p) + (1 - p) * np.log2(1 - p)), "o", color=colour)
    inner = np.linspace(0.01, 0.99, 197)
    axes.plot(
        inner,
        -(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner)),
        color=GREY,
        linestyle=":",
        label="H(p), the floor",
    )
    axes.set_ylim(0, 3)
    axes.set_xlabel("q, the model's probability of the first of two outcomes")
    axes.set_ylabel("H(p, q) in bits")
    axes.set_title("Least where q = p")
    axes.legend(loc="upper center")
    caption = (
        "Cross-entropy of two outcomes against the model q. Each curve touches the dotted entropy at q = p (dot) and is"
        " above it elsewhere; the height above the dot is KL(p || q), what the wrong q costs."
    )
    return Figure("gibbs", fig, caption)


def samples_figure(sizes: np.ndarray, estimates: np.ndarray, h: float, sigma: float) -> Figure:
    fig, axes = figure(height=3.6)
    low, middle, high = np.percentile(estimates, [2.5, 50, 97.5], axis=1)
    axes.fill_between(sizes, low, high, color=BLUE, alpha=0.25, linewidth=0, label="95 % of the estimates")
    axes.plot(sizes, middle, color=BLUE, label="their median")
    for sign in (-1, 1):
        label = "H +- 1.96 sd / sqrt N" if sign == 1 else None
        axes.plot(sizes, h + sign * 1.96 * sigma / np.sqrt(sizes), color=INK, linestyle="--", linewidth=1, label=label)
    axes.axhline(h, color=GREY, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("samples N")
    axes.set_ylabel("-1/N sum log q(x_i)")
    axes.set_title("The loss of a sample estimates H(p, q)")
    axes.legend()
    caption = (
        "The mean of -log q over N samples of p, many times over: a training loss is such a mean. It is right on"
        " average, and four times the samples halve its error."
    )
    return Figure("samples", fig, caption)


def ensemble_figure(spreads: np.ndarray) -> Figure:
    fig, axes = figure(height=3.6)
    for diversity, spread, colour in zip(DIVERSITIES, spreads, CYCLE, strict=False):
        axes.plot(spread / spread[0], color=colour, label=f"lambda = {diversity:g}")
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("spread of the classifiers / at the start")
    axes.set_title("Paid to differ")
    axes.legend(loc="lower left")
    caption = (
        f"{CLASSIFIERS} classifiers learn the same distribution, each on its own amended cross-entropy. The larger"
        " lambda, the more slowly they become alike; at 1 their differences stay."
    )
    return Figure("ensemble", fig, caption)
