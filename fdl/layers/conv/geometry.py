"""The geometry of a convolution: which input cell meets which kernel cell for which output cell, per spatial axis.

    input cell = s p + d k - lo        p output cell, k kernel cell, s stride, d dilation, lo cells of padding before the input
    outputs    = floor((inputs + lo + hi - extent) / s) + 1        extent = d (K - 1) + 1, the cells that one output sees

"SAME" has outputs = ceil(inputs / s) and pads max(0, s (outputs - 1) + extent - inputs) cells, half before and half after; of an
odd number the extra cell comes after. lax, Keras and TensorFlow do the same. PyTorch's padding=(K - 1)/2 is another function
where strides are above 1 and inputs even: it is padding=(K - 1)//2 here.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from fdl.errors import refuse, refuse_type, shown

Cells = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """One number, or pair, per spatial axis."""

    inputs: Cells
    kernel: Cells
    strides: Cells
    padding: Pairs
    dilation: Cells
    groups: int

    @property
    def rank(self) -> int:
        return len(self.inputs)

    @property
    def extent(self) -> Cells:
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def outputs(self) -> Cells:
        axes = zip(self.inputs, self.padding, self.extent, self.strides, strict=True)
        return tuple((size + lo + hi - extent) // stride + 1 for size, (lo, hi), extent, stride in axes)

    @property
    def used(self) -> Cells:
        """The cells of the padded input that some output sees, from its start."""
        axes = zip(self.outputs, self.strides, self.extent, strict=True)
        return tuple((out - 1) * stride + extent for out, stride, extent in axes)

    @property
    def pads(self) -> Pairs:
        """The padding that gives the input its used cells; negative where cells at the end are not used."""
        axes = zip(self.used, self.inputs, self.padding, strict=True)
        return tuple((lo, used - size - lo) for used, size, (lo, _) in axes)

    @property
    def offsets(self) -> list[Cells]:
        """The kernel cells, in the order of w.reshape(prod K, I, O)."""
        return list(itertools.product(*map(range, self.kernel)))

    def starts(self) -> Iterator[Cells]:
        """Where in the used cells the first output meets each kernel cell."""
        for k in self.offsets:
            yield tuple(d * i for d, i in zip(self.dilation, k, strict=True))

    @property
    def spread(self) -> Cells:
        """The dilations that its cells are given in `phases`: those of the strided axes, where cells of one phase are not
        evenly apart."""
        return tuple(d if s > 1 else 1 for d, s in zip(self.dilation, self.strides, strict=True))

    @property
    def phases(self) -> "Geometry":
        """The convolution of stride 1 that takes dy to dx, all s phases of a cell at once, as channels; see `gathered_dx`."""
        places, kernel, padding, dilation = [], [], [], []
        axes = zip(
            self.inputs, self.outputs, self.kernel, self.strides, self.padding, self.dilation, self.spread, strict=True
        )
        for size, out, cells, s, (lo, _), d, spread in axes:
            taps, d = -(-(spread * (cells - 1) + 1) // s), d // spread
            first, reach = lo // s, d * (taps - 1)
            before = reach - first
            padding.append((before, -(-(lo + size) // s) - first + reach - out - before))
            places.append(out)
            kernel.append(taps)
            dilation.append(d)
        return Geometry(tuple(places), tuple(kernel), (1,) * self.rank, tuple(padding), tuple(dilation), self.groups)


def per_axis(where: str, name: str, value: Any, rank: int) -> Cells:
    """One whole number of at least 1 per axis; a single one stands for all."""
    cells = value if isinstance(value, tuple | list) else (value,) * rank
    if len(cells) != rank:
        refuse(where, f"{name} is {value!r}, wanted one number, or {rank} for {rank} spatial axes")
    for cell in cells:
        if isinstance(cell, bool) or not isinstance(cell, int):
            refuse_type(where, f"{name} is {shown(value)}, wanted whole numbers that are known when tracing")
        if cell < 1:
            refuse(where, f"{name} is {value!r}, wanted at least 1 everywhere")
    return tuple(cells)


def same_padding(inputs: Cells, extent: Cells, strides: Cells) -> Pairs:
    totals = [max(0, (-(-n // s) - 1) * s + e - n) for n, e, s in zip(inputs, extent, strides, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def explicit_padding(where: str, padding: Any, rank: int, low: int = 0) -> Pairs:
    """((lo, hi), ...) from an int or such pairs; hi may go down to `low`."""
    if isinstance(padding, int) and not isinstance(padding, bool):
        padding = ((padding, padding),) * rank
    wanted = f'wanted "SAME", "VALID", an int, or {rank} pairs ((before, after), ...), one per spatial axis'
    if not isinstance(padding, tuple | list) or len(padding) != rank:
        refuse(where, f"padding is {padding!r}, {wanted}")
    for pair in padding:
        whole = isinstance(pair, tuple | list) and len(pair) == 2
        if not whole or not all(isinstance(n, int) and not isinstance(n, bool) for n in pair):
            refuse(where, f"padding is {padding!r}, {wanted}")
        if pair[0] < 0 or pair[1] < low:
            least = f"at least 0 before and at least {low} after" if low else "at least 0; crop x by slicing it"
            refuse(where, f"padding is {padding!r}, wanted numbers of {least}")
    return tuple((lo, hi) for lo, hi in padding)


def require_groups(where: str, groups: Any, channels: int, features: int) -> int:
    """The number of groups, which divides both; None is one per input channel."""
    if groups is None:
        groups = channels
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        refuse(where, f"groups is {groups!r}, wanted a whole number of at least 1, or None for one per channel")
    if channels % groups or features % groups:
        refuse(where, f"groups is {groups}, wanted a divisor of the channels: x has {channels}, the output {features}")
    return groups


def geometry(where: str, x: Any, w: Any, strides: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
    """Of x [N, *S, I] and w [*K, I/groups, O], whose ranks and channels fit; refuses what has no output."""
    inputs, kernel = tuple(x.shape[1:-1]), tuple(w.shape[:-2])
    rank, groups = len(kernel), require_groups(where, groups, x.shape[-1], w.shape[-1])
    strides = per_axis(where, "strides", strides, rank)
    dilation = per_axis(where, "dilation", dilation, rank)
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    if padding == "SAME":
        padding = same_padding(inputs, extent, strides)
    else:
        padding = explicit_padding(where, 0 if padding == "VALID" else padding, rank)
    found = Geometry(inputs, kernel, strides, padding, dilation, groups)
    if min(inputs) < 1 or min(found.outputs) < 1:
        refuse(
            where,
            f"no output: the kernel covers {list(extent)} cells, x has {list(inputs)} and padding {padding!r}; "
            'pad more ("SAME"), or use a smaller kernel, dilation or fewer layers before',
        )
    return found
