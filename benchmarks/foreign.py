"""Gradients that nobody here wrote: jax.nn, jax.scipy.special, optax.losses and Flax layers under fdl.check.

Claim: at the inputs below these public functions have a finite value and a derivative that is off by more than 1 %, or NaN; a
right `jax.custom_vjp` with two outputs has a wrong gradient under `vmap` over an argument that one of them does not depend
on; and at ordinary inputs fdl.check accuses no other function of the survey.

    python -m benchmarks foreign [--full]

Method: a finding is a function, its exact argument, and the true derivative there, by the formula beside it in float64.
The script asks the library for the derivative, compares, and shows what `fdl.check.gradients` says when given nothing
but the function: it judges the formula in float64, so "wrong" means that float64 does not help, and "undecided" mostly
that few digits survive in float32. The findings came from a scan of all functions of the survey at 0, at powers of ten
and at ties; each was then worked out by hand. Saturation (tanh' and sigmoid' that round to 0 beside a value of 1) is
not counted. --full repeats the survey: every function at ordinary random arguments, Flax layers as functions of their
parameters and their input, each a "right" or the reason why not.

Result: "equal" if a finding still stands. A library that has been mended shows as "unequal" and sets the exit code to 1, so that
the table is brought up to date; so does an accusation in the survey.
"""

# pyright: reportMissingImports=false
# (Flax is optional)

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks._harness import Row, Settings, judged, missing

OFF = 0.01


class Finding(NamedTuple):
    where: str  # as a user would import it
    x: float
    truth: float  # the derivative at x
    why: str
    dtype: str = "float32"

    @property
    def name(self) -> str:
        return f"{self.where} at {self.x:g}, {self.dtype}"


def _mills(x: float) -> float:
    """phi(x) / Phi(x), the derivative of log Phi, far to the left: -x (1 + 1/x^2 - 2/x^4 ...)."""
    return -x * (1 + 1 / x**2)


FINDINGS = (
    Finding("jax.scipy.special.spence", 1.0, -1.0, "log z / (1 - z) tends to -1; the rule gives 0 there", "float64"),
    Finding("jax.scipy.special.spence", 2.0, -math.log(2), "log z / (1 - z); NaN at a seam of its pieces", "float64"),
    Finding(
        "jax.scipy.special.spence", 1.75, math.log(1.75) / -0.75, "log z / (1 - z); NaN from log(1 - z) unselected"
    ),
    Finding("jax.scipy.special.spence", 1e-8, math.log(1e-8) / (1 - 1e-8), "log z / (1 - z); off by 1 near 0"),
    Finding("jax.scipy.special.log_ndtr", -1e4, _mills(-1e4), "phi(x) / Phi(x), about -x: exp of a lost difference"),
    Finding("jax.scipy.special.log_ndtr", -1e10, _mills(-1e10), "likewise", "float64"),
    Finding("jax.scipy.special.dawsn", 1e4, -(1 + 1.5e-8) / 2e8, "1 - 2 x D(x) cancels; -1/(2x^2) - 3/(4x^4)"),
    Finding("jax.scipy.special.dawsn", 1e10, -1 / 2e20, "likewise", "float64"),
    Finding("jax.scipy.special.erfcx", 1e4, -1 / (math.sqrt(math.pi) * 1e8), "2 x erfcx(x) - 2/sqrt(pi) cancels"),
    Finding(
        "jax.scipy.special.i0e", 1e10, -0.5 / (math.sqrt(2 * math.pi) * 1e15), "i1e - i0e cancels: the sign is wrong"
    ),
    Finding("jax.scipy.special.i1e", 1e10, -0.5 / (math.sqrt(2 * math.pi) * 1e15), "i0e - i1e - i1e/x cancels"),
    Finding("jax.scipy.special.i0", 1e-8, 5e-9, "I1(x) = x/2 near 0"),
    Finding("jax.nn.gelu", 1e20, 1.0, "x^3 overflows: 0 times infinity"),
    Finding("jax.nn.gelu", -5.0, -1.546363e-06, "1 + tanh cancels in the tail (by 60 digits: -1.5464e-06)"),
    Finding("jax.nn.squareplus", -1e4, 1e-8, "1 + x/sqrt(x^2 + 4) cancels; 1/x^2"),
    Finding("jax.nn.soft_sign", 1e10, 1e-20, "1/(1 + |x|) - |x|/(1 + |x|)^2 cancels; 1/(1 + |x|)^2"),
    Finding("optax.losses.huber_loss", 1e-8, 1e-8, "the error itself; delta - delta + error in its backward pass"),
    Finding("optax.losses.huber_loss", 1e-6, 1e-6, "likewise: 1.3 % off"),
)


def _function(where: str) -> Callable[..., Any]:
    import importlib

    module, _, name = where.rpartition(".")
    return getattr(importlib.import_module(module), name)


def findings() -> list[Row]:
    import jax
    import jax.numpy as jnp

    from fdl.check import gradients

    rows = []
    for finding in FINDINGS:
        function = _function(finding.where)
        with jax.enable_x64(finding.dtype == "float64"):
            x = jnp.asarray([finding.x], finding.dtype)
            value, got = float(function(x)[0]), float(jax.grad(lambda x, f=function: f(x).sum())(x)[0])
            verdict = gradients(function, x, modes="quick").verdict
        stands = math.isfinite(value) and not abs(got - finding.truth) <= OFF * abs(finding.truth)
        rows.append(
            _row(finding.name, got, finding.truth, stands, f"value {value:.6g}: {finding.why}; fdl.check: {verdict}")
        )
    return rows


def _row(name: str, got: float, true: float, stands: bool, note: str) -> Row:
    """The library's shortfall; one that has been mended sets the exit code."""
    library, status = name.partition(".")[0], "equal" if stands else "unequal"
    return Row(f"finding: {name}", "slope", library, library, status, note, f"slope {got:.6g}", f"{true:.6g}")


def _pair(w, x):
    """Two outputs, one of which does not depend on w."""
    return w * x, x * x


def under_vmap() -> Row:
    """The rule is right; vmap counts the cotangent of the second output once for every w."""
    import jax
    import jax.numpy as jnp

    from fdl.check import gradients

    pair = jax.custom_vjp(_pair)
    pair.defvjp(
        lambda w, x: (_pair(w, x), (w, x)),
        lambda kept, dout: ((dout[0] * kept[1]), dout[0] * kept[0] + 2 * dout[1] * kept[1]),
    )
    w, x = jnp.asarray([1.0, 2.0, 3.0]), jnp.float32(5.0)
    slope = lambda f: float(jax.grad(lambda x: sum(jnp.sum(y) for y in jax.vmap(lambda w: f(w, x))(w)))(x))
    got, true = slope(pair), slope(_pair)
    said = {modes: gradients(pair, w[0], x, reference=_pair, modes=modes).verdict for modes in ("quick", "all")}
    note = f"fdl.check: quick {said['quick']}, all {said['all']}"
    return _row("jax.custom_vjp under vmap", got, true, got != true, note)


# ---- the survey


def _survey() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """{name: (function, arguments)} at ordinary inputs."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax import nn
    from jax.scipy import special

    rng = np.random.default_rng(0)
    array = lambda x: jnp.asarray(x, jnp.float32)
    normal = lambda *shape: array(rng.standard_normal(shape))
    positive = lambda *shape: array(rng.uniform(0.3, 3, shape))
    chance = lambda *shape: array(rng.uniform(0.05, 0.95, shape))
    shares = lambda: nn.softmax(normal(3, 4))
    found: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def add(module: str, names: str, make: Callable[[], tuple[Any, ...]]) -> None:
        home = {"jax.nn": nn, "jax.scipy.special": special, "optax.losses": optax.losses}[module]
        for name in names.split():
            found[f"{module}.{name}"] = (getattr(home, name), make())

    add(
        "jax.nn",
        "celu elu gelu hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid mish relu relu6 selu sigmoid silu soft_sign"
        " softplus sparse_plus sparse_sigmoid squareplus tanh",
        lambda: (normal(9),),
    )
    add("jax.nn", "glu log_softmax logsumexp logmeanexp softmax standardize", lambda: (normal(3, 4),))
    add("jax.nn", "log1mexp", lambda: (positive(5),))
    add("jax.nn", "dot_product_attention", lambda: (normal(1, 3, 2, 4), normal(1, 5, 2, 4), normal(1, 5, 2, 4)))
    add("jax.scipy.special", "dawsn erf erfc erfcx expit i0 i0e i1 i1e log_ndtr ndtr", lambda: (normal(5),))
    add("jax.scipy.special", "digamma entr gamma gammaln spence fresnel sici", lambda: (positive(5),))
    add("jax.scipy.special", "erfinv logit ndtri", lambda: (chance(5),))
    add(
        "jax.scipy.special",
        "beta betaln boxcox boxcox1p gammainc gammaincc kl_div rel_entr xlog1py xlogy poch owens_t",
        lambda: (positive(4), positive(4)),
    )
    found["jax.scipy.special.betainc in x"] = (lambda x: special.betainc(2.0, 3.0, x), (chance(3),))
    add("jax.scipy.special", "hyp1f1", lambda: (positive(3), positive(3), normal(3)))
    add(
        "optax.losses",
        "cosine_distance cosine_similarity huber_loss l2_loss log_cosh squared_error",
        lambda: (normal(3, 4), normal(3, 4)),
    )
    add("optax.losses", "hinge_loss perceptron_loss", lambda: (normal(4), array([1, -1, 1, -1])))
    add("optax.losses", "kl_divergence convex_kl_divergence", lambda: (jnp.log(shares()), shares()))
    add(
        "optax.losses",
        "softmax_cross_entropy safe_softmax_cross_entropy poly_loss_cross_entropy",
        lambda: (normal(3, 4), shares()),
    )
    add(
        "optax.losses",
        "softmax_cross_entropy_with_integer_labels multiclass_hinge_loss multiclass_perceptron_loss multiclass_sparsemax_loss",
        lambda: (normal(3, 4), jnp.asarray([0, 3, 1], jnp.int32)),
    )
    add(
        "optax.losses", "sigmoid_binary_cross_entropy sigmoid_focal_loss sparsemax_loss", lambda: (normal(4), chance(4))
    )
    add("optax.losses", "triplet_margin_loss", lambda: (normal(3, 4), normal(3, 4), normal(3, 4)))
    add("optax.losses", "ranking_softmax_loss", lambda: (normal(3, 4), chance(3, 4)))
    if not missing(("flax",)):
        from flax import linen

        layers: dict[str, tuple[Any, Any]] = {
            "Dense": (linen.Dense(3), normal(2, 4)),
            "Conv": (linen.Conv(2, (3,)), normal(2, 5, 3)),
            "LayerNorm": (linen.LayerNorm(), normal(2, 4)),
            "RMSNorm": (linen.RMSNorm(), normal(2, 4)),
            "GroupNorm": (linen.GroupNorm(2), normal(2, 3, 4)),
            "MultiHeadAttention": (linen.MultiHeadAttention(2, deterministic=True), normal(1, 3, 4)),
            "RNN of GRUCell": (linen.RNN(linen.GRUCell(3)), normal(2, 3, 2)),
            "RNN of OptimizedLSTMCell": (linen.RNN(linen.OptimizedLSTMCell(3)), normal(2, 3, 2)),
        }
        for name, (layer, x) in layers.items():
            found[f"flax.linen.{name}"] = (layer.apply, (layer.init(jax.random.key(0), x), x))
    return found


def survey() -> list[Row]:
    from fdl.check import gradients

    rows, known = [], {finding.where for finding in FINDINGS}
    for name, (function, arguments) in _survey().items():
        report = gradients(function, *arguments, modes="quick")
        accused = report.verdict == "wrong" and name not in known
        rows.append(judged(f"survey: {name}", report.verdict, not accused, "no accusation", note=report.sentence))
    return rows


def run(settings: Settings) -> list[Row]:
    return [*findings(), under_vmap(), *(survey() if settings.full else [])]
