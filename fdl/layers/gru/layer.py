"""The op and the layer of all variants.

The op takes (params, x, state, mask, resets) and returns (y [N, T, D], the last state {"h": [N, D]}); x is [N, T, I], mask
and resets [N, T]. Where params have no "w", x is the input part itself. Errors: InputError, InputTypeError.

    >>> params, _ = fdl.gru(4).init(jax.random.key(0), (7, 3))
    >>> y, last = fdl.ops.gru(params, jnp.ones((2, 7, 3), jnp.float32))
    >>> y.shape, last["h"].shape
    ((2, 7, 4), (2, 4))
"""

from collections.abc import Callable
from typing import Any

from fdl.compose import serial
from fdl.errors import refuse, require_bool
from fdl.layer import Layer, bind
from fdl.layers._recurrent import engine
from fdl.layers._recurrent.cell import Cell, glorot_uniform, orthogonal
from fdl.layers._recurrent.layer import recurrent, weights
from fdl.layers.batch_norm import batch_norm
from fdl.layers.dense import dense
from fdl.layers.gru.bayesian import logarithms, probabilities
from fdl.layers.gru.content_adaptive import content_adaptive
from fdl.layers.gru.gated import FED, gated
from fdl.layers.gru.light import light
from fdl.layers.gru.reset_after import reset_after
from fdl.op import Op

_CELLS: dict[str, Callable[..., Cell]] = {
    **{variant: bind(gated, variant=variant) for variant in FED},
    "reset_after": reset_after,
    "ligru": light,
    "libru": bind(probabilities),
    "libru_log": bind(logarithms, softplus=False),
    "libru_softplus": bind(logarithms, softplus=True),
    "caru": bind(content_adaptive, first="content"),
    "caru_tanh": bind(content_adaptive, first="tanh"),
}
VARIANTS = tuple(_CELLS)
NORMALIZED = ("ligru", "libru", "libru_log", "libru_softplus")


def cell(variant: Any, gate: str, activation: Any) -> Cell:
    if not isinstance(variant, str) or variant not in _CELLS:
        refuse("gru", f"variant is {variant!r}, wanted one of {', '.join(VARIANTS)}")
    if variant.startswith("libru") and (gate, activation) != ("sigmoid", None):
        chosen = f"gate is {gate!r} and activation {activation!r}"
        refuse(
            "gru", f"{chosen}, but {variant!r} has no choice of curves, they follow from Bayes' rule; leave both out"
        )
    if activation is None:
        activation = "relu" if variant == "ligru" else "tanh"
    return _CELLS[variant](gate=gate, activation=activation)


def equation(
    params,
    x,
    state=None,
    mask=None,
    resets=None,
    *,
    variant="full",
    gate="sigmoid",
    activation=None,
    reverse=False,
    truncate=None,
    keep="gates",
):
    run = {"reverse": reverse, "truncate": truncate, "keep": keep}
    return engine.equation(cell(variant, gate, activation), params, x, state, mask, resets, **run)


op = Op(equation, *engine.passes(cell), name="gru")


def gru(
    features: int,
    variant: str = "full",
    return_final: bool = False,
    *,
    gate: str = "sigmoid",
    activation: str | None = None,
    normalize: bool | None = None,
    reverse: bool = False,
    truncate: int | None = None,
    keep: str = "gates",
    stateful: int | None = None,
    w_init: Callable = glorot_uniform,
    u_init: Callable = orthogonal,
) -> Layer:
    """[N, T, I] -> [N, T, D], or with return_final [N, D]; params {"w" [I, .], "u" [D, .], "b", ...} by variant (gru/__init__.py).

    gate: an activation into [0, 1], sigmoid or hard_sigmoid. activation: of the candidate, tanh, or relu for ligru; libru has no
    choice of either. normalize: batch normalization of the input part, by default for ligru and libru alone; params are then
    {"project": {"w"}, "norm": ..., "recurrence": {"u", ...}}. reverse: from the last step to the first. truncate=k: the error goes
    back k steps at most. keep: "gates", or "states" for less memory. stateful: the batch size, and a call begins where the last
    one ended (the state is {"h": [N, D]}, of caru "started" too). Masked steps leave the state as it is.

        >>> model = fdl.gru(4, "mgu", return_final=True)
        >>> params, state = model.init(jax.random.key(0), (7, 3))
        >>> model.apply(params, state, jnp.ones((2, 7, 3), jnp.float32))[0].shape
        (2, 4)
    """
    made = cell(variant, gate, activation)
    normalize = variant in NORMALIZED if normalize is None else normalize
    require_bool("gru", "normalize", normalize)
    bound = op.bind(variant=variant, gate=gate, activation=activation, reverse=reverse, truncate=truncate, keep=keep)
    own = bind(weights, cell=made, features=features, w_init=w_init, u_init=u_init, project=not normalize)
    run = recurrent(bound, made, features, return_final=return_final, stateful=stateful, init=own)
    if not normalize:
        return run
    wide = made.shapes(1, features)["w"][1]
    return serial(project=dense(wide, bias=False, w_init=w_init), norm=batch_norm(), recurrence=run)
