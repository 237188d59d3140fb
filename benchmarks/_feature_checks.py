"""The small calls behind the table of features: each returns "", or what the library did instead. features.py says where."""

# pyright: reportMissingImports=false
# (the peers are optional; each is imported where it is called)

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_FEATURES, _INPUTS = 3, 2
_FAR = 1e4  # a mean at which the squares of float32 have no digits left for a deviation of 1e-2
Rows = np.ndarray


def _close(got: Any, want: Any, tolerance: float = 1e-5) -> bool:
    return bool(np.allclose(np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=tolerance, atol=tolerance))


def _expect(true: Any, otherwise: str) -> str:
    return "" if true else otherwise


def _draw(*shape: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ---- backprop by hand


def fdl_every_op_has_a_backward() -> str:
    from fdl import losses, ops
    from fdl.op import Op

    modules = ((ops, set(ops.__all__)), (losses, set(losses.__all__) - {"get"}))
    without = [name for module, names in modules for name in names if not isinstance(getattr(module, name), Op)]
    return _expect(not without, f"no Op: {', '.join(sorted(without))}")


def _fdl_net() -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp

    import fdl

    model = fdl.serial(fdl.dense(3), fdl.tanh(), fdl.dense(1))
    params, state = model.init(jax.random.key(0), (2,))
    return model, fdl.losses.mean_squared_error, params, state, jnp.asarray(_draw(5, 2)), jnp.asarray(_draw(5, 1))


def fdl_gradients_agree() -> str:
    import jax

    from fdl import backprop

    model, loss, *at = _fdl_net()
    by_hand, by_jax = (backprop.value_and_grad(model, loss, gradient=g)(*at)[1] for g in ("manual", "autodiff"))
    return _expect(
        all(map(_close, jax.tree.leaves(by_hand), jax.tree.leaves(by_jax))), "manual and autodiff gradients differ"
    )


def fdl_refuses_forward_mode() -> str:
    import jax

    from fdl import ops

    x = jax.numpy.asarray(_draw(2))
    jax.jvp(ops.gelu.equation, (x,), (x,))
    try:
        jax.jvp(ops.gelu, (x,), (x,))
    except TypeError:
        return ""
    return "fdl.ops.gelu has a forward mode"


def fdl_jits() -> str:
    import jax

    from fdl import backprop

    model, loss, *at = _fdl_net()
    gradients = backprop.value_and_grad(model, loss)
    return _expect(_close(jax.jit(gradients)(*at)[0][0], gradients(*at)[0][0]), "another value under jit")


# ---- recurrent layers


def fdl_masks_sequences() -> str:
    import jax.numpy as jnp

    import fdl

    model = fdl.gru(_FEATURES)
    params, state, x = _fdl_gru("full")
    masked = x.at[:, 2:].set(math.nan)
    mask = jnp.arange(4)[None, :] < jnp.asarray([[2]])
    y = model.apply(params, state, masked, mask=mask)[0]
    return _expect(
        _close(y[:, 1], model.apply(params, state, x)[0][:, 1]) and _close(y[:, 3], y[:, 1]), "a masked step counts"
    )


def fdl_resets_sequences() -> str:
    import jax.numpy as jnp

    from fdl import ops

    params, _, x = _fdl_gru("full")
    resets = jnp.asarray([[False, False, True, False]])
    whole = ops.gru(params, x, resets=resets)[0]
    return _expect(_close(whole[:, 2:], ops.gru(params, x[:, 2:])[0]), "a reset does not begin anew")


def _fdl_gru(variant: str) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp

    import fdl

    params, state = fdl.gru(_FEATURES, variant).init(jax.random.key(0), (4, _INPUTS))
    filled = jax.tree.map(lambda a: jnp.asarray(_draw(*a.shape)), params)
    return filled, state, jnp.asarray(_draw(1, 4, _INPUTS))


def _sigmoid(x: Rows) -> Rows:
    return 1 / (1 + np.exp(-x))


def _is_reset(before: bool, got: Any, x: Rows, h: Rows, gates: tuple, kept: bool) -> str:
    """Is `got` the next state? gates: (w, u, bias of the input, bias of the recurrence) of update, reset and candidate;
    kept: does the update gate say what is kept, or what is new."""
    (wz, uz, bz, cz), (wr, ur, br, cr), (wn, un, bn, cn) = gates
    z, r = _sigmoid(x @ wz + h @ uz + bz + cz), _sigmoid(x @ wr + h @ ur + br + cr)
    n = np.tanh(x @ wn + bn + ((r * h) @ un + cn if before else r * (h @ un + cn)))
    want = z * h + (1 - z) * n if kept else (1 - z) * h + z * n
    return _expect(_close(got, want), f"the reset is not {'before' if before else 'after'} the product")


def _step() -> tuple[Rows, Rows]:
    return _draw(1, _INPUTS, seed=1), _draw(1, _FEATURES, seed=2)


def fdl_gru_before() -> str:
    return _fdl_step("full", True)


def fdl_gru_after() -> str:
    return _fdl_step("reset_after", False)


def _fdl_step(variant: str, before: bool) -> str:
    import jax.numpy as jnp

    from fdl import ops

    params = _fdl_gru(variant)[0]
    x, h = _step()
    got = ops.gru(params, jnp.asarray(x)[:, None], {"h": jnp.asarray(h)}, variant=variant)[0][:, 0]
    w, u, b = (np.asarray(params[name]) for name in ("w", "u", "b"))
    rows = [slice(i * _FEATURES, (i + 1) * _FEATURES) for i in range(3)]
    c = np.concatenate([np.zeros(2 * _FEATURES), np.asarray(params["b_s"])]) if "b_s" in params else np.zeros(9)
    return _is_reset(before, got, x, h, tuple((w[:, k], u[:, k], b[k], c[k]) for k in rows), kept=not before)


def fdl_gru_variants() -> str:
    import fdl
    from fdl import ops

    names = ("type1", "type2", "type3", "mgu", "mgu1", "mgu2", "mgu3", "ligru", "libru", "caru")
    for name in names:
        fdl.gru(_FEATURES, name)
    params, _, x = _fdl_gru("mgu")
    return _expect(np.isfinite(ops.gru(params, x, variant="mgu")[0]).all(), "not finite")


def torch_gru_after() -> str:
    import torch

    cell = torch.nn.GRUCell(_INPUTS, _FEATURES)
    x, h = _step()
    got = cell(torch.tensor(x), torch.tensor(h)).detach().numpy()
    w, u, b, c = (p.detach().numpy() for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh))
    rows = [slice(i * _FEATURES, (i + 1) * _FEATURES) for i in (1, 0, 2)]  # they are kept as r, z, n
    return _is_reset(False, got, x, h, tuple((w[k].T, u[k].T, b[k], c[k]) for k in rows), kept=True)


def equinox_gru_after() -> str:
    import equinox
    import jax

    cell = equinox.nn.GRUCell(_INPUTS, _FEATURES, key=jax.random.key(0))
    x, h = _step()
    rows = [slice(i * _FEATURES, (i + 1) * _FEATURES) for i in (1, 0, 2)]
    w, u, b = (np.asarray(a) for a in (cell.weight_ih, cell.weight_hh, cell.bias))
    c = np.concatenate([np.zeros(2 * _FEATURES), np.asarray(cell.bias_n)])
    return _is_reset(False, cell(x[0], h[0])[None], x, h, tuple((w[k].T, u[k].T, b[k], c[k]) for k in rows), True)


def keras_gru_before() -> str:
    return _keras_step(True)


def keras_gru_after() -> str:
    return _keras_step(False)


def _keras_step(before: bool) -> str:
    import keras

    layer = keras.layers.GRU(_FEATURES, reset_after=not before)
    x, h = _step()
    layer.build((1, 1, _INPUTS))
    layer.set_weights([_draw(*a.shape, seed=i) for i, a in enumerate(layer.get_weights())])
    w, u, b = layer.get_weights()
    b, c = (b, np.zeros_like(b)) if before else b
    got = layer(x[:, None], initial_state=h)
    rows = [slice(i * _FEATURES, (i + 1) * _FEATURES) for i in range(3)]
    return _is_reset(before, got, x, h, tuple((w[:, k], u[:, k], b[k], c[k]) for k in rows), kept=True)


def linen_gru_after() -> str:
    x, h, got, of = _linen("GRUCell")
    gates = tuple((of(f"i{k}")[0], of(f"h{k}")[0], of(f"i{k}")[1], of(f"h{k}")[1]) for k in "zrn")
    return _is_reset(False, got, x, h, gates, kept=True)


def linen_mgu_is_another() -> str:
    """Its candidate is f(x w + b_n + f (h u + c_n)), and f is the share that is kept."""
    x, h, got, of = _linen("MGUCell")
    (wf, bf), (uf, cf), (wn, bn), (un, cn) = of("if"), of("hf"), of("in"), of("hn")
    f = _sigmoid(x @ wf + bf + h @ uf + cf)
    here = (1 - f) * np.tanh(x @ wn + bn + f * (h @ un + cn)) + f * h
    published = f * np.tanh(x @ wn + bn + (f * h) @ un + cn) + (1 - f) * h
    return _expect(_close(got, here) and not _close(got, published), "it is the published unit, or a third")


def _linen(cell: str) -> tuple[Rows, Rows, Any, Callable]:
    import flax.linen
    import jax

    made = getattr(flax.linen, cell)(_FEATURES)
    x, h = _step()
    variables = made.init(jax.random.key(0), h, x)
    variables = jax.tree.map(lambda a: _draw(*a.shape, seed=a.size), variables)

    def of(name: str) -> tuple[Any, Any]:
        part = variables["params"][name]
        return np.asarray(part["kernel"]), np.asarray(part.get("bias", 0.0))

    return x, h, made.apply(variables, h, x)[0], of


# ---- normalization: what a layer keeps as the variance of a batch, when nothing of the past is kept


def _batch() -> Rows:
    return _draw(5, 2)


def _variance_is(got: Any, unbiased: bool) -> str:
    want = _batch().var(axis=0, ddof=int(unbiased))
    return _expect(_close(got, want), f"the running variance is {got}, expected {want}")


def fdl_variances() -> str:
    import jax
    import jax.numpy as jnp

    import fdl

    model, x = fdl.serial(norm=fdl.batch_norm(momentum=0.0)), jnp.asarray(_batch())
    params, state = model.init(jax.random.key(0), (2,))
    running = model.apply(params, state, x, train=True)[1]["norm"]["var"]
    after = fdl.batch_norm.population_statistics(model, params, state, [x])["norm"]
    return _variance_is(running, True) or _variance_is(after["var"], True)


def torch_variance() -> str:
    import torch

    layer = torch.nn.BatchNorm1d(2, momentum=1.0)
    layer(torch.tensor(_batch()))
    return _variance_is(layer.running_var, True)


def keras_variance() -> str:
    import keras

    layer = keras.layers.BatchNormalization(momentum=0.0)
    layer(_batch(), training=True)
    return _variance_is(layer.moving_variance, False)


def linen_variance() -> str:
    import flax.linen
    import jax

    layer = flax.linen.BatchNorm(use_running_average=False, momentum=0.0)
    variables = layer.init(jax.random.key(0), _batch())
    kept = layer.apply(variables, _batch(), mutable=["batch_stats"])[1]
    return _variance_is(kept["batch_stats"]["var"], False)


def equinox_variance() -> str:
    layer, state = _equinox_batch_norm(2, momentum=0.0)
    state = _equinox_apply(layer, state, _batch())[1]
    return _variance_is(state.get(layer.ema_state_index)[1], False)


def _equinox_batch_norm(features: int, **options: Any) -> tuple[Any, Any]:
    import equinox

    return equinox.nn.make_with_state(equinox.nn.BatchNorm)(features, axis_name="n", mode="ema", **options)


def _equinox_apply(layer: Any, state: Any, x: Rows) -> tuple[Any, Any]:
    import jax

    return jax.vmap(layer, axis_name="n", in_axes=(0, None), out_axes=(0, None))(x, state)


def _far() -> Rows:
    return (_FAR + 1e-2 * _draw(256, 1).astype(np.float64)).astype(np.float32)


def _normalized(y: Any, right: bool = True) -> str:
    """A layer without eps to speak of makes the deviation 1."""
    deviation = float(np.asarray(y, np.float64).std())
    return _expect((abs(deviation - 1) < 0.01) == right, f"the output has a deviation of {deviation:.3g}")


def fdl_far_from_zero() -> str:
    import jax
    import jax.numpy as jnp

    import fdl

    model = fdl.batch_norm(eps=1e-12)
    params, state = model.init(jax.random.key(0), (1,))
    return _normalized(model.apply(params, state, jnp.asarray(_far()), train=True)[0])


def torch_far_from_zero() -> str:
    import torch

    return _normalized(torch.nn.BatchNorm1d(1, eps=1e-12)(torch.tensor(_far())).detach())


def keras_far_from_zero() -> str:
    import keras

    return _normalized(keras.layers.BatchNormalization(epsilon=1e-12)(_far(), training=True))


def nnx_far_from_zero() -> str:
    from flax import nnx

    def layer(**options):
        return nnx.BatchNorm(1, epsilon=1e-12, use_running_average=False, rngs=nnx.Rngs(0), **options)

    return _normalized(layer()(_far()), right=False) or _normalized(layer(use_fast_variance=False)(_far()))


def equinox_far_from_zero() -> str:
    layer, state = _equinox_batch_norm(1, eps=1e-12)
    return _normalized(_equinox_apply(layer, state, _far())[0])


def jax_far_from_zero() -> str:
    import jax

    x = jax.numpy.asarray(_far())
    own = jax.nn.standardize(x, axis=0, epsilon=1e-12, variance=x.var(axis=0))
    return _normalized(jax.nn.standardize(x, axis=0, epsilon=1e-12), right=False) or _normalized(own)


def fdl_masks_batch_norm() -> str:
    import jax
    import jax.numpy as jnp

    import fdl

    model, x = fdl.batch_norm(), jnp.asarray(_batch())
    params, state = model.init(jax.random.key(0), (2,))
    mask = jnp.asarray([True, True, True, False, False])
    y = model.apply(params, state, x.at[3:].set(math.nan), train=True, mask=mask)[0]
    return _expect(_close(y[:3], model.apply(params, state, x[:3], train=True)[0]), "what is masked counts")


# ---- losses and penalties


KERAS_LOSSES = """BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy CategoricalFocalCrossentropy
CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CosineSimilarity Dice Hinge Huber KLDivergence LogCosh
MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Poisson
SparseCategoricalCrossentropy SquaredHinge Tversky""".split()
# the same functions; CrossEntropyLoss takes distributions and integer labels
TORCH_LOSSES = (
    "BCELoss CTCLoss CrossEntropyLoss CosineSimilarity HuberLoss KLDivLoss L1Loss MSELoss PoissonNLLLoss".split()
)
OPTAX_LOSSES = """sigmoid_binary_cross_entropy sigmoid_focal_loss ctc_loss softmax_cross_entropy cosine_similarity dice_loss
softmax_cross_entropy_with_integer_labels hinge_loss huber_loss kl_divergence log_cosh squared_error""".split()


def fdl_has_keras_losses() -> str:
    from fdl import losses

    for name in KERAS_LOSSES:
        losses.get(name)
    return ""


def keras_losses() -> str:
    import keras

    classes = {name for name in dir(keras.losses) if inspect.isclass(getattr(keras.losses, name))} - {"Loss"}
    return _expect(classes == set(KERAS_LOSSES), f"other than {len(KERAS_LOSSES)}: {classes ^ set(KERAS_LOSSES)}")


def torch_losses() -> str:
    import torch

    return _are_there(torch.nn, TORCH_LOSSES)


def optax_losses() -> str:
    import optax

    return _are_there(optax.losses, OPTAX_LOSSES)


def _are_there(module: Any, names: Sequence[str]) -> str:
    missing = [name for name in names if not hasattr(module, name)]
    return _expect(not missing, f"no {', '.join(missing)}")


def fdl_proximal_makes_zeros() -> str:
    import jax.numpy as jnp

    import fdl

    got = fdl.regularizers.soft_threshold(jnp.asarray([-2.0, 0.5, 3.0]), 1.0)
    return _expect(_close(got, [-1.0, 0.0, 2.0]) and float(got[1]) == 0.0, f"{got}")


# ---- checking


def _small(x: Any) -> Any:
    return 1e-6 * (x**2).sum()


def _jax_zero() -> Any:
    import jax
    import jax.numpy as jnp

    cost = jax.custom_vjp(_small)
    cost.defvjp(lambda x: (_small(x), x), lambda x, dy: (jnp.zeros_like(x),))
    return cost


def fdl_rejects_zero() -> str:
    import jax.numpy as jnp

    from fdl import check

    verdict = check.gradients(_jax_zero(), jnp.asarray(_draw(64)), reference=_small, modes="quick").verdict
    return _expect(verdict == "wrong", f"the verdict is {verdict}")


def torch_accepts_zero() -> str:
    import torch

    class Zero(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return _small(x)

        @staticmethod
        def backward(ctx, *grads):
            return torch.zeros(64, dtype=torch.float64)

    x = torch.tensor(_draw(64).astype(np.float64), requires_grad=True)
    return _expect(torch.autograd.gradcheck(Zero.apply, (x,), raise_exception=False), "gradcheck rejects it")


def jax_and_chex_accept_zero() -> str:
    import chex
    import jax.numpy as jnp
    from jax.test_util import check_grads

    x = jnp.asarray(_draw(64))
    for name, ask in (
        ("check_grads", functools.partial(check_grads, order=1, modes=["rev"])),
        ("assert_numerical_grads", functools.partial(chex.assert_numerical_grads, order=1, modes=["rev"])),
    ):
        try:
            ask(_jax_zero(), (x,))
        except AssertionError:
            return f"{name} rejects it"
    return ""


def fdl_names_the_term() -> str:
    import jax
    import jax.numpy as jnp

    from fdl import check

    def centred(x):
        return x - x.mean(axis=0)[None, :]

    wrong = jax.custom_vjp(centred)
    wrong.defvjp(lambda x: (centred(x), None), lambda _, dy: (dy,))  # the mean taken for a constant
    report = check.gradients(wrong, jnp.asarray(_draw(5, 3)), reference=centred, modes="quick")
    told = [failure.diagnosis for failure in report.failures if failure.diagnosis]
    return _expect(any("missing path" in words for words in told), f"it says {told[:1]}")


# ---- training and leaving


def _line(w: Any, x: Any) -> Any:
    return (w * x).sum() ** 2


def _per_example(w: Rows, x: Rows) -> Rows:
    return 2 * (x @ w)[:, None] * x


def torch_per_example_gradients() -> str:
    import torch

    w, x = _draw(3), _draw(4, 3, seed=1)
    got = torch.func.vmap(torch.func.grad(_line), (None, 0))(torch.tensor(w), torch.tensor(x))
    return _expect(_close(got, _per_example(w, x)), f"{got}")


def jax_per_example_gradients() -> str:
    import jax

    w, x = _draw(3), _draw(4, 3, seed=1)
    got = jax.vmap(jax.grad(_line), (None, 0))(w, x)
    return _expect(_close(got, _per_example(w, x)), f"{got}")


def torch_trains_two_at_once() -> str:
    import torch

    nets = [torch.nn.Linear(2, 1) for _ in range(2)]
    params, buffers = torch.func.stack_module_state(nets)
    x = torch.tensor(_draw(3, 2))

    def cost(params, buffers):
        return (torch.func.functional_call(nets[0], (params, buffers), (x,)) ** 2).mean()

    grads = torch.func.vmap(torch.func.grad(cost))(params, buffers)
    return _expect(grads["weight"].shape == (2, 1, 2), f"{grads}")


def keras_exports_onnx() -> str:
    import keras

    return _expect("onnx" in (inspect.getdoc(keras.Model.export) or ""), "Model.export says nothing about onnx")
