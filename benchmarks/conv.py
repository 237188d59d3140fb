"""One convolution, forward and with both gradients: fdl against lax autodiff, Flax and PyTorch.

Claim: the hand-written gradients, made of matrix products, are as fast inside a loop as outside, and no shape is slower than the
`lax` convolution with JAX's gradients; XLA runs those 50 to 150 times slower inside a `scan` on CPU, where fdl trains.

Work: y = conv(x, w) + b and, in the second table, dx, dw and db for a given dy. Stride 1, float32:
- by default the layers of a small network on pictures of one or three channels, and one of many channels: A, C and F below;
- with --full all of the shapes A to H.

Variants: fdl inside a loop (time per convolution), with Winograd's form and without where it applies, and in a call of its own;
`lax.conv_general_dilated` with `jax.vjp`, in a call and, for the small shapes, inside the same loop (the others take seconds each);
Flax `nnx.Conv` and Keras `Conv2D` on JAX, compiled; PyTorch in both memory layouts, on 1 thread and on all. All get the same arrays,
in the layout they prefer, and all results must be within 2e-5 of a float64 computation in NumPy, relative to the largest entry of the
array (float32 products: 1e-6).
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare

CALLS = 4  # convolutions inside one loop


@dataclasses.dataclass(frozen=True)
class Case:
    batch: int
    size: int
    inputs: int
    kernel: int
    outputs: int
    padding: str = "SAME"

    @property
    def pads(self) -> tuple[int, int]:
        total = self.kernel - 1 if self.padding == "SAME" else 0
        return total // 2, total - total // 2

    @property
    def text(self) -> str:
        k = self.kernel
        return f"{self.batch}x{self.size}x{self.size}x{self.inputs} {k}x{k}x{self.outputs} {self.padding}"


CASES = {
    "A": Case(64, 28, 1, 5, 6),
    "B": Case(64, 14, 6, 5, 16, "VALID"),
    "C": Case(64, 32, 3, 3, 32),
    "D": Case(64, 32, 32, 3, 32),
    "E": Case(64, 16, 32, 3, 64),
    "F": Case(64, 16, 64, 3, 64),
    "G": Case(128, 28, 1, 3, 32),
    "H": Case(128, 8, 128, 3, 128),
}
DEFAULT = ("A", "C", "F")
SMALL = ("A", "B", "C", "G")  # lax gradients inside a loop take less than a second


def arrays(case: str) -> dict[str, np.ndarray]:
    """x, dy, w and b; the same in every process."""
    c = CASES[case]
    rng = np.random.default_rng(0)
    out = c.size + sum(c.pads) - c.kernel + 1
    shapes = {
        "x": (c.batch, c.size, c.size, c.inputs),
        "dy": (c.batch, out, out, c.outputs),
        "w": (c.kernel, c.kernel, c.inputs, c.outputs),
        "b": (c.outputs,),
    }
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    made["w"] /= np.float32(np.sqrt(c.kernel**2 * c.inputs))
    return made


def outcome(y: Any, dw: Any = None, db: Any = None, dx: Any = None) -> dict[str, Any]:
    found = {"y": y, "dw": dw, "db": db, "dx": dx}
    return {name: np.asarray(array) for name, array in found.items() if array is not None}


def numpy_reference(case: str, backward: bool) -> Trial:
    """The sums of the definition, in float64."""
    c, a = CASES[case], {name: array.astype(np.float64) for name, array in arrays(case).items()}
    x, dy, w = a["x"], a["dy"], a["w"]
    lo, hi = c.pads
    x = np.pad(x, ((0, 0), (lo, hi), (lo, hi), (0, 0)))
    out = dy.shape[1]
    y, dw, dx = np.zeros_like(dy) + a["b"], np.zeros_like(w), np.zeros_like(x)
    for k in np.ndindex(c.kernel, c.kernel):
        seen = (slice(None), slice(k[0], k[0] + out), slice(k[1], k[1] + out))
        y += x[seen] @ w[k]
        if backward:
            dw[k] = x[seen].reshape(-1, c.inputs).T @ dy.reshape(-1, c.outputs)
            dx[seen] += dy @ w[k].T
    dx = dx[:, lo : lo + c.size, lo : lo + c.size]
    return Trial(outcome(y, dw, dy.sum((0, 1, 2)), dx) if backward else outcome(y))


# ---- JAX


def _jax_trial(convolve: Callable, case: str, backward: bool, loop: bool) -> Trial:
    """convolve({"w", "b"}, x) -> y."""
    import jax
    from jax import lax

    a = jax.device_put(arrays(case))
    params, x, dy = {"w": a["w"], "b": a["b"]}, a["x"], a["dy"]

    def work(params: Any, x: Any, dy: Any) -> Any:
        if not backward:
            return (convolve(params, x),)
        y, pull = jax.vjp(convolve, params, x)
        dparams, dx = pull(dy)
        return y, dparams["w"], dparams["b"], dx

    @jax.jit
    def looped(stop: Any, *given: Any) -> Any:
        # as far as XLA knows, a step may be left out: nothing is taken out of the loop, and nothing is copied into it
        start = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), jax.eval_shape(work, *given))
        step = lambda i, last: lax.cond(i < stop, lambda: work(*given), lambda: last)
        return lax.fori_loop(0, CALLS, step, start)

    if loop:
        result = looped(CALLS, params, x, dy)
        return Trial(outcome(*result), lambda: jax.block_until_ready(looped(CALLS, params, x, dy)), CALLS)
    once = jax.jit(work)
    return Trial(outcome(*once(params, x, dy)), lambda: jax.block_until_ready(once(params, x, dy)))


def fdl_conv(case: str, backward: bool, loop: bool, winograd: bool = True) -> Trial:
    import fdl

    convolve = fdl.ops.conv.bind(padding=CASES[case].padding, winograd=winograd)
    return _jax_trial(convolve, case, backward, loop)


def lax_conv(case: str, backward: bool, loop: bool) -> Trial:
    import jax

    def convolve(params: Any, x: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, params["w"], (1, 1), CASES[case].padding, dimension_numbers=numbers)
        return y + params["b"][None, None, None, :]

    return _jax_trial(convolve, case, backward, loop)


def flax_conv(case: str, backward: bool) -> Trial:
    from flax import nnx

    c = CASES[case]
    layer = nnx.Conv(c.inputs, c.outputs, (c.kernel, c.kernel), padding=c.padding, rngs=nnx.Rngs(0))
    graph, _ = nnx.split(layer)

    def convolve(params: Any, x: Any) -> Any:
        return nnx.merge(graph, nnx.State({"kernel": nnx.Param(params["w"]), "bias": nnx.Param(params["b"])}))(x)

    return _jax_trial(convolve, case, backward, loop=False)


def keras_conv(case: str, backward: bool) -> Trial:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    c = CASES[case]
    layer = keras.layers.Conv2D(c.outputs, c.kernel, padding=c.padding.lower())
    layer.build((c.batch, c.size, c.size, c.inputs))

    def convolve(params: Any, x: Any) -> Any:
        return layer.stateless_call([params["w"], params["b"]], [], x)[0]

    return _jax_trial(convolve, case, backward, loop=False)


# ---- PyTorch


def pytorch(case: str, backward: bool, channels_last: bool, threads: int | None) -> Trial:
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    c, a = CASES[case], arrays(case)
    order = torch.channels_last if channels_last else torch.contiguous_format
    tensor = lambda array, axes: torch.from_numpy(np.ascontiguousarray(array.transpose(axes))).contiguous(
        memory_format=order
    )
    x, dy = (tensor(a[name], (0, 3, 1, 2)).requires_grad_(backward and name == "x") for name in ("x", "dy"))
    w = tensor(a["w"], (3, 2, 0, 1)).requires_grad_(backward)
    b = torch.from_numpy(a["b"]).requires_grad_(backward)
    padding = c.pads[0]

    def call() -> Any:
        y = torch.nn.functional.conv2d(x, w, b, padding=padding)
        if not backward:
            return (y,)
        return y, *torch.autograd.grad(y, (w, b, x), dy)

    y, *grads = (t.detach().numpy() for t in call())
    y = y.transpose(0, 2, 3, 1)
    if not backward:
        return Trial(outcome(y), call)
    dw, db, dx = grads
    return Trial(outcome(y, dw.transpose(2, 3, 1, 0), db, dx.transpose(0, 2, 3, 1)), call)


# ---- the comparison


def variants(case: str) -> list[Variant]:
    found = [
        Variant("fdl", fdl_conv, {"loop": True}, "inside a loop", ("fdl",)),
        Variant("fdl", fdl_conv, {"loop": False}, "a call", ("fdl",)),
        Variant("lax autodiff", lax_conv, {"loop": False}, "a call", target=1.0),
        Variant("Flax", flax_conv, requires=("flax",), target=1.0),
        Variant("Keras", keras_conv, requires=("keras",), target=1.0),
    ]
    if CASES[case].inputs >= 32:
        found.insert(1, Variant("fdl", fdl_conv, {"loop": True, "winograd": False}, "inside a loop, no Winograd"))
    if case in SMALL:
        found.append(Variant("lax autodiff in a loop", lax_conv, {"loop": True}, target=1.0))
    for channels_last in (False, True):
        for threads, setting in ((1, "1 thread"), (None, "all threads")):
            layout = "channels last" if channels_last else "NCHW"
            arguments = {"channels_last": channels_last, "threads": threads}
            found.append(Variant("PyTorch", pytorch, arguments, f"{layout}, {setting}", ("torch",), 1.0))
    return found


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for case, c in CASES.items():
        if case not in DEFAULT and not settings.full:
            continue
        for backward in (False, True):
            name = f"{case} {c.text}, {'forward and backward' if backward else 'forward'}"
            arguments = {"case": case, "backward": backward}
            rows += compare(Work(name, "conv", variants(case), numpy_reference, arguments, 2e-5), settings)
    return rows
