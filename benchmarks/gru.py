"""Gated recurrent unit over time, forward and backward: against autodiff of a scan, Keras, Flax, Equinox and PyTorch.

Claim: the hand-written backward through time beats every JAX peer and PyTorch on the CPU, and needs at most 1.5 times
autodiff's memory, or less than it with `keep="states"`.

    python -m benchmarks gru [--full]

Work: batch 32, 128 input features, the unit of cuDNN, PyTorch and Keras (`variant="reset_after"`). Forward: y. Forward and
backward: y and the gradients by x, the weights and the bias for a given dy. 100 steps and 128 features; --full has 100 and 1000
steps with 64, 128 and 256 features.

Peers:
- states: fdl with `keep="states"`, which computes the gates again on the way back;
- autodiff: `jax.vjp` of the textbook step under `lax.scan`, unrolled 1 and 4 times, in one jitted program;
- Keras 3 on JAX: `keras.layers.GRU` through `stateless_call`, jitted;
- Flax: `nnx.RNN(nnx.GRUCell)`, jitted;
- Equinox: `eqx.nn.GRUCell`, vmapped over the batch under `lax.scan`, jitted;
- PyTorch eager: `torch.nn.GRU(batch_first=True)` on 1 thread and on all.

Before anything is timed, y and all gradients must be within 1e-4 of autodiff of the textbook step in float64.
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare, memory_rows, result_of

N, I = 32, 128
GRID = [(steps, features) for steps in (100, 1000) for features in (64, 128, 256)]
# The least ratios of the peers' time to fdl's, forward and backward: (JAX peers, PyTorch).
TARGETS = {64: (1.0, 1.0), 128: (1.7, 1.8), 256: (1.2, 1.1)}


def problem(steps: int, features: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """params in fdl's layout (gates z, r, n), x, dy in float32; the same in every process. The bias inside the reset is 0:
    Flax has none."""
    rng = np.random.default_rng(0)
    params = {
        "w": rng.normal(size=(I, 3 * features)) / np.sqrt(I),
        "u": rng.normal(size=(features, 3 * features)) / np.sqrt(features),
        "b": 0.1 * rng.normal(size=3 * features),
    }
    x, dy = rng.normal(size=(N, steps, I)), rng.normal(size=(N, steps, features))
    return {name: a.astype(np.float32) for name, a in params.items()}, x.astype(np.float32), dy.astype(np.float32)


def _swapped(a: np.ndarray) -> np.ndarray:
    """Gates z, r, n in the order r, z, n, or the other way round."""
    z, r, n = np.split(a, 3, axis=-1)
    return np.concatenate([r, z, n], axis=-1)


def _named(y: Any, grads: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    return {"y": np.asarray(y), **{name: np.asarray(g) for name, g in (grads or {}).items()}}


# ---- JAX: each returns (params as it wants them, apply(params, x) -> y, gradients of its params -> {"w", "u", "b"})


def _fdl(params: dict, features: int, keep: str):
    import jax.numpy as jnp

    import fdl

    run = fdl.ops.gru.bind(variant="reset_after", keep=keep)
    own = {**params, "b_s": np.zeros(features, np.float32)}
    return own, lambda p, x: run(p, x)[0], lambda g: {name: jnp.asarray(g[name]) for name in ("w", "u", "b")}


def _autodiff(params: dict, features: int, unroll: int):
    import jax
    import jax.numpy as jnp

    def apply(p: Any, x: Any) -> Any:
        def step(h: Any, now: Any) -> Any:
            a, s = now @ p["w"] + p["b"], h @ p["u"]
            z = jax.nn.sigmoid(a[:, :features] + s[:, :features])
            r = jax.nn.sigmoid(a[:, features : 2 * features] + s[:, features : 2 * features])
            n = jnp.tanh(a[:, 2 * features :] + r * s[:, 2 * features :])
            h = z * h + (1 - z) * n
            return h, h

        first = jnp.zeros((x.shape[0], features), x.dtype)
        return jnp.swapaxes(jax.lax.scan(step, first, jnp.swapaxes(x, 0, 1), unroll=unroll)[1], 0, 1)

    return params, apply, lambda g: g


def _keras(params: dict, features: int):
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layer = keras.layers.GRU(features, return_sequences=True, reset_after=True)
    layer.build((N, None, I))
    bias = np.stack([params["b"], np.zeros_like(params["b"])])
    layer.set_weights([params["w"], params["u"], bias])
    values = [v.value for v in layer.trainable_variables]
    rest = [v.value for v in layer.non_trainable_variables]
    return values, lambda p, x: layer.stateless_call(p, rest, x)[0], lambda g: {"w": g[0], "u": g[1], "b": g[2][0]}


def _flax(params: dict, features: int):
    import jax.numpy as jnp
    from flax import nnx

    rnn = nnx.RNN(nnx.GRUCell(I, features, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(rnn)
    values = nnx.to_pure_dict(state)
    values["cell"]["dense_i"] = {"kernel": _swapped(params["w"]), "bias": _swapped(params["b"])}
    values["cell"]["dense_h"] = {"kernel": _swapped(params["u"])}
    nnx.replace_by_pure_dict(state, values)
    kernels, rest = nnx.split_state(state, nnx.Param, ...)

    def back(g: Any) -> dict[str, np.ndarray]:
        found = nnx.to_pure_dict(g)["cell"]
        arrays = {"w": found["dense_i"]["kernel"], "u": found["dense_h"]["kernel"], "b": found["dense_i"]["bias"]}
        return {name: _swapped(np.asarray(a)) for name, a in arrays.items()}

    def apply(p: Any, x: Any) -> Any:
        # without a first state it would draw from a stream of another trace
        return nnx.merge(graph, p, rest)(x, initial_carry=jnp.zeros((x.shape[0], features), x.dtype))

    return kernels, apply, back


def _equinox(params: dict, features: int):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    cell = eqx.nn.GRUCell(I, features, key=jax.random.key(0))
    own = (_swapped(params["w"]).T, _swapped(params["u"]).T, _swapped(params["b"]), np.zeros(features, np.float32))
    cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias, c.bias_n), cell, own)
    arrays, static = eqx.partition(cell, eqx.is_inexact_array_like)

    def apply(p: Any, x: Any) -> Any:
        step = jax.vmap(eqx.combine(p, static))

        def over(h: Any, now: Any) -> Any:
            h = step(now, h)
            return h, h

        first = jnp.zeros((x.shape[0], features), x.dtype)
        return jnp.swapaxes(jax.lax.scan(over, first, jnp.swapaxes(x, 0, 1))[1], 0, 1)

    def back(g: Any) -> dict[str, np.ndarray]:
        arrays = {"w": g.weight_ih.T, "u": g.weight_hh.T, "b": g.bias}
        return {name: _swapped(np.asarray(a)) for name, a in arrays.items()}

    return arrays, apply, back


_FORMS: dict[str, Callable[..., Any]] = {
    "fdl": functools.partial(_fdl, keep="gates"),
    "states": functools.partial(_fdl, keep="states"),
    "autodiff": functools.partial(_autodiff, unroll=1),
    "autodiff 4": functools.partial(_autodiff, unroll=4),
    "Keras": _keras,
    "Flax": _flax,
    "Equinox": _equinox,
}


def _compiled(steps: int, features: int, form: str, train: bool) -> tuple[Any, tuple, Callable]:
    import jax

    params, x, dy = problem(steps, features)
    own, apply, back = _FORMS[form](params, features)

    def forward(p: Any, x: Any, dy: Any) -> Any:
        return apply(p, x)

    def both(p: Any, x: Any, dy: Any) -> Any:
        y, pull = jax.vjp(apply, p, x)
        return (y, *pull(dy))

    arguments = jax.device_put((own, x, dy))
    return jax.jit(both if train else forward).lower(*arguments).compile(), arguments, back


def compiled(steps: int, features: int, form: str, train: bool) -> Trial:
    import jax

    program, arguments, back = _compiled(steps, features, form, train)
    out = program(*arguments)
    result = _named(out[0], {**back(out[1]), "x": out[2]}) if train else _named(out)
    return Trial(result, lambda: jax.block_until_ready(program(*arguments)))


def temporary_memory(steps: int, features: int, form: str) -> Trial:
    """Its result is a number of bytes."""
    return Trial(_compiled(steps, features, form, True)[0].memory_analysis().temp_size_in_bytes)


def reference(steps: int, features: int, train: bool) -> Trial:
    import jax

    jax.config.update("jax_enable_x64", True)
    params, x, dy = jax.tree.map(lambda a: a.astype(np.float64), problem(steps, features))
    _, apply, _ = _autodiff(params, features, unroll=1)
    y, pull = jax.vjp(jax.jit(apply), params, x)
    if not train:
        return Trial(_named(y))
    grads, dx = pull(dy)
    return Trial(_named(y, {**grads, "x": dx}))


# ---- PyTorch


def pytorch(steps: int, features: int, train: bool, threads: int | None) -> Trial:
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    params, x, dy = problem(steps, features)
    unit = torch.nn.GRU(I, features, batch_first=True)
    b, nothing = _swapped(params["b"]), np.zeros(3 * features, np.float32)
    with torch.no_grad():
        for name, value in (
            ("weight_ih_l0", _swapped(params["w"]).T),
            ("weight_hh_l0", _swapped(params["u"]).T),
            ("bias_ih_l0", b),
            ("bias_hh_l0", nothing),
        ):
            getattr(unit, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
    x, dy = torch.from_numpy(x).requires_grad_(train), torch.from_numpy(dy)

    def forward() -> Any:
        with torch.no_grad():
            return unit(x)[0]

    def both() -> Any:
        unit.zero_grad()
        x.grad = None
        y, _ = unit(x)
        y.backward(dy)
        return y.detach()

    if not train:
        return Trial(_named(forward()), forward)
    y = both().clone()
    of = lambda name: _swapped(np.array(getattr(unit, name).grad).T).copy()
    grads = {"w": of("weight_ih_l0"), "u": of("weight_hh_l0"), "b": of("bias_ih_l0"), "x": x.grad.clone()}
    return Trial(_named(y, grads), both)


# ---- the tables


def variants(features: int, train: bool) -> list[Variant]:
    jax_peers, torch = TARGETS[features] if train else (1.0, 1.0)
    own = [Variant("fdl", compiled, {"form": "fdl"}, requires=("fdl",))]
    if train:
        own.append(Variant("fdl, states", compiled, {"form": "states"}, requires=("fdl",)))
    return [
        *own,
        Variant("autodiff", compiled, {"form": "autodiff"}, "unroll 1", target=jax_peers),
        Variant("autodiff", compiled, {"form": "autodiff 4"}, "unroll 4", target=jax_peers),
        Variant("Keras", compiled, {"form": "Keras"}, requires=("keras",), target=jax_peers),
        Variant("Flax", compiled, {"form": "Flax"}, requires=("flax",), target=jax_peers),
        Variant("Equinox", compiled, {"form": "Equinox"}, requires=("equinox",), target=jax_peers),
        Variant("PyTorch", pytorch, {"threads": 1}, "1 thread", ("torch",), torch),
        Variant("PyTorch", pytorch, {"threads": None}, "all threads", ("torch",), torch),
    ]


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for steps, features in GRID if settings.full else [(100, 128)]:
        shape = {"steps": steps, "features": features}
        for train in (False, True):
            name = f"gru T {steps} D {features}, {'forward and backward' if train else 'forward'}"
            work = Work(name, "call", variants(features, train), reference, {**shape, "train": train})
            rows += compare(work, settings)
        forms = ("fdl", "states", "autodiff")
        used = {form: float(result_of(temporary_memory, {**shape, "form": form})) for form in forms}
        rows += memory_rows(f"gru T {steps} D {features}", used)
    return rows
