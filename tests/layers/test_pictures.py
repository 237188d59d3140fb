"""What moves pictures at random: each result is one of the moves, each move occurs, the layers are proven, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError

PICTURE = 1 + np.arange(5 * 4 * 2, dtype=np.float32).reshape(5, 4, 2)
MANY = jnp.asarray(np.repeat(PICTURE[None], 400, axis=0))


def moved(picture, a, b, size):
    """By numpy, entry by entry."""
    y = np.zeros((*size, picture.shape[2]), picture.dtype)
    for h in range(size[0]):
        for w in range(size[1]):
            if 0 <= h + a < picture.shape[0] and 0 <= w + b < picture.shape[1]:
                y[h, w] = picture[h + a, w + b]
    return y


def counts(got, moves):
    """How often each of the moves is among what came out; everything has to be one of them."""
    found = [int((np.asarray(got) == move).all(axis=(1, 2, 3)).sum()) for move in moves]
    assert sum(found) == len(got)
    return found


def evenly(found):
    mean = sum(found) / len(found)
    assert all(abs(n - mean) < 5 * mean**0.5 for n in found), found


def test_a_picture_is_flipped_or_not():
    evenly(counts(fdl.ops.random_flip(MANY, jax.random.key(0)), [PICTURE, PICTURE[:, ::-1]]))
    assert counts(fdl.ops.random_flip(MANY, jax.random.key(0), rate=1.0), [PICTURE[:, ::-1]]) == [400]


def test_every_shift_occurs_alike():
    moves = [moved(PICTURE, a, b, (5, 4)) for a in (-2, -1, 0, 1, 2) for b in (-1, 0, 1)]
    evenly(counts(fdl.ops.random_shift(MANY, jax.random.key(1), pixels=(2, 1)), moves))
    assert counts(fdl.ops.random_shift(MANY, jax.random.key(1), pixels=0), [PICTURE]) == [400]


@pytest.mark.parametrize(("size", "padding"), [((3, 2), 0), ((4, 5), (0, 1)), ((7, 4), 1)])
def test_every_crop_occurs_alike(size, padding):
    high, wide = (padding, padding) if isinstance(padding, int) else padding
    places = [(a, b) for a in range(-high, 6 + high - size[0]) for b in range(-wide, 5 + wide - size[1])]
    moves = [moved(PICTURE, *place, size) for place in places]
    evenly(counts(fdl.ops.random_crop(MANY, jax.random.key(2), size=size, padding=padding), moves))


@pytest.mark.parametrize("size", [(3, 2), (4, 1), (5, 4), (7, 7)])
def test_the_crop_in_the_middle(size):
    want = moved(PICTURE, (5 - size[0]) // 2, (4 - size[1]) // 2, size)
    np.testing.assert_array_equal(fdl.ops.center_crop(MANY[:1], size=size)[0], want)


def test_what_is_cut_off_leaves_no_trace():
    x = MANY[:50].at[:, 0, 0].set(jnp.nan)
    y, pull = jax.vjp(lambda x: fdl.ops.random_crop(x, jax.random.key(0), size=(3, 3)), x)
    dx = pull(jnp.ones_like(y))[0]
    assert bool(jnp.isfinite(dx).all()) and 0 < int(jnp.isnan(y).any(axis=(1, 2, 3)).sum()) < 50


LAYERS = {
    "random_flip": fdl.random_flip(),
    "random_shift": fdl.random_shift(2),
    "random_crop": fdl.random_crop((4, 3), padding=1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_are_proven_and_do_not_draw_in_use(name):
    layer, x = LAYERS[name], MANY[:6]
    assert layer.stochastic
    used, _ = layer.apply({}, {}, x)
    np.testing.assert_array_equal(used, x[:, :4, :3] if name == "random_crop" else x)
    for train in (True, False):
        report = fdl.check.layer(layer, x, train=train)
        assert report.ok, str(report)
    with pytest.raises(InputError, match="draws at random in training"):
        layer.apply({}, {}, x, train=True)


def test_in_a_model_pictures_differ_from_step_to_step_and_twice_the_same_key_is_the_same():
    model = fdl.serial(fdl.random_shift(1), fdl.random_flip(), fdl.flatten())
    run = lambda seed: np.asarray(model.apply({}, {}, MANY[:8], train=True, key=jax.random.key(seed))[0])
    np.testing.assert_array_equal(run(0), run(0))
    assert (run(0) != run(1)).any()
    wide, _ = model.apply({}, {}, MANY[:8].astype(jnp.float64), train=True, key=jax.random.key(0))
    np.testing.assert_array_equal(wide, run(0))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fdl.random_crop(3).init(jax.random.key(0), (2, 4, 1)), InputError, r"size is \[3, 3\].*are \[2, 4\]"),
        (lambda: fdl.random_crop(0), InputError, "wanted at least 1"),
        (lambda: fdl.random_crop((3, 3), padding=-1), InputError, "wanted at least 0"),
        (lambda: fdl.random_crop("a"), InputTypeError, "size is str 'a'"),
        (lambda: fdl.random_shift(1.5), InputTypeError, "pixels is float 1.5"),
        (lambda: fdl.random_shift((1, True)), InputTypeError, "wanted whole numbers"),
        (lambda: fdl.random_flip(1.5), InputError, "rate is 1.5"),
        (lambda: fdl.ops.random_flip(MANY[0], jax.random.key(0)), InputError, r"wanted pictures \[N, H, W, C\]"),
        (lambda: fdl.ops.center_crop(MANY.astype(jnp.int32), size=2), InputTypeError, "floating"),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
