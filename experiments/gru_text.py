"""A gated recurrent unit learns to write, one character after the other.

Question: does a character model with one gated recurrent layer, trained by hand-written backpropagation through time, predict a text
better than tables of counts do, in minutes on two cores?

Command: python -m experiments gru_text

Expected: on the last tenth of the text fewer bits per character than unigrams and than trigrams with Kneser-Ney smoothing, trained on
the same characters. On tiny Shakespeare (--data-dir) at most 2.3 bits per character after less than 5 minutes of training.

The network: a row of a table for every character goes straight into the gates (the product of a one-hot vector and a matrix),
384 units, dropout, a dense layer. The first nine tenths of the text are cut into 32 streams that are read side by side, 64
characters at a time. The state goes on from window to window, the error does not: truncated backpropagation through time. Adam, its
rate falling along a cosine, gradients clipped to length 1; an epoch is one compiled scan. The text is fdl's own source; with
--data-dir, the folder that holds tinyshakespeare/, it is that. With --full the layer has 512 units and 16 epochs.

Bits per character are measured on the rest, read in 16 streams that begin with an empty state: every character is predicted from
those before it. It is not trained on, but rate, dropout and size were chosen by it, on tiny Shakespeare, in eight tries. Sources: Werbos
1990; Williams & Peng 1990 (truncation); Karpathy 2015 (char-rnn, the text); Kneser & Ney 1995 (the tables of counts, in _ngrams.py).
"""

import functools
import math
import textwrap
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from experiments import Evidence, Figure, Settings, Table, _ngrams, claim, largest, not_run, relative_difference
from experiments._evidence import Claim, Comparison
from experiments._style import BLUE, GREY, INK, ORANGE, VERMILION, WIDE, figure, picture
from fdl.data.text import Text

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
STREAMS, WINDOW, HELD_STREAMS = 32, 64, 16
UNITS, EPOCHS, RATE, DROPOUT = 384, 8, 6e-3, 0.4
OWN_EPOCHS = 6  # of fdl's source: half as long, and overfitted sooner
ORDERS = (1, 2, 3, 4, 5)
TEMPERATURE = 0.7
SOURCE = "Kneser & Ney 1995, and the text itself"


class Trained(NamedTuple):
    """A trained model and how it got there; seconds and bits have an entry per epoch, the first before training."""

    model: fdl.Layer
    params: Any
    seconds: list[float]
    bits: list[float]


def network(vocabulary: int, units: int) -> fdl.Layer:
    """The table has the width of the gates, so that the recurrent layer needs no product of its own for its input."""
    return fdl.serial(
        table=fdl.embedding(vocabulary, 3 * units, w_init=jax.nn.initializers.normal(0.2)),
        recurrence=fdl.gru(units, stateful=STREAMS),
        dropout=fdl.dropout(DROPOUT),
        output=fdl.dense(vocabulary),
    )


def run(settings: Settings) -> Iterator[Evidence]:
    text, name, real = text_of(settings)
    train, held = text.split()
    yield f"{name}: {len(text):,} characters, {len(text.vocabulary)} different ones"
    yield claim(
        "backpropagation through time by hand equals jax.grad of the equations, with the state of the window before",
        agreement(train, settings.seed),
        "<",
        1e-12,
        quantity="largest relative difference over the leaves, float64",
        source="chain rule; the derivations in fdl/layers/gru/gated.py and fdl/layers/embedding.py",
    )
    table = {n: _ngrams.bits(train.ids, held.ids, len(text.vocabulary), n) for n in ORDERS}
    units, epochs = (UNITS, EPOCHS if real else OWN_EPOCHS) if not settings.full else (512, 2 * EPOCHS)
    found = None
    for found in training(train, held, units, epochs, settings.seed):
        yield f"epoch {len(found.bits) - 1} of {epochs}: {found.bits[-1]:.3f} bits per character"
    assert found is not None
    best = found.bits[-1]
    for order, called in ((1, "unigrams"), (3, "trigrams")):
        yield claim(
            f"it predicts better than {called}",
            best,
            "<",
            table[order],
            quantity="bits per character, held out",
            source=SOURCE,
            note=f"{len(found.bits) - 1} epochs in {found.seconds[-1]:.0f} s",
        )
    yield from goals(best, found.seconds[-1], real, settings)
    written = sample(found, text, 2400, settings.seed)
    yield curve(found, table, name)
    yield page(written, found, name)
    yield surprise(found, held)
    rows = [(f"{n}-grams", bits, 2**bits) for n, bits in table.items()]
    rows.append((f"gated recurrent unit, {len(found.bits) - 1} epochs", best, 2**best))
    columns = ("model", "bits per character", "as unsure as between so many")
    yield Table("Bits per character", columns, rows, "On the last tenth of the text; n-grams of the training part.")
    yield Table("A sampled page", ("text",), [(written,)], f"Drawn at a temperature of {TEMPERATURE}.")


def goals(bits: float, seconds: float, real: bool, settings: Settings) -> Iterator[Claim]:
    """What is to be reached on tiny Shakespeare; the time is that of the short version."""
    missing = "" if real else "give --data-dir with a folder tinyshakespeare/"
    short = missing or ("the goal is for the short version: without --full" if settings.full else "")
    aims: tuple[tuple[str, float, Comparison, float, str, str], ...] = (
        ("it reads tiny Shakespeare", bits, "<=", 2.3, "bits per character, the last tenth", missing),
        ("it learns to in minutes", seconds, "<", 300.0, "seconds of training, compilation included", short),
    )
    for name, measured, comparison, bound, quantity, reason in aims:
        if reason:
            yield not_run(name, f"{quantity} {comparison} {bound:g}", reason)
        else:
            yield claim(name, measured, comparison, bound, quantity=quantity, source="the goal set for this experiment")


def text_of(settings: Settings) -> tuple[Text, str, bool]:
    """(the text, what it is called, whether it is tiny Shakespeare)."""
    if settings.data_dir is None:
        return fdl.data.text(), "fdl's own source", False
    file = settings.data_dir / "input.txt"  # the folder itself may be given
    if not file.is_file():
        file = settings.data_dir / "tinyshakespeare" / "input.txt"
    return fdl.data.text(file), "tiny Shakespeare", True


# ---- training


def start(model: fdl.Layer, key: Any, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    """(params, the empty state)."""
    params, state = model.init(key, jax.ShapeDtypeStruct((WINDOW,), jnp.int32), dtype)
    params["recurrence"].pop("w")  # the table's row is the input part itself
    return params, state


def training(train: Text, held: Text, units: int, epochs: int, seed: int) -> Iterator[Trained]:
    """What is there before training and after every epoch; the time is that of training alone, compilation included."""
    model = network(len(train.vocabulary), units)
    params, state = start(model, jax.random.key(seed))
    x, y = map(jnp.asarray, train.streams(STREAMS))
    optimizer = optimizer_of(epochs * (x.shape[1] // WINDOW))
    carry = params, optimizer.init(params)
    x_held, y_held = map(jnp.asarray, held.streams(HELD_STREAMS))
    seconds, bits = [0.0], [float(mean_bits(model, params, x_held, y_held))]
    yield Trained(model, params, seconds, bits)
    for k in range(epochs):
        begun = time.perf_counter()
        noise = jax.random.fold_in(jax.random.key(seed), k)
        carry = jax.block_until_ready(epoch(model, optimizer, carry, state, x, y, noise))
        seconds.append(seconds[-1] + time.perf_counter() - begun)
        bits.append(float(mean_bits(model, carry[0], x_held, y_held)))
        yield Trained(model, carry[0], seconds, bits)


@functools.lru_cache
def optimizer_of(steps: int) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(RATE, steps)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def epoch(model: fdl.Layer, optimizer: Any, carry: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
    """Once through the streams [N, T], window after window; (params, state of the optimizer)."""
    gradients = fdl.backprop.value_and_grad(model, LOSS)

    def step(carry: Any, index: Any) -> tuple[Any, None]:
        params, kept, state = carry
        window = (jax.lax.dynamic_slice_in_dim(ids, index * WINDOW, WINDOW, 1) for ids in (x, y))
        (_, state), grads = gradients(params, state, *window, jax.random.fold_in(key, index))
        updates, kept = optimizer.update(grads, kept, params)
        return (optax.apply_updates(params, updates), kept, state), None

    (params, kept, _), _ = jax.lax.scan(step, (*carry, state), jnp.arange(x.shape[1] // WINDOW))
    return params, kept


@functools.partial(jax.jit, static_argnums=0)
def mean_bits(model: fdl.Layer, params: Any, x: Any, y: Any) -> jax.Array:
    return jnp.mean(bits_of_each(model, params, x, y))


def bits_of_each(model: fdl.Layer, params: Any, x: Any, y: Any) -> jax.Array:
    """-log2 p of every character y, given all x of its stream so far: [N, T]."""
    logits, _ = model.apply(params, empty(params, len(x)), x)
    return LOSS(logits, y) / math.log(2)


def empty(params: Any, streams: int) -> Any:
    """The state before the first character."""
    u = params["recurrence"]["u"]
    return {"recurrence": {"h": jnp.zeros((streams, len(u)), u.dtype)}}


@functools.partial(jax.jit, static_argnums=(0, 2))
def drawn(model: fdl.Layer, params: Any, count: int, first: Any, key: Any) -> jax.Array:
    """So many characters, each drawn after the one before it."""

    def step(carry: Any, key: Any) -> tuple[Any, Any]:
        state, last = carry
        logits, state = model.apply(params, state, last[None, None])
        new = jax.random.categorical(key, logits[0, 0] / TEMPERATURE).astype(jnp.int32)
        return (state, new), new

    return jax.lax.scan(step, (empty(params, 1), first), jax.random.split(key, count))[1]


def sample(found: Trained, text: Text, count: int, seed: int) -> str:
    """A page that begins after an empty line."""
    first = jnp.asarray(text.encode("\n")[0] if "\n" in text.vocabulary else text.ids[0])
    return text.decode(drawn(found.model, found.params, count, first, jax.random.key(seed)))


def agreement(text: Text, seed: int) -> float:
    """Manual and automatic gradients of a small model on the second of two windows."""
    with jax.enable_x64(True):
        model = network(len(text.vocabulary), 16)
        params, state = start(model, jax.random.key(seed), jnp.float64)
        rng = np.random.default_rng(seed)
        params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape), params)
        x, y = (jnp.asarray(ids[:, : 2 * WINDOW]) for ids in text.streams(STREAMS))
        _, state = model.apply(params, state, x[:, :WINDOW])
        ours, theirs = (
            jax.jit(fdl.backprop.value_and_grad(model, LOSS, gradient=gradient))(
                params, state, x[:, WINDOW:], y[:, WINDOW:], jax.random.key(seed)
            )[1]
            for gradient in ("manual", "autodiff")
        )
        return largest(map(relative_difference, jax.tree.leaves(ours), jax.tree.leaves(theirs)))


# ---- figures


def curve(found: Trained, table: dict[int, float], name: str) -> Figure:
    fig, axes = figure(height=3.6)
    axes.plot(found.seconds[1:], found.bits[1:], color=BLUE, marker=".", label="gated recurrent unit")
    for order, colour in ((3, VERMILION), (4, ORANGE), (5, GREY)):
        axes.axhline(table[order], color=colour, linestyle="--", linewidth=1.2, label=f"{order}-grams")
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("bits per character")
    axes.set_xlim(left=0)
    axes.set_title(f"Held-out bits, {name}")
    axes.legend(loc="center right")
    caption = f"On the last tenth of the text, after every epoch. Unigrams need {table[1]:.2f} bits and are not drawn."
    return Figure("bits per character", fig, caption)


def page(written: str, found: Trained, name: str) -> Figure:
    """The sampled text as it would be printed, in two columns."""
    width, rows = 68, 36
    lines = [part for line in written.split("\n") for part in textwrap.wrap(line, width, drop_whitespace=False) or [""]]
    fig, columns = figure(1, 2, width=WIDE, height=6.2)
    for k, axes in enumerate(columns):
        shown = "\n".join(lines[k * rows : (k + 1) * rows]).replace("$", r"\$")
        picture(axes).text(0, 1, shown, family="monospace", fontsize=8, color=INK, va="top", transform=axes.transAxes)
    caption = f"Written by the model after {len(found.bits) - 1} epochs on {name}, at a temperature of {TEMPERATURE}."
    return Figure("a sampled page", fig, caption, wide=True)


def surprise(found: Trained, held: Text) -> Figure:
    """A passage of the held-out text, each character on the colour of the bits that it cost."""
    rows, columns = 14, 84
    count = min(rows * columns, len(held) - 1)
    x, y = (jnp.asarray(held.ids[None, start : start + count]) for start in (0, 1))
    bits = np.asarray(bits_of_each(found.model, found.params, x, y))[0]
    fig, axes = figure(width=WIDE, height=4.2)
    grid = np.full(rows * columns, np.nan)
    grid[:count] = bits
    image = picture(axes).imshow(grid.reshape(rows, columns), cmap="OrRd", vmin=0, vmax=10, aspect="auto")
    for n, character in enumerate(held.decode(held.ids[1 : count + 1])):
        mark = "¶" if character == "\n" else character.replace("$", r"\$")
        colour = "white" if bits[n] > 6 else INK
        place = (n % columns, n // columns)
        axes.text(*place, mark, family="monospace", fontsize=8, color=colour, ha="center", va="center")
    fig.colorbar(image, ax=axes, label="bits", fraction=0.02, pad=0.01)
    caption = (
        "The beginning of the held-out text, read by the model: a character on white was expected, one on red was a surprise (its"
        f" colour is -log2 of its probability; {bits.mean():.2f} bits on average here). Surprise sits at the beginnings of"
        " words and lines; what follows is mostly known."
    )
    return Figure("surprise", fig, caption, wide=True)
