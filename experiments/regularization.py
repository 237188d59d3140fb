"""L1 and L2 on data: Lasso, Ridge, and the priors that they stand for.

Question: do the penalties find the minima that are known for them, is an L1 weight that should be 0 exactly 0, and is a
penalty the negative logarithm of a prior?

Command: python -m experiments regularization

Expected: gradient descent with `proximal_l1` gives scikit-learn's Lasso along the whole path, to 1e-8 and with the same
weights exactly 0, and with `l2` its Ridge, to 1e-8. Gradient steps on L1 itself give no exact zero. The negative log
posterior under a Laplace or a Gaussian prior differs from loss + penalty by a constant only, to 1e-10, and when weights
are drawn from the Gaussian prior the strength that belongs to it reconstructs them best.

The data are the 442 patients and 10 measurements of scikit-learn's diabetes data (Efron et al. 2004), standardised, in
float64. The model is one dense layer, the loss the mean squared error; the bias is not penalised. With --full the last
part draws ten times as many weights.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, relative_difference
from experiments._style import BLUE, CYCLE, GREY, INK, VERMILION, WIDE, figure

MODEL = fdl.serial(line=fdl.dense(1))
LOSS = fdl.losses.mean_squared_error
ALPHAS = 25  # points of each path
STEPS = 12_000  # the smallest eigenvalue is 470 times below the largest: the slowest error shrinks by e in 470 steps


def run(settings: Settings) -> Iterator[Evidence]:
    x, y, names = diabetes()
    with jax.enable_x64(True):
        yield "the Lasso path"
        yield from lasso(x, y, names)
        yield "the Ridge path"
        yield from ridge(x, y, names)
        yield "priors"
        yield from priors(x, y, settings.seed)
        yield from drawn(settings.seed, 5000 if settings.full else 500)


def diabetes() -> tuple[np.ndarray, np.ndarray, list[str]]:
    from sklearn.datasets import load_diabetes

    data: Any = load_diabetes(scaled=False)
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    return x, (data.target / data.target.std())[:, None], list(data.feature_names)


def descend(x: Any, y: Any, rate: float, penalty: Any = None, *last: Any) -> Any:
    """Full-batch gradient descent from 0 by the hand-written gradients: the parameters of the line."""
    gradients = fdl.backprop.value_and_grad(MODEL, LOSS, penalty)
    optimizer = optax.chain(optax.sgd(rate), *last)
    start = {"line": {"w": jnp.zeros((x.shape[1], 1), x.dtype), "b": jnp.zeros(1, x.dtype)}}

    def step(carry, _):
        params, state = carry
        _, grads = gradients(params, {}, x, y)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    params: Any = jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[0][0]
    return params["line"]


def steepest(x: np.ndarray) -> float:
    """The largest curvature of the mean squared error; its inverse is a safe learning rate."""
    return float(2 * np.linalg.eigvalsh(np.cov(x.T, bias=True))[-1] + 2 * x.mean(0) @ x.mean(0))


def lasso(x: np.ndarray, y: np.ndarray, names: list[str]) -> Iterator[Evidence]:
    from sklearn.linear_model import Lasso

    first = float(np.abs(x.T @ (y - y.mean())).max() / len(y))  # above this alpha all weights are 0
    alphas = first * np.append(1.01, np.geomspace(0.99, 0.001, ALPHAS - 1))
    # scikit-learn halves the mean squared error: its alpha is half of ours
    rate = 1 / steepest(x)
    path = lambda strength: descend(x, y, rate, None, fdl.regularizers.proximal_l1(strength, rate))
    ours = np.asarray(jax.jit(jax.vmap(path))(jnp.asarray(2 * alphas))["w"])[..., 0]
    theirs = np.stack([Lasso(alpha=a, tol=1e-14, max_iter=1_000_000).fit(x, y[:, 0]).coef_ for a in alphas])
    source = "Tibshirani 1996; scikit-learn's Lasso, by coordinate descent"
    yield claim(
        "proximal gradient descent finds Lasso's weights along the path",
        relative_difference(ours, theirs),
        "<",
        1e-8,
        quantity="largest difference over the path, relative to the largest weight",
        source=source,
    )
    yield claim(
        "the same weights are exactly 0",
        int(((ours == 0) != (theirs == 0)).sum()),
        "==",
        0,
        quantity=f"of {ours.size} weights, those that are 0 in one path only",
        source=source,
        note=f"{int((ours == 0).sum())} are 0",
    )
    counts = (ours != 0).sum(1)
    yield claim(
        "above max |x'y| / N every weight is 0, and just below it one is not",
        f"{counts[0]} and {counts[1]}",
        "==",
        "0 and 1",
        quantity="weights other than 0 at 1.01 and 0.99 of it",
        source="the condition for 0 to be a minimum: |gradient of the loss at 0| <= strength",
    )
    some = ALPHAS // 3
    plain = jax.jit(lambda: descend(x, y, rate, fdl.regularizers.l1(2 * alphas[some])))()["w"][:, 0]
    yield claim(
        "gradient steps on L1 itself leave no weight at exactly 0",
        int((np.asarray(plain) == 0).sum()),
        "==",
        0,
        quantity="weights that are exactly 0",
        source="a step of fixed size crosses 0 and comes back",
        note=f"{int((ours[some] == 0).sum())} of {len(plain)} are 0 by proximal steps at the same strength",
    )
    fig, (left, right) = figure(1, 2, width=WIDE, height=4)
    paths(left, alphas, ours, theirs, names, "Lasso's path")
    left.set_xlabel("alpha (half the strength of L1)")
    places = np.arange(len(names))
    right.bar(places - 0.2, np.abs(ours[some]), width=0.38, color=BLUE, label="proximal steps")
    right.bar(places + 0.2, np.abs(plain), width=0.38, color=VERMILION, label="gradient steps on L1")
    right.set_yscale("log")
    right.set_ylim(top=3)  # room for the legend
    right.set_xticks(places, names)
    right.set_ylabel("|weight|")
    right.set_title("What should be 0, at one strength")
    right.legend()
    yield Figure(
        "lasso path",
        fig,
        "Left: every weight against the strength, by proximal gradient descent (lines) and by scikit-learn's Lasso"
        " (points); one after the other they reach 0 and stay there. Right: at one strength, on a logarithmic axis, the"
        " weights after proximal steps, where a missing bar is an exact 0, and after gradient steps on the penalty, which"
        " jump about 0.",
        wide=True,
    )
    yield Table(
        "The path of Lasso",
        ("alpha", "weights not 0", "largest difference from scikit-learn"),
        [
            (float(a), int(c), float(np.abs(o - t).max()))
            for a, c, o, t in zip(alphas, counts, ours, theirs, strict=True)
        ],
        f"After {STEPS} steps; the largest weight of the path is {np.abs(theirs).max():.3f}.",
    )


def ridge(x: np.ndarray, y: np.ndarray, names: list[str]) -> Iterator[Evidence]:
    from sklearn.linear_model import Ridge

    alphas = np.geomspace(1e-1, 1e5, ALPHAS)
    strengths = alphas / len(y)  # scikit-learn sums the squared errors, ours is their mean

    def path(strength):
        rate = 1 / (steepest(x) + 2 * strength)
        return descend(x, y, rate, fdl.regularizers.l2(strength))

    ours = np.asarray(jax.jit(jax.vmap(path))(jnp.asarray(strengths))["w"])[..., 0]
    theirs = np.stack([Ridge(alpha=a, solver="cholesky").fit(x, y[:, 0]).coef_ for a in alphas])
    yield claim(
        "gradient descent with L2 finds Ridge's weights along the path",
        relative_difference(ours, theirs),
        "<",
        1e-8,
        quantity="largest difference over the path, relative to the largest weight",
        source="Hoerl & Kennard 1970; scikit-learn's Ridge, by Cholesky factorisation",
    )
    yield claim(
        "L2 makes no weight exactly 0, however strong",
        int((ours == 0).sum()),
        "==",
        0,
        quantity="weights that are exactly 0",
        source="the pull of L2 fades with the weight",
    )
    fig, axes = figure(height=4)
    paths(axes, alphas, ours, theirs, names, "Ridge's path")
    axes.set_xlabel("alpha (N times the strength of L2)")
    yield Figure(
        "ridge path",
        fig,
        "Every weight against the strength, by gradient descent with L2 (lines) and by scikit-learn's Ridge (points):"
        " all fade towards 0, some cross it on the way, none stops there.",
    )


def priors(x: np.ndarray, y: np.ndarray, seed: int) -> Iterator[Evidence]:
    """-log p(y | w) - log p(w) by scipy's densities, against loss + penalty times N / 2 sigma^2, at random weights."""
    from scipy import stats

    sigma, width, examples = 0.7, 0.3, len(y)
    draws = np.random.default_rng(seed).normal(size=(50, x.shape[1], 1))
    cases: Any = (
        ("Gaussian", stats.norm(scale=width), fdl.regularizers.l2(sigma**2 / (examples * width**2))),
        ("Laplace", stats.laplace(scale=width), fdl.regularizers.l1(2 * sigma**2 / (examples * width))),
    )
    for name, prior, penalty in cases:
        cost = jax.jit(jax.vmap(lambda w, penalty=penalty: LOSS(x @ w, y).mean() + penalty(w)))
        ours = np.asarray(cost(jnp.asarray(draws))) * examples / (2 * sigma**2)
        noise: Any = stats.norm(scale=sigma)
        posterior = np.array([-noise.logpdf(y - x @ w).sum() - prior.logpdf(w).sum() for w in draws])
        yield claim(
            f"the penalty is the negative logarithm of a {name} prior",
            float(np.ptp(posterior - ours) / np.ptp(posterior)),
            "<",
            1e-10,
            quantity="spread of (negative log posterior - cost) over 50 random weights, relative to the posterior's",
            source="Goodfellow, Bengio & Courville 2016, section 5.6.1; densities of scipy",
        )


def drawn(seed: int, draws: int) -> Iterator[Evidence]:
    """Weights drawn from the prior, seen through noise: which strength finds them back best?"""
    examples, inputs, sigma, width = 20, 10, 1.0, 0.5
    random = np.random.default_rng(seed + 1)
    x = random.normal(size=(draws, examples, inputs))
    w = width * random.normal(size=(draws, inputs, 1))
    y = x @ w + sigma * random.normal(size=(draws, examples, 1))
    right = sigma**2 / (examples * width**2)
    factors = 2.0 ** np.arange(-6, 7)

    def minimum(x, y, strength):
        """One Newton step: the cost is quadratic, and its Hessian is that of the hand-written gradients."""
        slope = jax.grad(lambda w: LOSS(x @ w[:, None], y).mean() + fdl.regularizers.l2(strength)(w[:, None]))
        start = jnp.zeros(inputs, x.dtype)
        return -jnp.linalg.solve(jax.jacrev(slope)(start), slope(start))

    many = jax.jit(jax.vmap(jax.vmap(minimum, (0, 0, None)), (None, None, 0)))
    found = np.asarray(many(jnp.asarray(x), jnp.asarray(y), jnp.asarray(right * factors)))  # [strengths, draws, inputs]
    errors = ((found - w[..., 0]) ** 2).mean((1, 2))
    yield claim(
        "the strength that belongs to the prior finds its weights back best",
        float(factors[errors.argmin()]),
        "==",
        1.0,
        quantity="best strength, as a multiple of sigma^2 / (N variance of the prior), on a grid of factors of 2",
        source="for Gaussians the MAP estimate is the posterior mean, which no other estimate beats",
        note=f"{draws} draws; the error is {errors.min():.4f}, at 1/64 of this strength {errors[0]:.4f}",
    )
    fig, axes = figure(height=4)
    axes.plot(factors, errors, color=BLUE, marker="o", markersize=4)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.axhline(width**2, color=GREY, linewidth=0.8)
    axes.text(factors[0], width**2, "all weights 0", color=GREY, va="bottom", fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("strength / the strength of the prior")
    axes.set_ylabel("mean squared error of the weights")
    axes.set_title("L2 as a Gaussian prior")
    yield Figure(
        "strength of the prior",
        fig,
        f"{draws} times, 10 weights are drawn from a Gaussian and seen through 20 noisy examples. The strength of L2 that"
        " stands for that Gaussian (dotted) recovers them best; weaker penalties fit noise, stronger ones shrink signal.",
    )


def paths(axes: Any, alphas: np.ndarray, ours: np.ndarray, theirs: np.ndarray, names: list[str], title: str) -> None:
    for k, name in enumerate(names):
        colour, style = CYCLE[k % len(CYCLE)], "-" if k < len(CYCLE) else "--"
        axes.plot(alphas, ours[:, k], color=colour, linestyle=style, linewidth=1.4, label=name)
        axes.plot(alphas[::2], theirs[::2, k], color=colour, linestyle="", marker="o", markersize=3.5)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_ylabel("weight (standardised data)")
    axes.set_title(title)
    axes.legend(ncols=2, fontsize=8)
