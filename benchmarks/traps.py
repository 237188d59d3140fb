"""Losses at the inputs where formulas break, value and gradient: fdl against optax, Keras and PyTorch.

Claim: at every input below fdl gives the right value and the right gradient; none of the peers does.

    python -m benchmarks traps

Method: one row is one input of one example, at most a few numbers, in float32 unless it says another type. The right
value and the right gradient by the prediction were derived by hand; `why` is the reason. No library supplies them. They
are the limits of the formula from inside its domain; outside it, and for labels that do not exist, right is what cannot
be overlooked: NaN in value and gradient, or an exception. Where several answers can be defended (a subgradient, what a
mean over nothing is) the row says which was chosen, and another finite answer of a peer is "another choice", not wrong.
A number is right within 1e-5 of itself, and within 1e-6 where 0 is right. Every library runs in a process of its own,
as its user would call it: Keras's functions on its JAX backend, sums where a library returns one value per entry.

Result: all answers, value; gradient, with what is wrong in bold; (choice): another answer that can be defended; -: no such
loss. The exit code is 1 if fdl is wrong anywhere, or a library that is here cannot be run.
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks._harness import Row, Settings, Trial, missing, result_of

INF, NAN = math.inf, math.nan
LOUD = "loud"  # NaN in value and gradient, or an exception
LOG2 = math.log(2)


class Trap(NamedTuple):
    """One input of a loss. `value` and `gradient` are right (LOUD for both: `value` alone); `choice` names those of the
    two where another finite answer can be defended."""

    name: str
    pred: Any
    target: Any
    value: float | str
    gradient: Any = None
    why: str = ""
    choice: tuple[str, ...] = ()
    dtype: str = "float32"
    loss: str = ""


E = math.exp(-1)
MASKED = ([2.0, -INF, 1.0], [-E / (1 + E), 0.0, E / (1 + E)])  # logits, softmax minus the one-hot label 0
SURE = math.exp(-20)  # and its logarithm of one more, and its sigmoid, to 9 digits

_BY_LOSS = {
    "cross-entropy, integer label": (
        Trap(
            "a masked class: a logit -inf", MASKED[0], 0, math.log1p(E), MASKED[1], "exp(-inf) = 0 leaves the class out"
        ),
        Trap("a logit inf at the label", [0.0, INF, 1.0], 1, 0.0, [0.0, 0.0, 0.0], "p tends to one-hot"),
        Trap("a logit inf elsewhere", [INF, 0.0, 1.0], 1, INF, [1.0, -1.0, 0.0], "p - y with p one-hot"),
        Trap(
            "three logits of 1e8",
            [1e8, 1e8, 1e8],
            1,
            math.log(3),
            [1 / 3, -2 / 3, 1 / 3],
            "softmax does not see the shift",
        ),
        Trap("right, and almost sure", [20.0, 0.0], 0, SURE, [-SURE, SURE], "log(1 + exp(-20)), p - y"),
        Trap("label -1", [1.0, 2.0, 3.0], -1, LOUD, why="there is no such class"),
        Trap("label 3 of 3", [1.0, 2.0, 3.0], 3, LOUD, why="there is no such class"),
    ),
    "cross-entropy, distribution": (
        Trap("right, and almost sure", [20.0, 0.0], [1.0, 0.0], SURE, [-SURE, SURE], "log(1 + exp(-20)), p - y"),
        Trap(
            "a masked class: a logit -inf, its target 0",
            MASKED[0],
            [1.0, 0.0, 0.0],
            math.log1p(E),
            MASKED[1],
            "t log p with t = 0 is 0 (optax has `safe_softmax_cross_entropy` for it)",
        ),
    ),
    "mean of cross-entropies with ignored labels": (
        Trap(
            "every label ignored",
            [[1.0, 2.0, 3.0]],
            [-1],
            0.0,
            [0.0, 0.0, 0.0],
            "nothing counts: a batch of padding must not harm (choice)",
            ("value",),
        ),
    ),
    "cross-entropy of probabilities": (
        Trap("right, and almost sure", [1.0, 1e-9], [1.0, 0.0], 1e-9, [-1e-9, 1.0], "log(sum p/p), 1/sum p - t/p"),
        Trap(
            "p = 1e-12 at the label",
            [1e-12, 1.0],
            [1.0, 0.0],
            12 * math.log(10),
            [-1e12, 1.0],
            "-log p, and 1/sum p - t/p: nothing is clipped",
        ),
        Trap("p = 0 at the label", [0.0, 1.0], [1.0, 0.0], INF, [-INF, 1.0], "what happened was impossible"),
    ),
    "binary cross-entropy of logits": (
        Trap("z = inf, t = 1", INF, 1.0, 0.0, 0.0, "softplus(-z) tends to 0"),
        Trap("z = -inf, t = 1", -INF, 1.0, INF, -1.0, "sigmoid(z) - t tends to -1"),
    ),
    "binary cross-entropy of probabilities": (
        Trap("p = 0, t = 0", 0.0, 0.0, 0.0, 1.0, "the slope of -log(1 - p)"),
        Trap("p = 1, t = 1", 1.0, 1.0, 0.0, -1.0, "the slope of -log p"),
        Trap(
            "p = 1e-12, t = 1",
            1e-12,
            1.0,
            12 * math.log(10),
            -1e12,
            "-log p, -1/p: confidently wrong is where the gradient counts",
        ),
        Trap("p = 0, t = 1", 0.0, 1.0, INF, -INF, "-log p, -1/p"),
        Trap("p = 1.5", 1.5, 1.0, LOUD, why="no probability"),
    ),
    "binary focal of logits, gamma 1/2": (
        Trap("z = 1000, t = 1, gamma = 1/2", 1000.0, 1.0, 0.0, 0.0, "sigmoid(-z)^gamma and all else tend to 0"),
    ),
    "binary focal of logits, gamma 2": (
        Trap("z = -1000, t = 1, gamma = 2", -1000.0, 1.0, 1000.0, -1.0, "the weight is 1: binary cross-entropy"),
    ),
    "binary focal of probabilities, gamma 1/2": (
        Trap("p = 1, t = 1, gamma = 1/2", 1.0, 1.0, 0.0, 0.0, "(1 - p)^1/2 (1 - p) and its slope tend to 0"),
    ),
    "generalized cross-entropy, q = 1/2": (
        Trap("p[0] = 0", [0.0, 1.0], 0, 2.0, [-INF, 0.0], "(1 - p^q)/q, -p^(q - 1); the other class is not in it"),
    ),
    "KL divergence": (
        Trap(
            "p = t = 0 in one cell",
            [0.0, 0.5, 0.5],
            [0.0, 0.5, 0.5],
            0.0,
            [0.0, -1.0, -1.0],
            "t log(t/p) and t/p are 0 for t = 0 at all p > 0",
        ),
        Trap("p = 0 < t", [0.0, 1.0], [0.5, 0.5], INF, [-INF, -0.5], "what happened was impossible: t log(t/p)"),
    ),
    "Poisson": (Trap("p = 0, t = 1", 0.0, 1.0, INF, -INF, "p - t log p, 1 - t/p"),),
    "log-cosh": (
        Trap("x = 1e-4", 1e-4, 0.0, 5e-9, 1e-4, "x^2/2 - x^4/12, tanh x"),
        Trap("x = -inf", -INF, 0.0, INF, -1.0, "abs(x) - log 2, tanh x"),
    ),
    "Huber": (Trap("x = inf", INF, 0.0, INF, 1.0, "delta (abs(x) - delta/2), delta sign(x)"),),
    "mean absolute error": (
        Trap(
            "x = 0",
            1.0,
            1.0,
            0.0,
            0.0,
            "the minimum: 0 is a subgradient and does not push away from it (choice)",
            ("gradient",),
        ),
    ),
    "mean absolute percentage error": (
        Trap("p = t = 0", 0.0, 0.0, 0.0, 0.0, "no error is no error; 0 is a subgradient (choice)", ("gradient",)),
    ),
    "mean squared logarithmic error": (
        Trap("p = 0, t = 1", 0.0, 1.0, LOG2**2, -2 * LOG2, "2 (log(1 + p) - log(1 + t))/(1 + p): alive at 0"),
        Trap("p = -1/2, t = 0", -0.5, 0.0, LOG2**2, -4 * LOG2, "the same: log(1 + p) goes on to -1"),
    ),
    "hinge": (Trap("y p = 1", 1.0, 1.0, 0.0, 0.0, "right by the margin: 0 is a subgradient (choice)", ("gradient",)),),
    "categorical hinge": (
        Trap(
            "a masked class: -inf, its target 0",
            [0.5, -INF, 0.25],
            [1.0, 0.0, 0.0],
            0.75,
            [-1.0, 0.0, 1.0],
            "1 + 0.25 - 0.5; what is smallest is not the largest",
        ),
    ),
    "cosine similarity, negated": (
        Trap(
            "a zero vector",
            [0.0, 0.0],
            [4.0, 3.0],
            0.0,
            [0.0, 0.0],
            "no direction: orthogonal to all, pulled nowhere (choice)",
            ("value", "gradient"),
        ),
        Trap(
            "a vector times 1e25",
            [3e25, 4e25],
            [4.0, 3.0],
            -0.96,
            [-4.48e-27, 3.36e-27],
            "cos does not see the scale; -(v - cos u)/abs(p)",
        ),
        Trap("a vector times 1e-25", [3e-25, 4e-25], [4.0, 3.0], -0.96, [-4.48e23, 3.36e23], "the same"),
    ),
    "triplet hinge": (
        Trap(
            "distances of 1e25",
            [3e25, 4e25],
            [[0.0, 0.0], [3e25, 3e25]],
            4e25,
            [0.6, -0.2],
            "abs(a - p) - abs(a - n) = 5e25 - 1e25; the difference of two unit vectors",
        ),
    ),
    "mean squared error": (
        Trap(
            "300 against 0 in float16",
            300.0,
            0.0,
            9e4,
            600.0,
            "a loss of 9e4 fits in float32, the gradient in float16",
            dtype="float16",
        ),
    ),
    "mean of weighted squared errors": (
        Trap("NaN at weight 0", [1.0, 2.0], [0.0, NAN], 0.5, [1.0, 0.0], "the second example does not count"),
    ),
    "CTC": (
        Trap(
            '"aa" in two frames',
            [[0.0, 1.0], [0.0, 1.0]],
            [1, 1],
            INF,
            [0.0] * 4,
            "no alignment (a blank must part the two); nothing can be learnt from it (choice)",
            ("gradient",),
        ),
    ),
}
TRAPS = tuple(trap._replace(loss=loss) for loss, traps in _BY_LOSS.items() for trap in traps)

# ---- the libraries: what each of them calls the losses, as functions of one example. None imported before its process runs


def fdl() -> Mapping[str, Callable[..., Any]]:
    from fdl import losses as L

    weights = np.asarray([1.0, 0.0], np.float32)
    ignoring = L.sparse_categorical_crossentropy.bind(from_logits=True, ignore_class=-1)
    return _jax(
        {
            "cross-entropy, integer label": L.softmax_cross_entropy_with_integer_labels,
            "cross-entropy, distribution": L.softmax_cross_entropy,
            "mean of cross-entropies with ignored labels": lambda p, t: L.mean(ignoring(p, t), weights=t != -1),
            "cross-entropy of probabilities": L.categorical_crossentropy,
            "binary cross-entropy of logits": L.sigmoid_binary_cross_entropy,
            "binary cross-entropy of probabilities": L.binary_crossentropy,
            "binary focal of logits, gamma 1/2": L.binary_focal_crossentropy.bind(from_logits=True, gamma=0.5),
            "binary focal of logits, gamma 2": L.binary_focal_crossentropy.bind(from_logits=True, gamma=2.0),
            "binary focal of probabilities, gamma 1/2": L.binary_focal_crossentropy.bind(gamma=0.5),
            "generalized cross-entropy, q = 1/2": L.categorical_generalized_cross_entropy.bind(q=0.5),
            "KL divergence": L.kl_divergence,
            "Poisson": L.poisson,
            "log-cosh": L.log_cosh,
            "Huber": L.huber,
            "mean absolute error": L.mean_absolute_error,
            "mean absolute percentage error": L.mean_absolute_percentage_error,
            "mean squared logarithmic error": L.mean_squared_logarithmic_error,
            "hinge": L.hinge,
            "categorical hinge": L.categorical_hinge,
            "cosine similarity, negated": L.cosine_similarity,
            "triplet hinge": lambda p, t: L.triplet_hinge(p, t[0], t[1]),
            "mean squared error": L.mean_squared_error,
            "mean of weighted squared errors": lambda p, t: L.weighted_mean(
                L.mean_squared_error(p[:, None], t[:, None]), weights=weights
            ),
            "CTC": lambda p, t: L.ctc(p[None], t[None]),
        }
    )


def optax() -> Mapping[str, Callable[..., Any]]:
    import jax.numpy as jnp
    import optax as o

    none = np.zeros((1, 2), np.float32)
    return _jax(
        {
            "cross-entropy, integer label": o.softmax_cross_entropy_with_integer_labels,
            "cross-entropy, distribution": o.softmax_cross_entropy,
            "binary cross-entropy of logits": o.sigmoid_binary_cross_entropy,
            "binary focal of logits, gamma 1/2": lambda p, t: o.sigmoid_focal_loss(p, t, gamma=0.5),
            "binary focal of logits, gamma 2": lambda p, t: o.sigmoid_focal_loss(p, t, gamma=2.0),
            "KL divergence": lambda p, t: o.kl_divergence(jnp.log(p), t),
            "log-cosh": o.log_cosh,
            "Huber": o.huber_loss,
            "hinge": o.hinge_loss,
            "cosine similarity, negated": lambda p, t: -o.cosine_similarity(p, t),
            "triplet hinge": lambda p, t: o.losses.triplet_margin_loss(p, t[0], t[1]),
            "mean squared error": o.squared_error,
            "CTC": lambda p, t: o.ctc_loss(p[None], none, t[None], none),
        }
    )


def keras() -> Mapping[str, Callable[..., Any]]:
    os.environ["KERAS_BACKEND"] = "jax"
    from keras import losses as k

    weights = np.asarray([1.0, 0.0], np.float32)
    ignoring = k.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    weighted = k.MeanSquaredError()
    return _jax(
        {
            "cross-entropy, integer label": lambda p, t: k.sparse_categorical_crossentropy(t, p, from_logits=True),
            "cross-entropy, distribution": lambda p, t: k.categorical_crossentropy(t, p, from_logits=True),
            "mean of cross-entropies with ignored labels": lambda p, t: ignoring(t, p),
            "cross-entropy of probabilities": lambda p, t: k.categorical_crossentropy(t, p),
            "binary cross-entropy of logits": lambda p, t: k.binary_crossentropy(t, p, from_logits=True),
            "binary cross-entropy of probabilities": lambda p, t: k.binary_crossentropy(t, p),
            "binary focal of logits, gamma 1/2": lambda p, t: k.binary_focal_crossentropy(
                t, p, from_logits=True, gamma=0.5
            ),
            "binary focal of logits, gamma 2": lambda p, t: k.binary_focal_crossentropy(
                t, p, from_logits=True, gamma=2.0
            ),
            "binary focal of probabilities, gamma 1/2": lambda p, t: k.binary_focal_crossentropy(t, p, gamma=0.5),
            "generalized cross-entropy, q = 1/2": lambda p, t: k.categorical_generalized_cross_entropy(
                t[None], p[None], q=0.5
            ),
            "KL divergence": lambda p, t: k.kl_divergence(t, p),
            "Poisson": lambda p, t: k.poisson(t, p),
            "log-cosh": lambda p, t: k.log_cosh(t, p),
            "Huber": lambda p, t: k.huber(t, p),
            "mean absolute error": lambda p, t: k.mean_absolute_error(t, p),
            "mean absolute percentage error": lambda p, t: k.mean_absolute_percentage_error(t, p),
            "mean squared logarithmic error": lambda p, t: k.mean_squared_logarithmic_error(t, p),
            "hinge": lambda p, t: k.hinge(t, p),
            "categorical hinge": lambda p, t: k.categorical_hinge(t, p),
            "cosine similarity, negated": lambda p, t: k.cosine_similarity(t, p),
            "mean squared error": lambda p, t: k.mean_squared_error(t, p),
            "mean of weighted squared errors": lambda p, t: weighted(t[:, None], p[:, None], sample_weight=weights),
            "CTC": lambda p, t: k.ctc(t[None], p[None]),
        }
    )


def torch() -> Mapping[str, Callable[..., Any]]:
    import torch
    from torch.nn import functional as F

    weights = torch.tensor([1.0, 0.0])

    def ctc(p, t):
        log_p = F.log_softmax(p, -1)[:, None]
        return F.ctc_loss(log_p, t[None], (p.shape[0],), (t.shape[0],), reduction="none")

    def gradient(function):
        def both(pred, target):
            p, t = torch.tensor(pred, requires_grad=True), torch.tensor(target)
            value = function(p, t.long() if np.issubdtype(target.dtype, np.integer) else t).sum()
            return float(value.detach()), torch.autograd.grad(value, p)[0].double().numpy()

        return both

    calls = {
        "cross-entropy, integer label": lambda p, t: F.cross_entropy(p, t, reduction="none", ignore_index=-100),
        "cross-entropy, distribution": lambda p, t: F.cross_entropy(p, t, reduction="none"),
        "mean of cross-entropies with ignored labels": lambda p, t: F.cross_entropy(p, t, ignore_index=-1),
        "binary cross-entropy of logits": lambda p, t: F.binary_cross_entropy_with_logits(p, t, reduction="none"),
        "binary cross-entropy of probabilities": lambda p, t: F.binary_cross_entropy(p, t, reduction="none"),
        "KL divergence": lambda p, t: F.kl_div(p.log(), t, reduction="none"),
        "Poisson": lambda p, t: F.poisson_nll_loss(p, t, log_input=False, reduction="none"),
        "Huber": lambda p, t: F.huber_loss(p, t, reduction="none"),
        "mean absolute error": lambda p, t: F.l1_loss(p, t, reduction="none"),
        "cosine similarity, negated": lambda p, t: -F.cosine_similarity(p, t, dim=-1),
        "triplet hinge": lambda p, t: F.triplet_margin_loss(p[None], t[:1], t[1:]),
        "mean squared error": lambda p, t: F.mse_loss(p, t, reduction="none"),
        "mean of weighted squared errors": lambda p, t: (weights * F.mse_loss(p, t, reduction="none")).mean(),
        "CTC": ctc,
    }
    return {name: gradient(function) for name, function in calls.items()}


def _jax(calls: Mapping[str, Callable[..., Any]]) -> Mapping[str, Callable[..., Any]]:
    import jax
    import jax.numpy as jnp

    def gradient(function):
        def both(pred, target):
            p, t = jnp.asarray(pred), jnp.asarray(target)
            value, dpred = jax.value_and_grad(lambda p: jnp.sum(function(p, t).astype(jnp.float32)))(p)
            return float(value), np.asarray(dpred, np.float64)

        return both

    return {name: gradient(function) for name, function in calls.items()}


LIBRARIES = {
    "fdl": (fdl, ()),
    "optax": (optax, ("optax",)),
    "Keras": (keras, ("keras",)),
    "PyTorch": (torch, ("torch",)),
}

# ---- asking and judging


class Answer(NamedTuple):
    """`value` is None where the library has no such loss, and NaN where it refused with `error`."""

    value: float | None
    gradient: tuple[float, ...] = ()
    error: str = ""


def arrays(trap: Trap) -> tuple[np.ndarray, np.ndarray]:
    """(pred, target) of the row, with an axis for the entries of a single number."""
    pred, target = np.asarray(trap.pred, trap.dtype), np.asarray(trap.target)
    target = target.astype("int32" if np.issubdtype(target.dtype, np.integer) else trap.dtype)
    return (pred[None], target[None]) if pred.ndim == 0 else (pred, target)


def ask(calls: Mapping[str, Callable[..., Any]], trap: Trap) -> Answer:
    if trap.loss not in calls:
        return Answer(None)
    try:
        value, gradient = calls[trap.loss](*arrays(trap))
    except Exception as error:  # whatever a library raises at a bad input is its answer
        return Answer(NAN, (), f"{type(error).__name__}: {error}")
    return Answer(value, tuple(np.ravel(gradient).tolist()))


def answers(library: str) -> Trial:
    """All answers of one library; runs in its process."""
    calls = LIBRARIES[library][0]()
    return Trial([tuple(ask(calls, trap)) for trap in TRAPS])


def same(got: Sequence[float], want: Sequence[float]) -> bool:
    got_, want_ = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got_.shape != want_.shape:
        return False
    largest = np.abs(want_[np.isfinite(want_)]).max(initial=0.0)
    zero = 1e-6 * (largest if largest > 0 else 1.0)
    return bool(np.isclose(got_, want_, rtol=1e-5, atol=np.where(want_ == 0, zero, 0.0)).all())


def judge(trap: Trap, answer: Answer) -> tuple[str, str]:
    """The marks of value and gradient: "ok", "another choice", "WRONG", or "-" where the library has no such loss."""
    if answer.value is None:
        return "-", "-"
    if isinstance(trap.value, str):
        loud = answer.error, math.isnan(answer.value), any(map(math.isnan, answer.gradient))
        return ("ok", "ok") if loud[0] else ("ok" if loud[1] else "WRONG", "ok" if loud[2] else "WRONG")
    if answer.error:
        return "WRONG", "WRONG"
    other = {part: "another choice" if part in trap.choice else "WRONG" for part in ("value", "gradient")}
    value = "ok" if same([answer.value], [trap.value]) else other["value"] if math.isfinite(answer.value) else "WRONG"
    finite = all(map(math.isfinite, answer.gradient))
    gradient = "ok" if same(answer.gradient, _wanted(trap)) else other["gradient"] if finite else "WRONG"
    return value, gradient


def _wanted(trap: Trap) -> list[float]:
    return np.ravel(np.asarray(trap.gradient, np.float64)).tolist()


def run(settings: Settings) -> list[Row]:
    """One row for each trap and library. fdl's status "unequal" is the failure; a peer's "wrong" is a finding."""
    return rows_of(_collect())


def _collect() -> dict[str, list[Answer] | str]:
    """The answers of every library, or why there are none."""
    collected: dict[str, list[Answer] | str] = {}
    for library, (_, requires) in LIBRARIES.items():
        if absent := missing(requires):
            collected[library] = f"no {', '.join(absent)}: pip install 'fdl[bench]'"
            continue
        try:
            collected[library] = [Answer(*answer) for answer in result_of(answers, {"library": library})]
        except RuntimeError as error:
            collected[library] = f"failed: {error}"
    return collected


def rows_of(collected: Mapping[str, list[Answer] | str]) -> list[Row]:
    rows = []
    for i, trap in enumerate(TRAPS):
        for library, given in collected.items():
            row = Row(f"{trap.loss}: {trap.name}", "example", library, library, "failed")
            rows.append(row)
            if isinstance(given, str):
                row.status = "failed" if given.startswith("failed") else "not installed"
                row.note = given
                continue
            marks = judge(trap, given[i])
            row.status = "wrong" if "WRONG" in marks else marks[0] if marks[0] == marks[1] else "another choice"
            if library == "fdl":
                row.note, row.reached = trap.why, row.status == "ok"
                row.status, row.wanted = "ok" if row.reached else "unequal", wanted(trap)
            row.measured = cell(trap, given[i])
    return rows


# ---- writing


def number(x: float, digits: int = 3) -> str:
    return "NaN" if math.isnan(x) else f"{x + 0.0:.{digits}g}"


def numbers(x: Sequence[float], digits: int = 3) -> str:
    texts = [number(y, digits) for y in x]
    return texts[0] if len(texts) == 1 else f"all {texts[0]}" if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def wanted(trap: Trap) -> str:
    return "NaN; NaN, or refused" if isinstance(trap.value, str) else f"{number(trap.value)}; {numbers(_wanted(trap))}"


def cell(trap: Trap, answer: Answer) -> str:
    """ok; or value and gradient, with what is wrong in bold."""
    marks = judge(trap, answer)
    if answer.value is None:
        return "-"
    if answer.error:
        error = answer.error.partition(":")[0]
        return f"ok ({error})" if marks == ("ok", "ok") else f"**{error}**"
    if marks == ("ok", "ok"):
        return "ok"
    right = wanted(trap).split("; ")
    pieces = []
    for got, mark, want in zip(([answer.value], answer.gradient), marks, right, strict=True):
        text = numbers(got, 6 if mark == "WRONG" and numbers(got) == want else 3)
        pieces.append(f"**{text}**" if mark == "WRONG" else f"{text} (choice)" if mark != "ok" else text)
    return "; ".join(pieces)
