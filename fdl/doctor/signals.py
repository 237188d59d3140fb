"""Per layer: sizes of outputs and errors, their percentiles, how much of an activation is flat, and which units do not learn."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.doctor.batch import counted_places, where_counted
from fdl.doctor.chart import ALIVE, MASKED, NEVER_ACTIVE, NO_OUTGOING, PERCENTILES, SATURATED
from fdl.doctor.watch import Seen
from fdl.layer import Layer
from fdl.layers.activations import ACTIVATIONS
from fdl.layers.activations.row import Facts
from fdl.op import Op, accumulator

COUNTED = 256  # entries; more are sorted
FINE = 5  # a stride below it may be rounded down by a third and more

# What a unit's outgoing weights are looked for behind: each of these leaves channels where they are.
_TRANSPARENT = (
    *ACTIVATIONS,
    *("dropout", "batch_norm", "instance_norm", "flatten", "last_step", "max_pool", "avg_pool"),
    *("global_avg_pool", "global_max_pool"),
)


class Signals(NamedTuple):
    """Of one layer; the fields are those of `Chart`. `squares` is not finite if x, y or an error of the layer is not."""

    error: Any
    growth: Any
    output_rms: Any
    saturated: Any
    squares: Any


def facts_of(layer: Layer) -> Facts | None:
    """Where the slope of an activation fades; None for other layers, and for options that are arrays."""
    row = ACTIVATIONS.get(layer.name)
    op = dict(layer._run.settings).get("op") if row and hasattr(layer._run, "settings") else None
    if row is None or op is None or not isinstance(op.value, Op):
        return None
    options = {name: kept.value for name, kept in op.value.options}
    return row.facts(**options) if all(isinstance(v, bool | int | float) for v in options.values()) else None


def two_sided(facts: Facts) -> bool:
    """Flat at both ends, like sigmoid; a rectifier is not."""
    ends = [end for interval in (*facts.saturation, *facts.dead) for end in interval]
    return float("-inf") in ends and float("inf") in ends


def signals(seen: Seen, examples: Any) -> Signals:
    dtype = accumulator(seen.y.dtype)
    nothing = jnp.full((), jnp.nan, dtype)
    size, of_y = squared(seen.dy), squared(where_counted(seen.walk.mask, seen.y))
    growth, squares = nothing, size + of_y
    if seen.dx is not None:
        of_dx = squared(seen.dx)
        growth, squares = jnp.sqrt(of_dx / size), squares + of_dx
    facts = facts_of(seen.layer)
    entries = jnp.asarray(rows_counted(seen.y, seen.walk.mask) * seen.y.shape[-1], dtype)
    saturated = nothing if facts is None else jnp.sum(flat_entries(seen, facts)).astype(dtype) / entries
    return Signals(jnp.sqrt(size * examples), growth, jnp.sqrt(of_y / entries), saturated, squares)


def squared(a: Any) -> Any:
    """||a||^2."""
    a = a.astype(accumulator(a.dtype))
    return jnp.sum(a * a)


def rows_counted(a: Any, mask: Any) -> Any:
    """How many rows (all axes but the last) of a layer's array count."""
    if mask is None:
        return a.size // a.shape[-1]
    mask = counted_places(mask, a)
    return jnp.sum(mask, dtype=jnp.int32) * (a.size // (mask.size * a.shape[-1]))


def flat_entries(seen: Seen, facts: Facts) -> Any:
    """[U] how many entries of each unit are flat."""
    x = seen.x
    flats = where_counted(seen.walk.mask, flat(x, facts))
    return jnp.sum(flats, axis=tuple(range(x.ndim - 1)), dtype=jnp.int32)


def flat(x: Any, facts: Facts) -> Any:
    """Where |f'| is below 1 % of its largest value."""
    inside = jnp.zeros(x.shape, bool)
    for low, high in (*facts.saturation, *facts.dead):
        inside |= (x >= low) & (x <= high)
    return inside


def percentiles(arrays: list[Any], sample: int, masks: list[Any] | None = None) -> Any:
    """[len(arrays), E], of at most `sample` entries of each, evenly spaced, of those that count."""
    masks = [None] * len(arrays) if masks is None else masks
    taken = jnp.stack([_spaced(a, sample, mask) for a, mask in zip(arrays, masks, strict=True)])  # [A, S]
    at = jnp.asarray(PERCENTILES) * (sample - 1) // 100
    if sample > COUNTED:
        return jnp.sort(taken, axis=1)[:, at]
    # An entry's place in the order is the number of entries before it; ties stand as they come. Comparing all pairs is
    # vectorized: on a CPU, 10 arrays of 128 take 42 microseconds so, and 65 sorted.
    first, second = taken[:, :, None], taken[:, None, :]
    earlier = jnp.arange(sample)[:, None] > jnp.arange(sample)[None]
    place = jnp.sum((second < first) | ((second == first) & earlier[None]), axis=2)
    hits = place[:, :, None] == at[None, None]  # [A, S, E]
    return jnp.sum(jnp.where(hits, taken[:, :, None], jnp.zeros((), taken.dtype)), axis=1)


def _spaced(a: Any, sample: int, mask: Any) -> Any:
    """`sample` entries of an array. The stride is odd, so that it does not fall into step with rows of even width."""
    flat, places = a.reshape(-1), jnp.arange(sample)
    if mask is not None:
        mask = counted_places(mask, a)
        width = a.size // mask.size
        order = jnp.argsort(~mask.reshape(-1), stable=True)  # the rows that count stand first
        size = jnp.sum(mask, dtype=places.dtype) * width
        row, column = jnp.divmod(_fractions(places, size, sample), width)
        return flat[order[row].astype(column.dtype) * width + column]
    stride = (flat.size - 1) // sample
    stride -= 1 - stride % 2 if stride > 1 else 0
    if stride < FINE:  # an odd stride would leave too much of the array out
        return flat[_fractions(places, flat.size, sample)]
    return jax.lax.slice(flat, (0,), (stride * (sample - 1) + 1,), (stride,))


def _fractions(places: Any, size: Any, sample: int) -> Any:
    """places * size // sample, without the overflow of the product."""
    whole, rest = divmod(size, sample)
    return places * whole + places * rest // sample


# ---- units


def consumers(seen: dict[str, Seen], name: str) -> list[str]:
    """The layers whose input is the output of this one. Sums and concatenations of composites are not seen."""
    return [other for other, one in seen.items() if one.x is seen[name].y and other != name]


def outgoing(seen: dict[str, Seen], name: str) -> list[str]:
    """The layers whose weights the units of this one lead to, directly or through layers that keep channels apart."""
    found = []
    for other in consumers(seen, name):
        found += outgoing(seen, other) if seen[other].layer.name in _TRANSPARENT else [other]
    return found


def unit_layers(seen: dict[str, Seen]) -> list[str]:
    """Activations, and layers with weights whose outputs go into weights; not what nothing follows."""

    def is_one(name: str) -> bool:
        behind = [seen[other] for other in consumers(seen, name)]
        if not behind:
            return False
        if seen[name].layer.name in ACTIVATIONS:
            return True
        return "w" in seen[name].params and all("w" in one.params for one in behind)

    return [name for name in seen if is_one(name)]


def units(seen: dict[str, Seen], name: str) -> Any:
    """[U] what keeps each unit (channel, the last axis) from learning, as an index into `chart.CAUSES`."""
    one = seen[name]
    examples = tuple(range(one.y.ndim - 1))
    state = jnp.where(jnp.all(one.dy == 0, axis=examples), MASKED, ALIVE)
    weights = [_no_weight_from(seen[other], one.y.shape[-1]) for other in outgoing(seen, name)]
    if weights:
        # a unit may also lead where no weights are seen, by the shortcut of a residual block: then an error reaches it
        without = jnp.all(jnp.stack(weights), axis=0) & (state == MASKED)
        state = jnp.where(without, NO_OUTGOING, state)
    facts = facts_of(one.layer)
    if facts is not None:
        never = flat_entries(one, facts) == rows_counted(one.x, one.walk.mask)
        state = jnp.where(never, SATURATED if two_sided(facts) else NEVER_ACTIVE, state)
    return state.astype(jnp.int8)


def _no_weight_from(consumer: Seen, channels: int) -> Any:
    """[channels] whether every weight of the consumer that leads out of a channel is 0."""
    w = consumer.params.get("w")
    if w is None or w.ndim < 2 or w.shape[-2] % channels:
        return jnp.zeros(channels, bool)
    by_input = jnp.abs(w).reshape(-1, w.shape[-1]) @ jnp.ones(w.shape[-1], w.dtype)  # [K I]
    return jnp.all(by_input.reshape(-1, channels) == 0, axis=0)  # flatten puts channels last
