"""Binary cross-entropy of logits, elementwise: every entry is a yes-or-no question of its own.

    loss[i] = - t[i] log s(z[i]) - (1 - t[i]) log(1 - s(z[i]))        s(z) = 1 / (1 + exp(-z))
            = t[i] softplus(-z[i]) + (1 - t[i]) softplus(z[i])        as -log s(z) = softplus(-z), 1 - s(z) = s(-z)

Backward. softplus' = s, and softplus(-z) - softplus(z) = -z; so for a cotangent dloss

    dz[i] = dloss[i] ((1 - t[i]) s(z[i]) - t[i] s(-z[i]))        dt[i] = - dloss[i] z[i]

dz is s(z) - t, the error, written without the difference: s(z) - 1 is 0 from z = 17 on in float32, and -s(-z) is alive
wherever exp(-z) is. The second derivative is s(z) s(-z), 1/4 at 0.

Limits.
| input              | loss | dz            | dt   | why                                                              |
|--------------------|------|---------------|------|------------------------------------------------------------------|
| z = -1000, t = 1   | 1000 | -1            | 1000 | linear in the error: nothing saturates                           |
| z = inf, t = 1     | 0    | 0             | -inf | right and sure; optax, Keras and PyTorch give NaN                |
| z = -inf, t = 0    | 0    | 0             | inf  | right and sure; optax, Keras and PyTorch give NaN                |
| z = -inf, t = 1    | inf  | -1            | inf  | wrong and sure; PyTorch's loss is NaN                            |
| z = +-inf, 0<t<1   | inf  | 1 - t or -t   |      | a soft label is never sure                                       |
| t outside [0, 1]   | the formula | the formula |  | as optax and Keras                                               |
| NaN                | NaN  | NaN           | NaN  | loud                                                             |

Shapes: logits z [...], labels t [...] float, loss [...]: optax's name, argument order and elementwise values, since each
entry is an example; `binary_crossentropy(from_logits=True)` is its mean over an axis. Labels of another dtype are refused.
Source: Goodfellow, Bengio & Courville 2016, section 6.2.2.2.

    >>> fdl.losses.sigmoid_binary_cross_entropy(jnp.float32([[0]]), jnp.float32([[1]])).round(4)  # log 2
    Array([[0.6931]], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_pair
from fdl.layers.activations import ACTIVATIONS
from fdl.losses._per_example import times, widened
from fdl.losses._probabilities import weighted
from fdl.op import Op

# full relative accuracy in both tails, in the derivatives too
sigmoid, softplus = ACTIVATIONS["sigmoid"].f, ACTIVATIONS["softplus"].f


def equation(logits, labels):
    p = 1 / (1 + jnp.exp(-logits))
    return -labels * jnp.log(p) - (1 - labels) * jnp.log(1 - p)


def forward(logits, labels):
    require_pair("sigmoid_binary_cross_entropy", "logits", logits, "labels", labels, 0, "any")
    return value(*widened(logits, labels)), (logits, labels)


def backward(residuals, dloss):
    logits, labels = residuals
    dz, dt = slopes(*widened(logits, labels))
    return times(dloss, dz).astype(logits.dtype), times(dloss, dt).astype(labels.dtype)


def value(z, t):
    return weighted(t, softplus(-z)) + weighted(1 - t, softplus(z))


def slopes(z, t):
    """(d value / dz, d value / dt)."""
    return (1 - t) * sigmoid(z) - t * sigmoid(-z), -z


sigmoid_binary_cross_entropy = Op(equation, forward, backward)
