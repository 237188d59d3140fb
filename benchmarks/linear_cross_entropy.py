"""Cross-entropy over a large vocabulary without its logits: fdl's fused last layer against optax, PyTorch and plain JAX.

Claim: `fdl.losses.linear_cross_entropy` gives the loss and the gradients by x and w in at most a tenth of the temporary
memory of the dense form (the product, then optax's loss), in no more time, and at least 1.7 times faster than PyTorch's
default; and on given logits `fdl.losses.softmax_cross_entropy_with_integer_labels` is as fast as optax's.

Work:
- x [2048, 256], w [256, 32768]: the mean loss, dx and dw; with --full also w [256, 131072];
- logits [4096, 1024]: the mean loss and dlogits.

Peers:
- optax: `softmax_cross_entropy_with_integer_labels(x @ w)` in one jitted `value_and_grad`;
- plain JAX: `jax.nn.log_softmax` and the label's entry of it, likewise;
- token chunks: the other way to be sparing, written here in plain JAX. The logits of some examples at a time, their
  gradients at once in the forward pass: three products instead of four. It only works for a cotangent known beforehand,
  the mean's, where fdl's gives one value per example and takes any cotangent;
- PyTorch eager: `linear` and `cross_entropy`, on 1 thread and on all.

Before anything is timed, loss and gradients must be within 1e-4 of a float64 calculation in NumPy. Temporary memory is
what XLA's memory analysis says of the compiled program (arguments and results not counted); PyTorch has no such figure.
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare, memory_rows, result_of

EXAMPLES, WIDTH = 2048, 256
VOCABULARY, FULL_VOCABULARY = 32768, 131072
LOGITS = (4096, 1024)

# The least ratios of the peers' time to fdl's, and of optax's temporary memory to fdl's.
TARGETS = {"optax": 1.0, "PyTorch": 1.7, "memory": 10.0}
# The prototype of the logits' loss was 3.9 times faster than PyTorch.
LOGITS_TARGETS = {"optax": 1.0, "PyTorch": 3.9}


def problem(vocabulary: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """x [N, D], w [D, V], target [N]; the same in every process. The logits have variance 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, WIDTH)).astype(np.float32)
    w = (rng.normal(size=(WIDTH, vocabulary)) / np.sqrt(WIDTH)).astype(np.float32)
    return x, w, rng.integers(0, vocabulary, EXAMPLES).astype(np.int32)


def logits_problem() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """logits [N, V], target [N]."""
    rng = np.random.default_rng(1)
    return rng.normal(size=LOGITS).astype(np.float32), rng.integers(0, LOGITS[1], LOGITS[0]).astype(np.int32)


def outcome(loss: Any, gradients: Sequence[Any], names: Sequence[str] = ("dx", "dw")) -> dict[str, Any]:
    return {"loss": np.asarray(loss), **{n: np.asarray(g) for n, g in zip(names, gradients, strict=True)}}


def _softmax_error(z: NDArray[np.float64], target: NDArray[np.int32], n: int) -> tuple[float, NDArray[np.float64]]:
    """The sum of the losses and the gradient of the mean over n examples."""
    z -= z.max(axis=1, keepdims=True)
    label = z[np.arange(len(target)), target]
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    z /= total
    z[np.arange(len(target)), target] -= 1
    z /= n
    return float(np.sum(np.log(total[:, 0]) - label)), z


def numpy_reference(vocabulary: int) -> Trial:
    """The textbook in float64, some examples at a time."""
    x, w, target = problem(vocabulary)
    x64, w64 = x.astype(np.float64), w.astype(np.float64)
    loss, dx, dw = 0.0, np.zeros_like(x64), np.zeros_like(w64)
    for i in range(0, EXAMPLES, 256):
        part = slice(i, i + 256)
        value, dz = _softmax_error(x64[part] @ w64, target[part], EXAMPLES)
        loss += value / EXAMPLES
        dx[part] = dz @ w64.T
        dw += x64[part].T @ dz
    return Trial(outcome(loss, (dx.astype(np.float32), dw.astype(np.float32))))


def numpy_logits_reference() -> Trial:
    logits, target = logits_problem()
    loss, dlogits = _softmax_error(logits.astype(np.float64), target, LOGITS[0])
    return Trial(outcome(loss / LOGITS[0], (dlogits,), ("dlogits",)))


# ---- one compiled JAX program each: the mean loss and its gradients


def _fdl(x: Any, w: Any, target: Any) -> Any:
    import fdl

    return fdl.losses.linear_cross_entropy(x, w, target).mean()


def _optax(x: Any, w: Any, target: Any) -> Any:
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(x @ w, target).mean()


def _jax(x: Any, w: Any, target: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return -jnp.take_along_axis(jax.nn.log_softmax(x @ w), target[:, None], axis=1).mean()


def _token_chunks(x: Any, w: Any, target: Any, size: int) -> Any:
    """The mean loss and (dx, dw), the logits of `size` examples at a time."""
    import jax
    import jax.numpy as jnp

    def step(dw: Any, part: Any) -> Any:
        x, target = part
        z = x @ w
        top = z.max(axis=1, keepdims=True)
        lse = top[:, 0] + jnp.log(jnp.exp(z - top).sum(axis=1))
        hit = target[:, None] == jnp.arange(w.shape[1])[None, :]
        dz = (jnp.exp(z - lse[:, None]) - hit) / EXAMPLES
        return dw + x.T @ dz, (lse - jnp.where(hit, z, 0).sum(axis=1), dz @ w.T)

    parts = x.reshape(-1, size, WIDTH), target.reshape(-1, size)
    dw, (losses, dx) = jax.lax.scan(step, jnp.zeros_like(w), parts)
    return losses.mean(), (dx.reshape(x.shape), dw)


FORMS: dict[str, Callable[..., Any]] = {"fdl": _fdl, "optax": _optax, "JAX": _jax}


def _compiled(form: str, vocabulary: int) -> tuple[Any, tuple[Any, ...]]:
    """The compiled program of a form and its arguments."""
    import jax

    arguments = jax.device_put(problem(vocabulary))
    if form.startswith("token chunks"):
        size = int(form.split()[-1])
        function = lambda x, w, target: _token_chunks(x, w, target, size)
    else:
        function = jax.value_and_grad(FORMS[form], argnums=(0, 1))
    return jax.jit(function).lower(*arguments).compile(), arguments


def compiled(vocabulary: int, form: str) -> Trial:
    import jax

    program, arguments = _compiled(form, vocabulary)
    return Trial(outcome(*program(*arguments)), lambda: jax.block_until_ready(program(*arguments)))


def temporary_memory(vocabulary: int, form: str) -> Trial:
    """Its result is a number of bytes."""
    program, _ = _compiled(form, vocabulary)
    return Trial(program.memory_analysis().temp_size_in_bytes)


def compiled_logits(form: str) -> Trial:
    import jax
    import optax

    import fdl

    loss: Callable[..., Any] = {
        "fdl": fdl.losses.softmax_cross_entropy_with_integer_labels,
        "optax": optax.softmax_cross_entropy_with_integer_labels,
    }[form]
    program = jax.jit(jax.value_and_grad(lambda logits, target: loss(logits, target).mean()))
    arguments = jax.device_put(logits_problem())
    value, dlogits = program(*arguments)
    return Trial(outcome(value, (dlogits,), ("dlogits",)), lambda: jax.block_until_ready(program(*arguments)))


# ---- PyTorch


def _torch_trial(threads: int | None, arrays: Sequence[Any], loss: Callable[..., Any], names: Sequence[str]) -> Trial:
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]

    def call() -> Any:
        for leaf in leaves:
            leaf.grad = None
        value = loss(*leaves)
        value.backward()
        return value.detach()

    value = call()
    gradients = [leaf.grad.numpy().copy() for leaf in leaves]  # type: ignore[union-attr]
    return Trial(outcome(value.numpy(), gradients, names), call)


def pytorch(vocabulary: int, threads: int | None) -> Trial:
    import torch
    import torch.nn.functional as F

    x, w, target = problem(vocabulary)
    labels = torch.from_numpy(target.astype(np.int64))
    # torch keeps the weights of a linear layer as [V, D]
    trial = _torch_trial(threads, (x, w.T.copy()), lambda x, w: F.cross_entropy(F.linear(x, w), labels), ("dx", "dw"))
    return Trial({**trial.result, "dw": trial.result["dw"].T.copy()}, trial.call)


def pytorch_logits(threads: int | None) -> Trial:
    import torch
    import torch.nn.functional as F

    logits, target = logits_problem()
    labels = torch.from_numpy(target.astype(np.int64))
    return _torch_trial(threads, (logits,), lambda logits: F.cross_entropy(logits, labels), ("dlogits",))


# ---- the tables


def variants() -> list[Variant]:
    found = [
        Variant("fdl", compiled, {"form": "fdl"}, requires=("fdl",)),
        Variant("optax", compiled, {"form": "optax"}, requires=("optax",), target=TARGETS["optax"]),
        Variant("JAX", compiled, {"form": "JAX"}),
    ]
    found += [Variant("token chunks", compiled, {"form": f"token chunks {n}"}, f"of {n}") for n in (128, 256, 512)]
    return found + [
        Variant("PyTorch", pytorch, {"threads": threads}, setting, ("torch",), TARGETS["PyTorch"])
        for threads, setting in ((1, "1 thread"), (None, "all threads"))
    ]


def logits_variants() -> list[Variant]:
    found = [
        Variant("fdl", compiled_logits, {"form": "fdl"}, requires=("fdl",)),
        Variant("optax", compiled_logits, {"form": "optax"}, requires=("optax",), target=LOGITS_TARGETS["optax"]),
    ]
    return found + [
        Variant("PyTorch", pytorch_logits, {"threads": threads}, setting, ("torch",), LOGITS_TARGETS["PyTorch"])
        for threads, setting in ((1, "1 thread"), (None, "all threads"))
    ]


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for vocabulary in (VOCABULARY, FULL_VOCABULARY) if settings.full else (VOCABULARY,):
        name, arguments = f"linear N{EXAMPLES} D{WIDTH} V{vocabulary}", {"vocabulary": vocabulary}
        rows += compare(Work(name, "call", variants(), numpy_reference, arguments), settings)
        forms = [v.arguments["form"] for v in variants() if "form" in v.arguments]
        used = {form: float(result_of(temporary_memory, {**arguments, "form": form})) for form in forms}
        rows += memory_rows(name, used, {"optax": TARGETS["memory"]})
    rows += compare(
        Work(f"logits {LOGITS[0]}x{LOGITS[1]}", "call", logits_variants(), numpy_logits_reference), settings
    )
    return rows
