"""A line through points of which some are wrong: what each loss lets outliers do.

Question: how far do outliers pull the line that each loss prefers, until which share of them do the robust losses hold,
and are the lines those of independent solvers?

Command: python -m experiments robust_regression

Expected: MSE gives the line of least squares to 1e-12 and MAE the best of all lines through two of the points to 1e-9.
Pseudo-Huber gives scipy's soft_l1 and Huber, with the scale sigma of the noise estimated along, scikit-learn's
HuberRegressor: coefficients to 1e-6, sigma to 1e-5. With 15 % of the points moved up at one end, the slope of MSE errs
at least 4 times as far as that of Huber, in the median over 40 data sets. From 30 % on all losses are lost. Without
outliers Huber errs by 6 % more than MSE, and not by the 2.6 % for which its epsilon = 1.35 is known: that is for a
known sigma.

A data set is 60 points y = 0.5 + 1.5 x + noise of 0.3, those with the smallest x moved up by about 6. scikit-learn
minimises sum_n sigma + sigma H(r_n / sigma), where H(z) is z^2 up to epsilon and 2 epsilon |z| - epsilon^2 beyond, over
the line and over sigma. For a fixed sigma that is 2 / sigma times fdl's Huber loss with delta = epsilon sigma, and for
a fixed line its derivative by sigma is 0 where sigma is the root mean square of the residuals clipped at delta. The two
steps take turns here, the first by the hand-written gradient; they rest only where both are satisfied. Pseudo-Huber has
the same delta. With --full 400 data sets per share of outliers in the place of 40.
"""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from experiments import Evidence, Figure, Settings, Table, claim, largest, relative_difference
from experiments._ellipsoid import ellipsoid
from experiments._style import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, WIDE, figure

MODEL = fdl.serial(line=fdl.dense(1))
SLOPE, INTERCEPT, NOISE, POINTS = 1.5, 0.5, 0.3, 60
EPSILON = 1.35  # Huber's: 95 % efficient if sigma is known and the noise Gaussian; scikit-learn's default
SHARES = np.asarray([0, 5, 10, 15, 20, 25, 30, 40, 50])  # percent
TESTED = 15  # the share at which lines are compared
LOOKS = {"MSE": (VERMILION, "-"), "MAE": (GREEN, "-."), "Huber": (BLUE, "-"), "pseudo-Huber": (PURPLE, ":")}
NAMES = tuple(LOOKS)


def run(settings: Settings) -> Iterator[Evidence]:
    sets = 400 if settings.full else 40
    x, y = data(settings.seed, sets)
    with jax.enable_x64(True):
        yield "gradients of the four losses"
        yield gradients_agree(x[0, 0], y[0, 0])
        yield f"{sets} data sets at each of {len(SHARES)} shares of outliers"
        found, sigmas = jax.device_get(jax.jit(jax.vmap(jax.vmap(fit)))(jnp.asarray(x), jnp.asarray(y)))
        lines = np.stack(found, axis=-2)  # [shares, sets, losses, 2]
        at = int(np.flatnonzero(SHARES == TESTED)[0])
        yield "independent solvers"
        peers, peer_sigmas = independent(x[at], y[at], sigmas[at])
        yield from comparisons(lines[at], sigmas[at], peers, peer_sigmas)
        yield "errors of the slope"
        errors = np.abs(lines[..., 0] - SLOPE)  # [shares, sets, losses]
        yield from consequences(np.median(errors, axis=1), settings.seed)
        yield lines_figure(x[at, 0], y[at, 0], lines[at, 0])
        yield shares_figure(errors)
        yield influence_figure(float(EPSILON * sigmas[at, 0]))
        yield Table(
            "The lines of the first data set",
            ("loss", "slope", "intercept", "error of the slope", "slope by another solver", "solver"),
            [
                (name, *map(float, ours), float(abs(ours[0] - SLOPE)), float(theirs[0]), solver)
                for name, ours, theirs, solver in zip(NAMES, lines[at, 0], peers[:, 0], SOLVERS, strict=True)
            ],
            f"True slope {SLOPE}, intercept {INTERCEPT}; {TESTED} % of {POINTS} points are about 6 too high.",
        )


def data(seed: int, sets: int, shares: np.ndarray = SHARES) -> tuple[np.ndarray, np.ndarray]:
    """x and y [shares, sets, points], x ascending; every share spoils the same clean sets."""
    random = np.random.default_rng(seed)
    x = np.sort(random.uniform(-2, 2, (sets, POINTS)))
    clean = INTERCEPT + SLOPE * x + NOISE * random.normal(size=x.shape)
    moved = 6 + random.normal(size=x.shape)
    wrong = np.arange(POINTS) < POINTS * shares[:, None, None] / 100
    return np.broadcast_to(x, (len(shares), *x.shape)), clean + wrong * moved


def losses(delta: Any) -> tuple[fdl.Op, ...]:
    """The four, in the order of NAMES."""
    huber, pseudo = fdl.losses.huber.bind(delta=delta), fdl.losses.pseudo_huber.bind(delta=delta)
    return fdl.losses.mean_squared_error, fdl.losses.mean_absolute_error, huber, pseudo


def gradients_agree(x: np.ndarray, y: np.ndarray) -> Evidence:
    u, target = jnp.asarray(x)[:, None], jnp.asarray(y)[:, None]
    params = {"line": {"w": jnp.full((1, 1), -0.4), "b": jnp.full(1, 0.9)}}
    differences = []
    for loss in losses(0.5):
        by_hand, by_jax = (
            jax.jit(fdl.backprop.value_and_grad(MODEL, loss, gradient=kind))(params, {}, u, target)[1]
            for kind in ("manual", "autodiff")
        )
        differences += jax.tree.leaves(jax.tree.map(relative_difference, by_hand, by_jax))
    return claim(
        "the hand-written gradients of the four losses are those of jax.grad",
        max(differences),
        "<",
        1e-13,
        quantity="largest relative difference",
        source="chain rule",
    )


# ---- the fits


def fit(x: Any, y: Any) -> tuple[list[Any], Any]:
    """(slope, intercept) by each loss, and Huber's sigma, for one data set.

    x is standardised first. The curvature of MSE / 2 is then 1 in each direction and that of the Hubers at most 1, so
    that gradient steps of rate 1 never overshoot (Huber 1981, section 7.8).
    """
    centre, scale = x.mean(), x.std()
    u, target = ((x - centre) / scale)[:, None], y[:, None]

    def cost(loss, line):
        """(value, gradient) at line = (w, b)."""
        params = {"line": {"w": line[:1, None], "b": line[1:]}}
        (value, _), grads = fdl.backprop.value_and_grad(MODEL, loss)(params, {}, u, target)
        return value, jnp.concatenate([grads["line"]["w"][0], grads["line"]["b"]])

    def descend(loss, line, rate, steps):
        return jax.lax.fori_loop(0, steps, lambda _, line: line - rate * cost(loss, line)[1], line)

    def in_turns(_, carry):
        line, delta = carry
        line = descend(fdl.losses.huber.bind(delta=delta), line, 1.0, 1)
        r = u[:, 0] * line[0] + line[1] - y
        return line, EPSILON * jnp.sqrt(jnp.mean(jnp.clip(r, -delta, delta) ** 2))

    huber, delta = jax.lax.fori_loop(0, 500, in_turns, (jnp.zeros(2), EPSILON * y.std()))
    squared, absolute, _, pseudo = losses(delta)
    found = (
        descend(squared, jnp.zeros(2), 0.5, 20),
        ellipsoid(lambda line: cost(absolute, line), jnp.zeros(2), 10 * jnp.abs(y).max(), 300).point,
        huber,
        descend(pseudo, huber, 1.0, 500),
    )
    return [jnp.stack([w / scale, b - w / scale * centre]) for w, b in found], delta / EPSILON


SOLVERS = ("numpy lstsq", "the best line through two points", "scikit-learn HuberRegressor", "scipy soft_l1")


def independent(x: np.ndarray, y: np.ndarray, sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same lines by SOLVERS [4, sets, 2], and scikit-learn's sigmas."""
    from scipy.optimize import least_squares
    from sklearn.linear_model import HuberRegressor

    lines, scales = [], []
    for u, v, sigma in zip(x, y, sigmas, strict=True):
        inputs = np.stack([u, np.ones_like(u)], axis=1)
        squared = np.linalg.lstsq(inputs, v)[0]
        peer = HuberRegressor(epsilon=EPSILON, alpha=0.0, max_iter=10_000, tol=1e-10, warm_start=True)
        peer.fit(inputs[:, :1], v)
        with contextlib.suppress(ValueError):  # "ABNORMAL": its line search finds nothing left to gain
            for _ in range(
                30
            ):  # its L-BFGS stops where the objective moves by less than 2e-9 of itself, too early here
                peer.fit(inputs[:, :1], v)
        residuals: Any = lambda line, inputs=inputs, v=v: inputs @ line - v
        slopes: Any = lambda line, inputs=inputs: inputs
        pseudo = least_squares(
            residuals,
            squared,
            jac=slopes,
            loss="soft_l1",
            f_scale=EPSILON * sigma,
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        lines.append((squared, through_two(u, v), (peer.coef_.item(), peer.intercept_), pseudo.x))
        scales.append(peer.scale_)
    return np.asarray(lines).swapaxes(0, 1), np.asarray(scales)


def through_two(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of all lines through two of the points, the one of the least sum of absolute residuals."""
    i, j = np.asarray(list(itertools.combinations(range(len(x)), 2))).T
    slopes = (y[j] - y[i]) / (x[j] - x[i])
    intercepts = y[i] - slopes * x[i]
    best = np.abs(slopes[:, None] * x + intercepts[:, None] - y).sum(1).argmin()
    return np.asarray([slopes[best], intercepts[best]])


# ---- claims


def comparisons(lines: Any, sigmas: Any, peers: np.ndarray, peer_sigmas: np.ndarray) -> Iterator[Evidence]:
    reasons = (
        "the same objective",
        "a linear program has a minimum at a vertex, which is a line through two points",
        "the same objective",
        "the same objective, f_scale = delta",
    )
    bounds = (1e-12, 1e-9, 1e-6, 1e-6)
    for k, (name, solver, reason, bound) in enumerate(zip(NAMES, SOLVERS, reasons, bounds, strict=True)):
        yield claim(
            f"{name}: the line is that of {solver}" if name != "MAE" else f"MAE: the line is {solver}",
            largest(relative_difference(a, b) for a, b in zip(lines[:, k], peers[k], strict=True)),
            "<",
            bound,
            quantity=f"largest relative difference of (slope, intercept) over {len(lines)} data sets",
            source=reason,
        )
    yield claim(
        "Huber: sigma is that of scikit-learn",
        (np.abs(sigmas - peer_sigmas) / peer_sigmas).max(),
        "<",
        1e-5,
        quantity="largest relative difference",
        source="sigma^2 = sum_inside r^2 / (N - epsilon^2 N_outside)",
        note=f"in the first data set {sigmas[0]:.4f}; the noise has {NOISE}",
    )


def consequences(medians: np.ndarray, seed: int) -> Iterator[Evidence]:
    """Of the errors [shares, losses] of the slope."""
    at, half_lost = (int(np.flatnonzero(share == SHARES)[0]) for share in (TESTED, 30))
    squared, _, huber, _ = medians[at]
    yield claim(
        f"with {TESTED} % outliers MSE misses the slope by far more than Huber",
        squared / huber,
        ">=",
        4.0,
        quantity="median error of MSE / of Huber",
        source="Huber 1964: the pull of a residual is at most delta",
        note=f"{squared:.3f} against {huber:.3f}; the true slope is {SLOPE}",
    )
    yield claim(
        "from 30 % on no loss is of use",
        medians[half_lost:].min(),
        ">",
        SLOPE / 2,
        quantity="smallest median error of the slope, of the four losses",
        source="Rousseeuw & Leroy 1987, chapter 1: an outlier far out in x has leverage whatever the loss",
        note=", ".join(f"{name} {m:.2f}" for name, m in zip(NAMES, medians[half_lost], strict=True)),
    )
    yield "the price of robustness"
    x, y = (jnp.asarray(a[0]) for a in data(seed + 1, 2000, np.zeros(1)))
    two = jax.device_get(jax.jit(jax.vmap(lambda x, y: fit(x, y)[0][::2]))(x, y))
    of_squared, of_huber = (((lines[:, 0] - SLOPE) ** 2).mean() ** 0.5 for lines in two)
    price, cutoff = price_of_huber()
    yield claim(
        "without outliers Huber errs a little more than MSE, as its theory says",
        of_huber / of_squared / price,
        "in",
        (0.97, 1.03),
        quantity="rms error of the slope by Huber / by MSE over 2,000 data sets, relative to the theory's",
        source="Huber 1964: the asymptotic variance is E[clip(z)^2] / P(|z| < cutoff)^2",
        note=f"{of_huber / of_squared:.3f}, theory {price:.3f}: sigma is that of clipped noise, which puts the cutoff at"
        f" {cutoff:.2f} instead of {EPSILON} standard deviations",
    )


def price_of_huber() -> tuple[float, float]:
    """With many points and Gaussian noise: Huber's rms error over that of MSE, and delta in standard deviations."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    clipped = lambda c: (1 - 2 * norm.sf(c)) - 2 * c * norm.pdf(c) + 2 * c**2 * norm.sf(c)  # E[clip(z, -c, c)^2]
    cutoff: Any = brentq(lambda c: clipped(c) - (c / EPSILON) ** 2, 0.1, 5)
    return float(np.sqrt(clipped(cutoff)) / (1 - 2 * norm.sf(cutoff))), float(cutoff)


# ---- figures


def lines_figure(x: np.ndarray, y: np.ndarray, lines: Any) -> Figure:
    wrong = np.arange(POINTS) < POINTS * TESTED / 100
    fig, axes = figure(height=4)
    ends = np.asarray([-2.1, 2.1])
    axes.plot(ends, INTERCEPT + SLOPE * ends, color=GREY, alpha=0.35, linewidth=7, label="truth")
    for (name, (colour, style)), (slope, intercept) in zip(LOOKS.items(), lines, strict=True):
        axes.plot(ends, intercept + slope * ends, color=colour, linestyle=style, label=name)
    axes.scatter(x[~wrong], y[~wrong], s=14, color=GREY, label="points")
    axes.scatter(x[wrong], y[wrong], s=36, color=ORANGE, marker="D", label="outliers")
    axes.set_ylim(-4, 9)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.set_title(f"{wrong.sum()} of {POINTS} points are wrong")
    axes.legend(ncols=2, loc="upper right")
    caption = (
        "One line per loss through the same points. The squared loss turns towards the outliers; to the others they are"
        " points on the wrong side, no matter how far, and the line stays near the truth (wide, grey)."
    )
    return Figure("lines", fig, caption)


def shares_figure(errors: np.ndarray) -> Figure:
    fig, axes = figure(height=4)
    low, middle, high = np.quantile(errors, (0.25, 0.5, 0.75), axis=1)
    for k, (name, (colour, style)) in enumerate(LOOKS.items()):
        axes.plot(SHARES, middle[:, k], color=colour, linestyle=style, marker="o", markersize=4, label=name)
        axes.fill_between(SHARES, low[:, k], high[:, k], color=colour, alpha=0.12, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("outliers, % of the points")
    axes.set_ylabel("error of the slope")
    axes.set_title("How much each loss can take")
    axes.legend(loc="lower right")
    caption = (
        f"Error of the slope (true: {SLOPE}) against the share of outliers: median and middle half over"
        f" {errors.shape[1]} data sets. The squared loss is off from the first outliers on; the others give way as the"
        " share grows, the absolute loss last. From 30 % on the outliers, all at one end, have the line to themselves."
    )
    return Figure("shares", fig, caption)


def influence_figure(delta: float) -> Figure:
    """fdl's values and gradients, scaled so that all begin alike: MSE / 2, and delta times MAE."""
    r = np.linspace(-3, 3, 1201)
    pred, target = jnp.asarray(r)[:, None], jnp.zeros((len(r), 1))
    fig, (left, right) = figure(1, 2, width=WIDE, height=3.8)
    labels = ("MSE / 2", "delta MAE", "Huber", "pseudo-Huber")
    for loss, factor, label, (colour, style) in zip(
        losses(delta), (0.5, delta, 1, 1), labels, LOOKS.values(), strict=True
    ):
        values, residuals = loss.forward(pred, target)
        slopes = loss.backward(residuals, jnp.ones_like(values))[0]
        left.plot(r, factor * np.asarray(values), color=colour, linestyle=style, label=label)
        right.plot(r, factor * np.asarray(slopes)[:, 0], color=colour, linestyle=style, label=label)
    left.set_ylim(0, 2)
    right.set_ylim(-1.6, 1.6)
    left.set_title("The loss of a residual")
    right.set_title("How hard it pulls: the derivative")
    for axes in (left, right):
        for edge in (-delta, delta):
            axes.axvline(edge, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_xlabel("residual")
    right.legend(loc="upper left")
    caption = (
        f"Loss and pull of a point against how far it is off; delta = {delta:.2f} (dotted) is {EPSILON} times the estimated"
        " noise. Under the squared loss a point pulls the harder the more absurd it is. Huber's pull stops growing at"
        " delta, pseudo-Huber's bends towards it, and the absolute loss knows only the side."
    )
    return Figure("influence", fig, caption, wide=True)
