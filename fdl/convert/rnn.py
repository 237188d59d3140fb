"""Weights of the simple recurrent layer, one bias, of which torch has two that add up. Equinox has no such cell."""

from typing import Any

from fdl.convert._layout import Layout
from fdl.convert._recurrent import converted

_OF_TORCH = Layout({"weight_ih": "w", "weight_hh": "u", "bias_ih": "b", "bias_hh": "s"}, outputs_first=True)
_OF_KERAS = Layout({"kernel": "w", "recurrent_kernel": "u", "bias": "b"}, listed=True)

LAYOUTS = {
    "fdl": (Layout({"w": "w", "u": "u", "b": "b"}),),
    "torch": (_OF_TORCH, _OF_TORCH.without("b", "s")),
    "torch_cell": (_OF_TORCH, _OF_TORCH.without("b", "s")),
    "keras": (_OF_KERAS, _OF_KERAS.without("b")),
    "flax": (Layout({"i/kernel": "w", "i/bias": "b", "h/kernel": "u"}),),
    "nnx": (Layout({"dense_i/kernel": "w", "dense_i/bias": "b", "dense_h/kernel": "u"}),),
}


def rnn(
    weights: Any, source: str = "torch", target: str = "fdl", *, bias: bool | None = None, gradients: bool = False
) -> Any:
    """The weights of a simple recurrent layer, or of several, from one library's layout in another's. Options as in `gru`.

    >>> params, _ = fdl.rnn(4).init(jax.random.key(0), (7, 3))
    >>> fdl.convert.rnn(params, source="fdl", target="torch")["weight_ih_l0"].shape
    (4, 3)
    """
    return converted("rnn", LAYOUTS, weights, source, target, bias=bias, gradients=gradients)
