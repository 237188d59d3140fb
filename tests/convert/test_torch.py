"""Recurrent layers on the weights of torch.nn.GRU, LSTM and RNN: outputs, last states and every gradient, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.convert._recurrent import _CONTAINERS
from tests.convert.cells import D, I, N, T, close, drawn
from tests.convert.peers import STATES, convert

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fdl[bench]"')

LAYERS = {
    "gru": (torch.nn.GRU, lambda: fdl.gru(D, "reset_after", stateful=N)),
    "lstm": (torch.nn.LSTM, lambda: fdl.lstm(D, stateful=N)),
    "rnn": (torch.nn.RNN, lambda: fdl.rnn(D, stateful=N)),
}
CELLS = {"gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell, "rnn": torch.nn.RNNCell}


def numpy_of(tree: Any) -> Any:
    return jax.tree.map(lambda t: t.detach().numpy(), tree)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize(("layers", "directions", "bias"), [(1, 1, True), (2, 2, True), (2, 1, False)])
def test_outputs_and_gradients(cell, layers, directions, bias):
    make, layer = LAYERS[cell]
    theirs = make(I, D, layers, bias=bias, bidirectional=directions == 2, batch_first=True, dtype=torch.float64)
    start = drawn([(layers * directions, N, D)] * len(STATES[cell]), 1)
    x, dy, *dfinal = drawn([(N, T, I), (N, T, D * directions), *[(layers * directions, N, D)] * len(start)], 2)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *start)]
    states = tuple(leaves[1:])
    y, final = theirs(leaves[0], states if cell == "lstm" else states[0])
    outs = [y, *(final if cell == "lstm" else [final])]
    weights = dict(theirs.named_parameters())
    grads = torch.autograd.grad(outs, [*leaves, *weights.values()], [torch.tensor(a) for a in (dy, *dfinal)])
    want_others, want = numpy_of(grads[: len(leaves)]), dict(zip(weights, numpy_of(grads[len(leaves) :]), strict=True))

    def nested(arrays):
        """[layers * directions, N, D] of each name as the state of the model."""
        each = iter([dict(zip(STATES[cell], values, strict=True)) for values in zip(*arrays, strict=True)])
        names = ("forward", "backward")[:directions]
        return _CONTAINERS["fdl"].held(cell, [{d: next(each) for d in names} for _ in range(layers)])

    model = layer() if directions == 1 else fdl.bidirectional(layer())
    model = model if layers == 1 else fdl.serial(*[model] * layers)
    params = convert(cell, theirs.state_dict())
    as_jax = lambda tree: jax.tree.map(jnp.asarray, tree)
    apply = lambda params, x, state: model.apply(params, state, x, train=True)
    out, pull = jax.vjp(apply, *as_jax((params, x, nested(start))))
    dparams, *others = jax.tree.map(np.asarray, pull(as_jax((dy, nested(dfinal)))))
    close(out, (numpy_of(y), nested(numpy_of(outs[1:]))))
    close(others, [want_others[0], nested(want_others[1:])])
    close(convert(cell, dparams, "fdl", "torch", gradients=True, bias=bias), want)
    if bias:
        close(convert(cell, want, gradients=True), dparams)

    back = convert(cell, params, "fdl", "torch", bias=bias)
    theirs.load_state_dict({name: torch.tensor(w) for name, w in back.items()})
    close(numpy_of(theirs(leaves[0], states if cell == "lstm" else states[0])[0]), numpy_of(y))


@pytest.mark.parametrize("cell", CELLS)
def test_the_names_of_a_cell(cell):
    theirs = CELLS[cell](I, D, dtype=torch.float64)
    (x,) = map(torch.tensor, drawn([(N, I)]))
    h = theirs(x)
    params = jax.tree.map(jnp.asarray, convert(cell, theirs.state_dict(), "torch_cell"))
    options = {"variant": "reset_after"} if cell == "gru" else {}
    y, _ = getattr(fdl.ops, cell)(params, jnp.asarray(x.numpy())[:, None], **options)
    close(y[:, 0], (h[0] if cell == "lstm" else h).detach().numpy())
    theirs.load_state_dict({name: torch.tensor(w) for name, w in convert(cell, params, "fdl", "torch_cell").items()})


def test_layers_without_a_state_of_their_own():
    x = drawn((2, 6, 5, 4))
    image = torch.moveaxis(torch.tensor(x), -1, 1)
    cases = [
        ("dense", torch.nn.Linear(4, 3), fdl.ops.dense, lambda m: m(torch.tensor(x))),
        ("conv", torch.nn.Conv2d(4, 6, (3, 2), groups=2), conv, lambda m: torch.moveaxis(m(image), 1, -1)),
        ("layer_norm", torch.nn.LayerNorm((5, 4)), layer_norm, lambda m: m(torch.tensor(x))),
        ("group_norm", torch.nn.GroupNorm(2, 4), group_norm, lambda m: torch.moveaxis(m(image), 1, -1)),
        ("rms_norm", torch.nn.RMSNorm(4, eps=1e-6), fdl.ops.rms_norm, lambda m: m(torch.tensor(x))),
    ]
    for name, module, op, theirs in cases:
        module = module.double()
        shapes = {key: tuple(w.shape) for key, w in module.state_dict().items()}
        weights = {key: torch.tensor(w) for key, w in drawn(shapes).items()}
        module.load_state_dict(weights)
        params = jax.tree.map(jnp.asarray, getattr(fdl.convert, name)(module.state_dict()))
        close(op(params, jnp.asarray(x)), theirs(module).detach().numpy())
        module.load_state_dict(
            {k: torch.tensor(w) for k, w in getattr(fdl.convert, name)(params, "fdl", "torch").items()}
        )


def conv(params, x):
    return fdl.ops.conv(params, x, padding="VALID", groups=2)


def layer_norm(params, x):
    return fdl.ops.layer_norm(params, x, dims=2)


def group_norm(params, x):
    return fdl.ops.group_norm(params, x, groups=2)


def test_embedding_and_batch_norm():
    table = torch.nn.Embedding(7, 3)
    tokens = np.asarray([[0, 6, 2]], np.int32)
    ours = jax.tree.map(jnp.asarray, fdl.convert.embedding(table.state_dict()))
    close(fdl.ops.embedding(ours, jnp.asarray(tokens)), table(torch.tensor(tokens)).detach().numpy())
    norm, x = torch.nn.BatchNorm1d(3, dtype=torch.float64), drawn((5, 3), 1)
    norm(torch.tensor(3 + 2 * x))
    found = jax.tree.map(jnp.asarray, fdl.convert.batch_norm(norm.state_dict()))
    norm.eval()
    want = norm(torch.tensor(x)).detach().numpy()
    close(fdl.batch_norm().apply(found["params"], found["state"], jnp.asarray(x))[0], want)
    again = torch.nn.BatchNorm1d(3, dtype=torch.float64).eval()
    again.load_state_dict({name: torch.tensor(w) for name, w in fdl.convert.batch_norm(found, "fdl", "torch").items()})
    close(again(torch.tensor(x)).detach().numpy(), want)
