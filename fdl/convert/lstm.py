"""Weights of the long short-term memory. All compute the same function; the order of the gates and the biases differ.

| layout            | gates                    | biases                            |
|-------------------|--------------------------|-----------------------------------|
| fdl               | i, r (forget), n, o      | one; peepholes p [3, D] of i, r, o |
| torch, equinox    | i, f, g, o: the same order | torch two, which add up            |
| keras             | i, f, c, o: the same order | one                               |
| flax, nnx         | an array for each        | one, beside h                     |

Peepholes stay in fdl: a target without them refuses those that are not 0. States: fdl {"h", "c"}, torch (h, c), keras [h, c],
equinox (h, c), flax and nnx (c, h).
"""

from typing import Any

from fdl.convert._layout import Layout
from fdl.convert._recurrent import converted

_OF_FDL = {"w": "w_i w_r w_n w_o", "u": "u_i u_r u_n u_o", "b": "b_i b_r b_n b_o"}
_OF_TORCH = Layout(
    {
        "weight_ih": "w_i w_r w_n w_o",
        "weight_hh": "u_i u_r u_n u_o",
        "bias_ih": "b_i b_r b_n b_o",
        "bias_hh": "s_i s_r s_n s_o",
    },
    outputs_first=True,
)
_OF_KERAS = Layout(dict(zip(("kernel", "recurrent_kernel", "bias"), _OF_FDL.values(), strict=True)), listed=True)
_OF_EQUINOX = Layout(dict(zip(("weight_ih", "weight_hh", "bias"), _OF_FDL.values(), strict=True)), outputs_first=True)


def _of_flax(forget: str) -> Layout:
    gates = {"i": "i", forget: "r", "g": "n", "o": "o"}
    inputs = {f"i{name}/kernel": f"w_{gate}" for name, gate in gates.items()}
    hidden = {f"h{name.rstrip('_')}/kernel": f"u_{gate}" for name, gate in gates.items()}
    return Layout(inputs | hidden | {f"h{name.rstrip('_')}/bias": f"s_{gate}" for name, gate in gates.items()})


LAYOUTS = {
    "fdl": (Layout(_OF_FDL), Layout(_OF_FDL | {"p": "p_i; p_r; p_o"})),
    "torch": (_OF_TORCH, _OF_TORCH.without("b", "s")),
    "torch_cell": (_OF_TORCH, _OF_TORCH.without("b", "s")),
    "keras": (_OF_KERAS, _OF_KERAS.without("b")),
    "flax": (_of_flax("f"),),
    "nnx": (_of_flax("f_"),),  # "if" is a word of Python
    "nnx_optimized": (
        Layout(
            {
                "dense_i/kernel": "w_i w_r w_n w_o",
                "dense_h/kernel": "u_i u_r u_n u_o",
                "dense_h/bias": "s_i s_r s_n s_o",
            }
        ),
    ),
    "equinox": (_OF_EQUINOX, _OF_EQUINOX.without("b")),
}


def lstm(
    weights: Any, source: str = "torch", target: str = "fdl", *, bias: bool | None = None, gradients: bool = False
) -> Any:
    """The weights of an LSTM, or of several, from the layout of one library in that of another. Options as in `gru`.

    >>> params, _ = fdl.lstm(4).init(jax.random.key(0), (7, 3))
    >>> fdl.convert.lstm(params, source="fdl", target="torch")["weight_ih_l0"].shape
    (16, 3)
    """
    return converted("lstm", LAYOUTS, weights, source, target, bias=bias, gradients=gradients)
