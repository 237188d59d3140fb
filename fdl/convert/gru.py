"""Weights of the gated recurrent unit.

All of these compute h' from a z that is the share of h that is kept, but for fdl's form with the reset before the product, where z
is the share of h' that is new: its z is the other's 1 - z = sigmoid(-a), so w, u and b of z change their sign.

| form                       | layouts                                                                    |
|----------------------------|----------------------------------------------------------------------------|
| reset after the product    | torch, keras (reset_after=True, its default), flax, nnx, equinox, fdl's variant "reset_after" |
| reset before the product   | keras (reset_after=False), fdl's variant "full"                            |

The two forms are different functions: no weights of one give the other, and the conversion is refused.

| biases of a layout   | z, r             | n                                                                   |
|----------------------|------------------|---------------------------------------------------------------------|
| torch, keras         | two, which add up | two: that of r * (h u_n + s_n) stands inside, and does not add up    |
| fdl, flax, equinox   | one              | two, as above                                                       |
| nnx                  | one              | one: s_n is not there (flax#5594), and one that is not 0 is refused |
| reset before         | one              | one                                                                 |

Where the source has two that add up and the target one, it gets the sum; from one to two it becomes the first, bias_ih or row 0
of Keras, and the other is 0. Two stay two as they are.
"""

from typing import Any

from fdl.convert._layout import Layout
from fdl.convert._recurrent import converted
from fdl.errors import require_bool

AFTER, BEFORE = "the reset after the product", "the reset before the product"

_OF_TORCH = Layout(
    {
        "weight_ih": "w_r w_z w_n",
        "weight_hh": "u_r u_z u_n",
        "bias_ih": "b_r b_z b_n",
        "bias_hh": "s_r s_z s_n",
    },
    outputs_first=True,
    form=AFTER,
)
_OF_KERAS = Layout(
    {"kernel": "w_z w_r w_n", "recurrent_kernel": "u_z u_r u_n", "bias": "b_z b_r b_n; s_z s_r s_n"},
    listed=True,
    form=AFTER,
)
_OF_KERAS_BEFORE = Layout({**_OF_KERAS.arrays, "bias": "b_z b_r b_n"}, listed=True, form=BEFORE)
_OF_FLAX = Layout(
    {
        **{f"i{gate}/{name}": f"{block}_{gate}" for gate in "rzn" for name, block in (("kernel", "w"), ("bias", "b"))},
        **{f"h{gate}/kernel": f"u_{gate}" for gate in "rzn"},
        "hn/bias": "s_n",
    },
    form=AFTER,
)
_OF_NNX = Layout(
    {"dense_i/kernel": "w_r w_z w_n", "dense_i/bias": "b_r b_z b_n", "dense_h/kernel": "u_r u_z u_n"}, form=AFTER
)
_OF_EQUINOX = Layout(
    {"weight_ih": "w_r w_z w_n", "weight_hh": "u_r u_z u_n", "bias": "b_r b_z b_n", "bias_n": "s_n"},
    outputs_first=True,
    form=AFTER,
)

LAYOUTS = {
    "fdl": (
        Layout({"w": "w_z w_r w_n", "u": "u_z u_r u_n", "b": "b_z b_r b_n", "b_s": "s_n"}, form=AFTER),
        Layout({"w": "-w_z w_r w_n", "u": "-u_z u_r u_n", "b": "-b_z b_r b_n"}, form=BEFORE),
    ),
    "torch": (_OF_TORCH, _OF_TORCH.without("b", "s")),
    "torch_cell": (_OF_TORCH, _OF_TORCH.without("b", "s")),
    "keras": (_OF_KERAS, _OF_KERAS_BEFORE, _OF_KERAS.without("b"), _OF_KERAS_BEFORE.without("b")),
    "flax": (_OF_FLAX,),
    "nnx": (_OF_NNX,),
    "equinox": (_OF_EQUINOX, _OF_EQUINOX.without("b", "s")),
}


def gru(
    weights: Any,
    source: str = "torch",
    target: str = "fdl",
    *,
    reset_after: bool | None = None,
    bias: bool | None = None,
    gradients: bool = False,
) -> Any:
    """The weights of a GRU, or of several (fdl/convert/__init__.py), from the layout of one library in that of another.

    To fdl they are the parameters of fdl.gru(D, "reset_after"), with a "b_s", or of fdl.gru(D), without. reset_after: which form
    weights of Keras are of; needed only where they have no bias. bias: whether the target has biases, by default as the source,
    and True where it cannot be without. gradients: these are not weights but their gradients: of two biases that add up each
    has the gradient of the sum, and what has no parameter in the target is left out.

        >>> params, _ = fdl.gru(4).init(jax.random.key(0), (7, 3))
        >>> kernel, recurrent_kernel, bias = fdl.convert.gru(params, source="fdl", target="keras", reset_after=False)
        >>> kernel.shape, recurrent_kernel.shape, bias.shape
        ((3, 12), (4, 12), (12,))
    """
    if reset_after is not None:
        require_bool("convert.gru", "reset_after", reset_after)
    form = None if reset_after is None else AFTER if reset_after else BEFORE
    options: dict[str, Any] = {"bias": bias, "gradients": gradients}
    return converted("gru", LAYOUTS, weights, source, target, **options, apart=frozenset({"s_n"}), form=form)
