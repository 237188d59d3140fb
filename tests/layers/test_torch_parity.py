"""Convolution, pooling and normalization on the same weights as PyTorch: values and every gradient, and the conventions that differ."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fdl[bench]"')
F = torch.nn.functional


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def channels_first(x: Any) -> Any:
    return torch.moveaxis(x, -1, 1)


def close(got: Any, want: Any, rtol: float = 1e-12) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        b = np.asarray(b)
        np.testing.assert_allclose(np.asarray(a), b, rtol=0, atol=rtol * max(1, np.abs(b).max()))


def agree(ours: Any, theirs: Any, *args: np.ndarray) -> None:
    """Two functions of the same arrays, x last and channels last: y, and the gradient of each array."""
    y, pull = jax.vjp(ours, *map(jnp.asarray, args))
    (dy,) = arrays(y.shape, seed=1)
    leaves = [torch.tensor(a, requires_grad=True) for a in args]
    out = torch.moveaxis(theirs(*leaves[:-1], channels_first(leaves[-1])), 1, -1)
    grads = torch.autograd.grad(out, leaves, torch.tensor(dy))
    close((y, *pull(jnp.asarray(dy))), [t.detach().numpy() for t in (out, *grads)])


CONVOLUTIONS = [
    ((2, 9, 4), (3, 4, 6), {"stride": 2, "padding": 1}),
    ((2, 9, 4), (2, 2, 6), {"dilation": 3, "groups": 2}),
    ((2, 8, 7, 3), (3, 4, 3, 5), {"stride": (2, 1), "padding": (1, 2)}),
    ((2, 8, 7, 3), (4, 3, 3, 5), {"padding": "same"}),  # of an even kernel the extra cell comes after, in both
    ((2, 8, 7, 3), (3, 3, 1, 6), {"groups": 3, "stride": 3}),
    ((1, 4, 5, 6, 2), (2, 3, 2, 2, 3), {"stride": (1, 2, 2), "padding": 1, "dilation": (1, 1, 2)}),
]


def options_of(theirs: dict[str, Any], rank: int) -> dict[str, Any]:
    ours = {{"stride": "strides"}.get(name, name): value for name, value in theirs.items()}
    padding = ours.setdefault("padding", "VALID")
    pairs = tuple((n, n) for n in padding) if isinstance(padding, tuple) else padding
    return {**ours, "padding": "SAME" if padding == "same" else pairs}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of an even kernel: a copy
@pytest.mark.parametrize(("x", "w", "options"), CONVOLUTIONS)
def test_convolution(x, w, options):
    rank = len(x) - 2
    theirs = getattr(F, f"conv{rank}d")
    agree(
        lambda w, b, x: fdl.ops.conv({"w": w, "b": b}, x, **options_of(options, rank)),
        lambda w, b, x: theirs(x, torch.moveaxis(w, (-1, -2), (0, 1)), b, **options),
        *arrays(w, w[-1:], x),
    )


def test_same_with_strides_is_not_the_padding_that_pytorch_users_write():
    x, w = arrays((1, 8, 8, 2), (3, 3, 2, 4))
    theirs = F.conv2d(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(w).permute(3, 2, 0, 1), stride=2, padding=1)
    with pytest.raises(RuntimeError, match="same"):
        F.conv2d(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(w).permute(3, 2, 0, 1), stride=2, padding="same")
    of = lambda padding: np.asarray(fdl.ops.conv({"w": jnp.asarray(w)}, jnp.asarray(x), strides=2, padding=padding))
    close(of(1), theirs.permute(0, 2, 3, 1).numpy())
    assert of("SAME").shape == of(1).shape and np.abs(of("SAME") - of(1)).max() > 0.1
    # on an even input "SAME" pads after, not before: PyTorch's answer for the input moved by one
    close(of("SAME"), of(((0, 1), (0, 1))))


TRANSPOSED = [
    ((2, 5, 4), (3, 4, 6), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 4, 5, 4), (3, 2, 2, 6), {"stride": (2, 3), "groups": 2}),
    ((2, 4, 3, 2), (2, 3, 2, 3), {"stride": 2, "padding": (0, 1), "dilation": 2}),
    ((1, 2, 3, 2, 2), (2, 2, 1, 2, 3), {"stride": 2}),
]


@pytest.mark.parametrize(("x", "w", "options"), TRANSPOSED)
def test_transposed_convolution(x, w, options):
    rank, groups = len(x) - 2, options.get("groups", 1)
    each = lambda name, default: np.broadcast_to(options.get(name, default), rank)
    pairs = tuple(
        (int(p), int(p - more)) for p, more in zip(each("padding", 0), each("output_padding", 0), strict=True)
    )
    ours = {"strides": options["stride"], "dilation": options.get("dilation", 1), "groups": groups, "padding": pairs}

    def theirs(w, b, x):
        """w [*K, I/G, O] as [I, O/G, *K]."""
        kernel = torch.cat(torch.chunk(torch.moveaxis(w, (-2, -1), (0, 1)), groups, dim=1), dim=0)
        return getattr(F, f"conv_transpose{rank}d")(x, kernel, b, **options)

    agree(lambda w, b, x: fdl.ops.conv_transpose({"w": w, "b": b}, x, **ours), theirs, *arrays(w, w[-1:], x))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools(rank):
    (x,) = arrays((2, 7, 6, 5)[: rank + 1] + (3,))
    ours = {"window": 3, "strides": 2, "padding": 1}
    agree(lambda x: fdl.ops.max_pool(x, **ours), lambda x: getattr(F, f"max_pool{rank}d")(x, 3, 2, 1), x)
    theirs = getattr(F, f"avg_pool{rank}d")
    for counts in (True, False):  # theirs by default
        agree(
            lambda x, c=counts: fdl.ops.avg_pool(x, count_padding=c, **ours),
            lambda x, c=counts: theirs(x, 3, 2, 1, count_include_pad=c),
            x,
        )
    for name in ("avg", "max"):
        theirs = getattr(F, f"adaptive_{name}_pool{rank}d")
        agree(
            lambda x, name=name: getattr(fdl.ops, f"global_{name}_pool")(x)[(slice(None), *(None,) * rank)],
            lambda x, theirs=theirs: theirs(x, 1),
            x,
        )


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (3, 4, 2, 3)])
def test_batch_norm_in_training_and_in_use(shape):
    x, scale, shift, mean, var = arrays(shape, (3,), (3,), (3,), (3,))
    agree(
        lambda a, b, x: fdl.ops.batch_norm({"scale": a, "shift": b}, x)[0],
        lambda a, b, x: F.batch_norm(x, None, None, a, b, training=True),
        *(scale, shift, x),
    )
    in_use = fdl.ops.batch_norm_inference
    agree(
        lambda a, b, x: in_use({"scale": a, "shift": b}, x, jnp.asarray(mean), jnp.asarray(np.exp(var))),
        lambda a, b, x: F.batch_norm(x, torch.tensor(mean), torch.tensor(np.exp(var)), a, b),
        *(scale, shift, x),
    )


def test_running_statistics():
    """Their momentum is our `update`; both variances are unbiased; theirs begin at 0 and 1 and keep a share of that, ours are debiased."""
    theirs = torch.nn.BatchNorm1d(3, momentum=0.1, dtype=torch.float64)
    cumulative = torch.nn.BatchNorm1d(3, momentum=None, dtype=torch.float64)
    layer = fdl.batch_norm(update=0.1)
    params, state = layer.init(jax.random.key(0), (3,), jnp.float64)
    start, batches = state, [2 + 3 * x for x in arrays(*[(5, 3)] * 4)]
    for x in batches:
        for other in (theirs, cumulative):
            other(torch.tensor(x))
        _, state = layer.apply(params, state, jnp.asarray(x), train=True)
    close(state["mean"], theirs.running_mean.numpy())
    close(state["var"] + 0.9**4, theirs.running_var.numpy())
    close(state["weight"], 1 - 0.9**4)
    # without a momentum they average over all batches, as the pass after training does
    model = fdl.serial(layer)
    found = fdl.batch_norm.population_statistics(
        model, {"batch_norm_0": params}, {"batch_norm_0": start}, [jnp.asarray(x) for x in batches]
    )
    close(found["batch_norm_0"]["mean"], cumulative.running_mean.numpy())
    close(found["batch_norm_0"]["var"], cumulative.running_var.numpy())
    cumulative.eval()
    y, _ = model.apply({"batch_norm_0": params}, found, jnp.asarray(batches[0]))
    close(y, cumulative(torch.tensor(batches[0])).detach().numpy())


def test_normalizations_within_an_example():
    x, scale, shift = arrays((3, 4, 5, 6), (6,), (6,))
    params = lambda a, b: {"scale": a, "shift": b}
    last = lambda x: torch.moveaxis(x, 1, -1)
    agree(
        lambda a, b, x: fdl.ops.layer_norm(params(a, b), x, eps=1e-3),
        lambda a, b, x: channels_first(F.layer_norm(last(x), (6,), a, b, eps=1e-3)),
        *(scale, shift, x),
    )
    agree(
        lambda a, b, x: fdl.ops.layer_norm(params(a, b), x, dims=2),
        lambda a, b, x: channels_first(F.layer_norm(last(x), (5, 6), a, b)),
        *arrays((5, 6), (5, 6), (3, 4, 5, 6)),
    )
    agree(
        lambda a, x: fdl.ops.rms_norm({"scale": a}, x, eps=1e-3),
        lambda a, x: channels_first(F.rms_norm(last(x), (6,), a, eps=1e-3)),
        *(scale, x),
    )
    for groups in (1, 2, 6):
        agree(
            lambda a, b, x, groups=groups: fdl.ops.group_norm(params(a, b), x, groups=groups),
            lambda a, b, x, groups=groups: F.group_norm(x, groups, a, b),
            *(scale, shift, x),
        )
    agree(
        lambda a, b, x: fdl.ops.instance_norm(params(a, b), x),
        lambda a, b, x: F.instance_norm(x, weight=a, bias=b),
        *(scale, shift, x),
    )


def test_the_comparison_sees_a_wrong_gradient():
    (x,) = arrays((2, 7, 3))
    with pytest.raises(AssertionError):
        agree(
            lambda x: fdl.ops.avg_pool(x, window=3, strides=2, padding=1),
            lambda x: F.avg_pool1d(x, 3, 2, 1),  # counts padding
            x,
        )
