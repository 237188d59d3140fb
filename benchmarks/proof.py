"""Losses against the textbook in 50 digits: the largest error of value, slopes and curvature, entry by entry.

Claim: on 10,000 random numbers per loss, the value, its slope by the prediction, its slope by the target and its second
derivative by the prediction are within 512 eps of the true numbers in float64. In float32 value and slopes are within 8
eps, or 32 where an example has several entries; with bfloat16 and float16 inputs the value, in float32, is within the same
and a slope within one unit of the correctly rounded one.

    python -m benchmarks proof [--full]
    python -m benchmarks.proof [--full | --layers]

Method: each loss is written once more below, as the textbook has it, over numbers that carry their derivatives (`Jet`) in
decimal arithmetic of 50 digits. Such a formula may lose 30 of them to cancellation, and float64 does not see it. It shares
nothing with fdl, neither a stable form nor JAX's rules. The equation in float64 could not serve: --full shows its own
errors, which for log-cosh, say, are 1e14 eps.

Half of the numbers have the digits of float64; the others fit in float32, a tenth of all in bfloat16 and a tenth in
float16, and every type gets those that fit. Half of the predictions are close to their target, where formulas cancel. A
loss of one number per example gets 10,000 examples, a loss of several 2,500 of four; derivatives are by the first of them.
Cotangents are random signed powers of two, which scale without rounding. Losses are compiled, as they are used.

An error is counted in eps of the entry itself. Where that breaks the bound, the entry may be the difference of numbers
that are almost equal, and no program can know it better than its inputs are known: it is then counted in eps of the
change that one eps of every input makes of the entry, if that is more. For lengths, directions and matrix products the
inputs, and the entries, of an array have one unit, that of the largest. A loss that loses digits which its inputs
determine has no such excuse.

Result: a table of the largest errors, about a minute and a half on 2 cores. The exit code is 1 if a bound is broken. --full is four
times as many numbers; and 200 random configurations of every op of convolution, pooling and normalization, whose value, first and
second derivative are within 512 eps of autodiff of the equation (see _layer_proof.py; these alone with --layers); and 200 random
convolutions, every formulation of y, dx and dw within 1e-10 of it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np

from benchmarks._harness import Row, Settings, Trial, judged, result_of

DIGITS = 50
SCALARS = 10_000
WIDTH = 4

# The largest error in eps: of float64; of float32 and the float32 values of 16-bit inputs; of 16-bit slopes: half a unit
# from rounding, and one more
BOUND, BOUND32, BOUND16 = 512.0, 8.0, 1.5
BOUND32_OF_SEVERAL = 32.0  # four entries are added up, divided and multiplied again


class Limit(NamedTuple):
    eps: float
    least: float  # the step between the smallest numbers of the type, or the smallest itself where these are flushed
    bound: float


class Jet:
    """A number with its derivatives: by the prediction, twice by it, and by the target."""

    __slots__ = ("v", "p", "pp", "t")

    def __init__(self, v, p=Decimal(0), pp=Decimal(0), t=Decimal(0)):
        self.v, self.p, self.pp, self.t = v, p, pp, t

    def chain(self, f, slope, curvature):
        return Jet(f, slope * self.p, curvature * self.p * self.p + slope * self.pp, slope * self.t)

    def __add__(self, other):
        o = jet(other)
        return Jet(self.v + o.v, self.p + o.p, self.pp + o.pp, self.t + o.t)

    def __neg__(self):
        return Jet(-self.v, -self.p, -self.pp, -self.t)

    def __mul__(self, other):
        o = jet(other)
        twice = self.pp * o.v + 2 * self.p * o.p + self.v * o.pp
        return Jet(self.v * o.v, self.p * o.v + self.v * o.p, twice, self.t * o.v + self.v * o.t)

    def __sub__(self, other):
        return self + -jet(other)

    def __rsub__(self, other):
        return jet(other) + -self

    def __truediv__(self, other):
        o = jet(other)
        return self * o.chain(1 / o.v, -1 / (o.v * o.v), 2 / (o.v * o.v * o.v))

    def __rtruediv__(self, other):
        return jet(other) / self

    def __pow__(self, power: int):
        return self * self if power == 2 else exp(log(self) * Decimal(power))

    def __abs__(self):
        return self if self.v > 0 else -self if self.v < 0 else Jet(abs(self.v))

    __radd__, __rmul__ = __add__, __mul__


def jet(x) -> Jet:
    return x if isinstance(x, Jet) else Jet(Decimal(x))


def exp(x: Jet) -> Jet:
    y = x.v.exp()
    return x.chain(y, y, y)


def log(x: Jet) -> Jet:
    slope = 1 / x.v
    return x.chain(x.v.ln(), slope, -slope * slope)


def root(x: Jet) -> Jet:
    y = x.v.sqrt()
    return x.chain(y, 1 / (2 * y), -1 / (4 * y * x.v)) if y else Jet(y)


def positive(x: Jet) -> Jet:
    """max(x, 0)."""
    return x if x.v > 0 else Jet(Decimal(0))


def largest(x: Sequence[Jet]) -> Jet:
    return max(x, key=lambda y: y.v)


# ---- what the numbers are drawn from: (random, shape) -> (pred, target, ...), float64 or integers


def magnitude(random, low, high, shape):
    return np.exp(random.uniform(np.log(low), np.log(high), shape))


def sign(random, shape):
    return random.choice([-1.0, 1.0], shape)


def _near(random, pred, target):
    """Half of the predictions close to their target: 0.01 to 10 %."""
    close = target * (1 + sign(random, target.shape) * magnitude(random, 1e-4, 0.1, target.shape))
    return np.where(random.random((target.shape[0], 1)) < 0.5, close, pred)


def reals(low=1e-3, high=1e3):
    def draw(random, shape):
        pred, target = (sign(random, shape) * magnitude(random, low, high, shape) for _ in range(2))
        return _near(random, pred, target), target

    return draw


def positives(random, shape):
    pred, target = (magnitude(random, 1e-2, 1e2, shape) for _ in range(2))
    return _near(random, pred, target), target


def signed_labels(random, shape):
    return sign(random, shape) * magnitude(random, 1e-3, 1e2, shape), sign(random, shape)


def _chance(random, shape):
    p = magnitude(random, 1e-3, 0.5, shape)
    return np.where(random.random(shape) < 0.5, p, 1 - p)


def chances(random, shape):
    target = np.where(random.random(shape) < 0.5, _chance(random, shape), random.integers(0, 2, shape))
    return _chance(random, shape), target


def logits(random, shape):
    return sign(random, shape) * magnitude(random, 1e-3, 20.0, shape), chances(random, shape)[1]


def masses(random, shape):
    return magnitude(random, 1e-3, 1.0, shape), magnitude(random, 1e-3, 1.0, shape)


def scores(random, shape):
    """Logits of classes, and masses of them."""
    return sign(random, shape) * magnitude(random, 1e-3, 20.0, shape), magnitude(random, 1e-3, 1.0, shape)


def classes(draw):
    """The first entry or another one is the label."""
    return lambda random, shape: (draw(random, shape)[0], random.integers(0, 2, shape[0]))


def vectors(more=None):
    """Of one length in all directions: (pred, target), half of them close, and a third vector or a label 0 or 1."""

    def draw(random, shape):
        length = magnitude(random, 1e-2, 1e2, (shape[0], 1))
        pred, target, third = (length * random.standard_normal(shape) for _ in range(3))
        pair = _near(random, pred, target), target
        return {None: pair, "vector": (*pair, third), "label": (*pair, random.integers(0, 2, shape[0]))}[more]

    return draw


# ---- the losses


def sigmoid(z):
    return 1 / (1 + exp(-z))


def entropy(p, t):
    return -(t * log(p)) - (1 - t) * log(1 - p)


def pinball(x, q):
    return x * (1 - q) if x.v > 0 else x * -q if x.v < 0 else Jet(x.v)


def huber(x, delta):
    return x**2 / 2 if abs(x.v) <= delta else (abs(x) - delta / 2) * delta


def modified_huber(z):
    return positive(1 - z) ** 2 if z.v >= -1 else -4 * z


def total(x: Sequence[Jet]) -> Jet:
    return sum(x, Jet(Decimal(0)))


def dot(x: Sequence[Jet], y: Sequence[Jet]) -> Jet:
    return total([a * b for a, b in zip(x, y, strict=True)])


def softmax(z):
    e = [exp(x) for x in z]
    s = total(e)
    return [x / s for x in e]


def shares(p):
    s = total(p)
    return [x / s for x in p]


def surprise(t, q):
    return -dot(t, [log(x) for x in q])


def focal(t, q):
    return -total([b * Decimal("0.25") * (1 - a) ** 2 * log(a) for a, b in zip(q, t, strict=True)])


def distance(x, y):
    return root(total([(a - b) ** 2 for a, b in zip(x, y, strict=True)]))


def contrastive(p, t, similar):
    x = [a - b for a, b in zip(p, t, strict=True)]
    return (dot(x, x) if similar else positive(1 - root(dot(x, x))) ** 2) / 2


def tversky(p, t, alpha, beta):
    hit = dot(p, t)
    wrong, missed = dot(p, [1 - x for x in t]), dot(t, [1 - x for x in p])
    return 1 - hit / (hit + wrong * alpha + missed * beta)


class Case(NamedTuple):
    """A loss, its formula over Jets (over lists of them where `width` is above 1), what it is given, and its options."""

    loss: str
    formula: Callable[..., Any]
    draw: Callable[..., tuple[np.ndarray, ...]]
    options: Mapping[str, Any] = {}
    width: int = 1
    norm: bool = False  # a length, a direction or a matrix product: its entries have one unit, that of the largest
    one: Callable[..., Any] | None = None  # (loss, arguments of one example) -> a number; for losses of more than one

    @property
    def name(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.loss}({given})" if given else self.loss


def amended(q, p):
    """Two classifiers of two classes, lambda 0.5: both costs together."""
    entropies = lambda a, b: -dot(a, [log(x) for x in b])
    one, other = q[:2], q[2:]
    costs = entropies(p, one) + entropies(p, other)
    return costs - (entropies(other, one) + entropies(one, other)) * Decimal("0.25")


def circle(x, r):
    """Two embeddings against two references, of one class each: both losses together."""
    gamma, margin = Decimal(20), Decimal("0.4")
    losses = []
    for i in range(2):
        d = [positive(1 - dot(x[2 * i : 2 * i + 2], r[2 * j : 2 * j + 2])) for j in range(2)]
        near, far = d[i], d[1 - i]
        a = positive(margin + near) * (margin - near) * -gamma
        b = positive(1 + margin - far) * (1 - margin - far) * gamma
        losses.append(log(1 + exp(a + b)))
    return losses[0] + losses[1]


def linear(x, w, t):
    return -log(softmax([dot(x, w[v::2]) for v in range(2)])[t])


def directions(random, shape):
    """Two vectors of unit length, up to rounding, and two references."""

    def two():
        x = random.standard_normal((shape[0], 2, 2))
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(shape)

    return two(), two()


def a_layer(random, shape):
    """x [2], w [2, 2], a label."""
    x, w = sign(random, shape) * magnitude(random, 1e-2, 3.0, shape), random.standard_normal((shape[0], 4))
    return x, w, random.integers(0, 2, shape[0])


Q = Decimal("0.75")
LOGITS = {"from_logits": True}
CASES = (
    Case("mean_squared_error", lambda p, t: (p - t) ** 2, reals()),
    Case("mean_absolute_error", lambda p, t: abs(p - t), reals()),
    Case("mean_absolute_percentage_error", lambda p, t: abs((p - t) / t) * 100, reals(0.2, 10.0)),
    Case("mean_squared_logarithmic_error", lambda p, t: (log(1 + p) - log(1 + t)) ** 2, positives),
    Case("log_cosh", lambda p, t: log((exp(p - t) + exp(t - p)) / 2), reals(high=8.0)),
    Case("huber", lambda p, t: huber(p - t, Decimal(1)), reals()),
    Case("pseudo_huber", lambda p, t: root(1 + (p - t) ** 2) - 1, reals()),
    Case("quantile", lambda p, t: pinball(p - t, Q), reals(), {"q": 0.75}),
    Case("poisson", lambda p, t: p - t * log(p), positives),
    Case("hinge", lambda p, t: positive(1 - t * p), signed_labels),
    Case("squared_hinge", lambda p, t: positive(1 - t * p) ** 2, signed_labels),
    Case("modified_huber", lambda p, t: modified_huber(t * p), signed_labels),
    Case("binary_crossentropy", entropy, chances),
    Case("binary_crossentropy", lambda z, t: entropy(sigmoid(z), t), logits, LOGITS),
    Case("sigmoid_binary_cross_entropy", lambda z, t: entropy(sigmoid(z), t), logits),
    Case("binary_focal_crossentropy", lambda p, t: (t * (1 - p) + (1 - t) * p) ** 2 * entropy(p, t), chances),
    Case(
        "binary_focal_crossentropy",
        lambda z, t: (t * (1 - sigmoid(z)) + (1 - t) * sigmoid(z)) ** 2 * entropy(sigmoid(z), t),
        logits,
        LOGITS,
    ),
    Case("euclidean_distance", distance, vectors(), width=WIDTH, norm=True),
    Case(
        "cosine_similarity",
        lambda p, t: -(dot(p, t) / (root(dot(p, p)) * root(dot(t, t)))),
        vectors(),
        width=WIDTH,
        norm=True,
    ),
    Case(
        "categorical_hinge",
        lambda p, t: positive(1 + largest([(1 - b) * a for a, b in zip(p, t, strict=True)]) - dot(t, p)),
        scores,
        width=WIDTH,
    ),
    Case("kl_divergence", lambda p, t: total([b * log(b / a) for a, b in zip(p, t, strict=True)]), masses, width=WIDTH),
    Case("cross_entropy", lambda p, t: surprise(t, p) / Decimal(2).ln(), masses, {"base": 2.0}, WIDTH),
    Case("softmax_cross_entropy", lambda z, t: surprise(t, softmax(z)), scores, width=WIDTH),
    Case("categorical_crossentropy", lambda z, t: surprise(t, softmax(z)), scores, LOGITS, WIDTH),
    Case("categorical_crossentropy", lambda p, t: surprise(t, shares(p)), masses, width=WIDTH),
    Case("categorical_focal_crossentropy", lambda z, t: focal(t, softmax(z)), scores, LOGITS, WIDTH),
    Case("categorical_focal_crossentropy", lambda p, t: focal(t, shares(p)), masses, width=WIDTH),
    Case("softmax_cross_entropy_with_integer_labels", lambda z, t: -log(softmax(z)[t]), classes(scores), width=WIDTH),
    Case("sparse_categorical_crossentropy", lambda p, t: -log(shares(p)[t]), classes(masses), width=WIDTH),
    Case(
        "categorical_generalized_cross_entropy", lambda p, t: (1 - root(p[t])) * 2, classes(masses), {"q": 0.5}, WIDTH
    ),
    Case("contrastive", contrastive, vectors("label"), width=WIDTH, norm=True),
    Case(
        "triplet_hinge",
        lambda a, p, n: positive(distance(a, p) - distance(a, n) + 1),
        vectors("vector"),
        width=WIDTH,
        norm=True,
    ),
    Case("dice", lambda p, t: 1 - 2 * dot(p, t) / (total(p) + total(t)), masses, width=WIDTH),
    Case("tversky", lambda p, t: tversky(p, t, Decimal("0.5"), Decimal("0.5")), masses, width=WIDTH),
    Case(
        "amended_cross_entropy",
        amended,
        lambda random, shape: (masses(random, shape)[0], masses(random, (shape[0], 2))[1]),
        width=WIDTH,
        one=lambda loss, q, p: loss(q.reshape(2, 2), p).sum(),
    ),
    Case(
        "circle",
        circle,
        directions,
        {"gamma": 20.0, "remove_diagonal": False},
        WIDTH,
        one=lambda loss, x, r: loss(x.reshape(2, 2), np.arange(2), r.reshape(2, 2), np.arange(2)).sum(),
    ),
    Case(
        "linear_cross_entropy",
        linear,
        a_layer,
        width=2,
        norm=True,  # products with w
        one=lambda loss, x, w, t: loss(x[None], w.reshape(2, 2), t[None])[0],
    ),
)

# Its slope is the difference of a probability and an occupancy, and as small as it is likely that the frames spell the labels:
# it is right to eps, not to eps of itself. tests/losses/test_ctc.py compares it.
ELSEWHERE = ("ctc",)

NUDGE, RESIDUE = Decimal("1e-15"), Decimal("1e-35")
ENOUGH = 20  # entries that break a bound: those that remain count as they are
JUMP = 1e12  # at a kink the slope has no sensitivity, and the subgradient has to be the chosen one
HOPELESS = 1e300  # eps, where the truth is 0, and the result is not
PARTS = ("value", "slope", "slope by target", "curvature")

# ---- the truth, the results, and the distance between them


def truth(case: Case, args: Sequence[np.ndarray]) -> np.ndarray:
    """[N, 4]: value, slope, slope by target, curvature; long double, as the errors of float64 need."""
    rows = []
    with localcontext() as context:
        context.prec = DIGITS
        for example in zip(*(x.tolist() for x in args), strict=True):
            rows.append([np.longdouble(str(x)) for x in _exact(case, example)])
    return np.asarray(rows)


def _exact(case: Case, example: Sequence[Any], entry: int = 0) -> list[Decimal]:
    one = case.formula(*(_jets(x, i, entry) for i, x in enumerate(example)))
    # what is left of p/p - 1 in 50 digits; no result that is not 0 is as small
    return [x if abs(x) > RESIDUE else Decimal(0) for x in (one.v, one.p, one.t, one.pp)]


def _jets(x: Any, place: int, entry: int) -> Any:
    """An argument of one example; derivatives are by one entry of the prediction and of the target."""
    if isinstance(x, int):
        return x
    p, t = Decimal(int(place == 0)), Decimal(int(place == 1))
    jets = [Jet(Decimal(y), p, Decimal(0), t) if i == entry else Jet(Decimal(y)) for i, y in enumerate(x)]
    return jets[0] if len(jets) == 1 else jets


def sensitivity(case: Case, example: Sequence[Any], part: int) -> float:
    """The sum over the inputs of |x d(entry)/dx|: what an eps in each of them makes of the entry, in eps. With `norm`
    |x| is the largest of the array, and an entry is not smaller than the others of its array."""
    with localcontext() as context:
        context.prec = DIGITS
        own, moved = _exact(case, example)[part], Decimal(0)
        for i, x in enumerate(example):
            if isinstance(x, int):
                continue
            step = [NUDGE * Decimal(max(map(abs, x)) if case.norm else abs(y)) for y in x]
            for j in range(len(x)):
                other = [Decimal(y) + step[j] if j == k else y for k, y in enumerate(x)]
                moved += abs(_exact(case, [*example[:i], other, *example[i + 1 :]])[part] - own)
        if not case.norm:
            return float(moved / NUDGE)
        others = max(abs(_exact(case, example, entry)[part]) for entry in range(case.width))
        return float(max(moved / NUDGE, others))


def drawn(case: Case, examples: int, seed: int) -> tuple[list[np.ndarray], dict[str, slice]]:
    """The arguments in float64, and which of their rows fit in each type: the first tenth in bfloat16, the next in
    float16, half of all in float32, all in float64."""
    import jax.numpy as jnp

    random = np.random.default_rng(seed)
    args = [np.asarray(x) for x in case.draw(random, (examples, case.width))]
    tenth = examples // 10
    fit = {
        "bfloat16": slice(0, tenth),
        "float16": slice(tenth, 2 * tenth),
        "float32": slice(0, examples // 2),
        "float64": slice(0, examples),
    }
    for dtype, rows in (("float32", slice(2 * tenth, examples // 2)), *list(fit.items())[:2]):
        for x in args:
            if x.dtype == np.float64:
                x[rows] = x[rows].astype(jnp.dtype(dtype)).astype(np.float64)
    if case.draw is chances:
        args[0][args[0] == 1] = 0.5  # rounded to 1, where the loss is infinite
    return args, fit


def computed(function: Callable[..., Any], args: Sequence[np.ndarray], dtype: str, seed: int, curvature: bool):
    """[N, 3 or 4] in long double, 0 for the derivative by an integer target; compiled, as losses are used."""
    import jax
    import jax.numpy as jnp

    given = [jnp.asarray(x, dtype if x.dtype == np.float64 else jnp.int32) for x in args]
    random = np.random.default_rng(seed)
    scale = sign(random, len(args[0])) * 2.0 ** random.integers(-2, 3, len(args[0]))
    one_each = lambda *given: function(*given).reshape(-1)  # sigmoid_binary_cross_entropy keeps the last axis

    @jax.jit
    def columns(scale, *given):
        value, pull = jax.vjp(one_each, *given)
        dpred, dtarget = pull(scale.astype(value.dtype))[:2]
        by_target = jnp.zeros_like(value) if dtarget.dtype == jax.dtypes.float0 else dtarget[:, 0]
        if not curvature:
            return value, dpred[:, 0], by_target
        along = jnp.zeros_like(given[0]).at[:, 0].set(1)
        slope = jax.grad(lambda pred: one_each(pred, *given[1:]).sum())
        return value, dpred[:, 0], by_target, jax.jvp(slope, (given[0],), (along,))[1][:, 0]

    found = [np.asarray(x, np.longdouble) for x in columns(jnp.asarray(scale), *given)]
    return np.stack([x / scale if i in (1, 2) else x for i, x in enumerate(found)], axis=1)


def applied(case: Case, loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss as a function of batches of examples."""
    import jax

    one = case.one
    return loss if one is None else jax.vmap(lambda *example: one(loss, *example))


def errors(case: Case, args: Sequence[np.ndarray], got, true, limits: Sequence[Limit]) -> list[float]:
    """Of each column the largest, in eps of the entry; above the bound, in eps of its sensitivity if that is larger."""
    worst = []
    for part, limit in enumerate(limits):
        if part == 2 and args[1].dtype != np.float64:
            worst.append(0.0)  # no derivative by labels
            continue
        distance = np.abs(got[:, part] - true[:, part]) / limit.eps
        off = distance / np.maximum(np.abs(true[:, part]), limit.least / limit.eps)
        off = np.where(np.isfinite(off), np.minimum(off, HOPELESS), np.inf).astype(np.float64)
        above = 0
        for i in np.argsort(off)[::-1]:
            if off[i] <= limit.bound or above == ENOUGH:
                break
            if np.isfinite(off[i]):
                moved = sensitivity(case, [x[i].tolist() for x in args], part)
                off[i] = min(off[i], float(distance[i]) / moved) if 0 < moved < JUMP else off[i]
            above += off[i] > limit.bound
        worst.append(float(off.max()))
    return worst


def limits_of(case: Case, dtype: str) -> list[Limit]:
    """Of value, slope, slope by target and, in float64, curvature."""
    import jax.numpy as jnp

    own, wide = jnp.finfo(dtype), jnp.finfo("float32" if jnp.finfo(dtype).bits == 16 else dtype)
    single = BOUND32 if case.width == 1 else BOUND32_OF_SEVERAL
    value = Limit(float(wide.eps), float(wide.tiny), BOUND if dtype == "float64" else single)
    if own.bits != 16:
        return [value] * (4 if dtype == "float64" else 3)
    # cotangents of 1/4 make a subnormal step four times as large
    slope = Limit(float(own.eps), float(4 * own.smallest_subnormal if dtype == "float16" else own.tiny), BOUND16)
    return [value, slope, slope]


def measured(examples: int, equations: bool) -> Trial:
    """{name of the case: {type, or "equation": largest errors}}, computed in the process of its own that this runs in."""
    import jax

    from fdl import losses

    jax.config.update("jax_enable_x64", True)
    found = {}
    for seed, case in enumerate(CASES):
        op = losses.get(case.loss).bind(**case.options)
        loss, plain_loss = (applied(case, function) for function in (op, op.equation))
        args, fit = drawn(case, examples // case.width, seed)
        true = truth(case, args)
        found[case.name] = {}
        for dtype, rows in fit.items():
            part = [x[rows] for x in args]
            limits = limits_of(case, dtype)
            wide = dtype == "float64"
            found[case.name][dtype] = errors(case, part, computed(loss, part, dtype, seed, wide), true[rows], limits)
            if wide and equations:
                plain = computed(plain_loss, part, dtype, seed, True)
                endless = [limit._replace(bound=np.inf) for limit in limits]
                found[case.name]["equation"] = errors(case, part, plain, true[rows], endless)
    return Trial(found)


def broken(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Every figure above its bound, in words."""
    texts = []
    for case in CASES:
        for dtype, worst in found[case.name].items():
            if dtype == "equation":
                continue
            for part, error, limit in zip(PARTS, worst, limits_of(case, dtype), strict=False):
                if not error <= limit.bound:
                    texts.append(f"{case.name}, {dtype}, {part}: {error:.3g} eps, bound {limit.bound:g}")
    return texts


def text_of(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One line for each loss: the largest errors, value; slope; slope by target; curvature."""
    lines = [("largest error in eps: value; slope; slope by target; curvature", *next(iter(found.values())))]
    for name, by_type in found.items():
        lines.append((name, *("; ".join(f"{x:.2g}" for x in worst) for worst in by_type.values())))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def arguments(full: bool) -> dict[str, Any]:
    return {"examples": SCALARS * (4 if full else 1), "equations": full}


CONFIGURATIONS, ALGEBRA = 200, 1e-10


def layers(name: str, count: int) -> Trial:
    """{part: (the largest error in eps, the configuration that has it)} of this op."""
    import jax

    from benchmarks._layer_proof import configuration, distances

    jax.config.update("jax_enable_x64", True)
    worst: dict[str, tuple[float, str]] = {}
    for i in range(count):
        c = configuration(name, i)
        for part, error in distances(c).items():
            if part not in worst or error > worst[part][0]:
                worst[part] = (error, str(c))
        if i % 20 == 19:
            jax.clear_caches()  # hundreds of programs exceed the memory maps that Linux gives a process
    return Trial(worst)


def of_layers() -> Iterator[Row]:
    """Every op of convolution, pooling and normalization to second order, a row each."""
    from benchmarks._layer_proof import NAMES

    for name in NAMES:
        work = f"proof: {name}, {CONFIGURATIONS} configurations"
        try:
            found = result_of(layers, {"name": name, "count": CONFIGURATIONS})
        except RuntimeError as error:
            yield Row(work, "configuration", "fdl", "fdl", "failed", str(error))
            continue
        note = "largest error in eps: " + ", ".join(f"{part} {error:.3g}" for part, (error, _) in found.items())
        above = [f"{part} of {where}" for part, (error, where) in found.items() if not error <= BOUND]
        note += f"; above {BOUND:g}: {'; '.join(above)}" if above else ""
        worst = max(error for error, _ in found.values())
        yield judged(work, f"{worst:.3g} eps", not above, f"<= {BOUND:g} eps", unit="configuration", note=note)


def convolutions(count: int) -> Trial:
    """{configuration: (the formulation that is furthest from the equation, how far)}, in float64."""
    import jax

    from benchmarks._conv_proof import configurations, differences

    jax.config.update("jax_enable_x64", True)
    found = {}
    for configuration in configurations(count):
        off = differences(configuration)
        worst = max(off, key=lambda name: off[name])
        found[str(configuration)] = (worst, off[worst])
    return Trial(found)


def of_convolutions() -> Row:
    """All formulations of the convolution and its gradients against autodiff of the equation, in one row."""
    work = f"proof: formulations of the convolution, {CONFIGURATIONS} configurations"
    try:
        found = result_of(convolutions, {"count": CONFIGURATIONS})
    except RuntimeError as error:
        return Row(work, "configuration", "fdl", "fdl", "failed", str(error))
    configuration, (part, off) = max(found.items(), key=lambda item: item[1][1])
    note = f"of the largest entry; {part} of {configuration}"
    return judged(work, f"{off:.2g}", off <= ALGEBRA, f"<= {ALGEBRA:g}", unit="configuration", note=note)


def run(settings: Settings) -> list[Row]:
    """One row per loss, "equal", or "unequal" with the bounds it breaks; with --full one per op of `of_layers` and one more."""
    try:
        found = result_of(measured, arguments(settings.full))
    except RuntimeError as error:
        return [Row("proof of losses", "loss", "fdl", "fdl", "failed", str(error))]
    wrong = broken(found)
    rows = []
    for case in CASES:
        mine = [text for text in wrong if text.startswith(f"{case.name}, ")]
        errors = {dtype: max(worst) for dtype, worst in found[case.name].items()}
        in_words = ", ".join(f"{dtype} {error:.2g}" for dtype, error in errors.items())
        note = " | ".join(mine) if mine else f"largest error in eps: {in_words}"
        bound, eps = f"<= {BOUND:g} eps", f"{errors['float64']:.3g} eps"
        rows.append(judged(f"proof: {case.name}", eps, not mine, bound, unit="loss", note=note))
    return [*rows, *of_layers(), of_convolutions()] if settings.full else rows


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="four times as many numbers")
    parser.add_argument("--layers", action="store_true", help="convolution, pooling and normalization alone")
    options = parser.parse_args(given)
    full, start = options.full, time.perf_counter()
    if options.layers:
        statuses = set()
        for row in of_layers():
            print(f"{row.work:42} {row.status:8} {row.note}", flush=True)
            statuses.add(row.status)
        return 0 if statuses == {"equal"} else 1
    found = result_of(measured, arguments(full))
    print(text_of(found))
    wrong = broken(found)
    print(f"\n{len(CASES)} cases in {time.perf_counter() - start:.0f} s, {len(wrong)} bounds broken")
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
