"""Where a run's arrays live: on one device, or spread over a mesh.

The mesh has an axis "data", over which every batch is cut, and may have an axis "model", over which the output features of wide
dense layers are. What a step computes is the same program as on one device; XLA puts in the sums over devices. So batch
normalization sees the whole batch (it is synchronised by construction), and the numbers agree with one device within rounding.
Every device holds the whole data set, from which it gathers its rows; `fdl.data.stream` is for sets that do not fit.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fdl.errors import refuse, refuse_type, shown

WIDE = 512  # output features from which a dense layer is cut; below, its product is too short to gain from it


class Placement:
    def __init__(self, where: str, mesh: Any, batch_size: int):
        self.mesh = checked_mesh(where, mesh, needs_data=True)
        if self.mesh is None:
            return
        devices = self.mesh.shape["data"]
        if batch_size % devices:
            refuse(
                where, f"batch_size is {batch_size} and the mesh has {devices} devices along 'data'; wanted a multiple"
            )

    @property
    def replicated(self) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, P())

    def data(self, arrays: Any) -> Any:
        """The same whole copy on every device."""
        if self.mesh is None:
            return jax.tree.map(jax.numpy.asarray, arrays)
        sharding = NamedSharding(self.mesh, P())
        return jax.tree.map(lambda a: _put(a, sharding), arrays)

    def local(self, arrays: Any) -> Any:
        """What a run returns: arrays that this process holds whole, where several processes trained."""
        if self.mesh is None or jax.process_count() == 1:
            return arrays
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(arrays, tiled=True)

    def rows(self, array: Any) -> Any:
        """Spreads a batch's indices, and with them what is computed from them."""
        if self.mesh is None:
            return array
        return jax.lax.with_sharding_constraint(array, NamedSharding(self.mesh, P("data")))

    def params(self, params: Any) -> Any:
        if self.mesh is None:
            return params
        mesh = self.mesh
        return jax.tree.map(lambda a: _put(a, NamedSharding(mesh, self._spec(a))), params)

    def carry(self, carry: Any) -> Any:
        shardings = self.of_carry(carry)
        return carry if shardings is None else jax.tree.map(_put, carry, shardings)

    def of_carry(self, carry: Any) -> Any:
        """The sharding of everything that a step changes: optimizer state of a parameter's shape lies where the parameter does."""
        if self.mesh is None:
            return None
        mesh = self.mesh
        specs = {a.shape: self._spec(a) for a in jax.tree.leaves(carry.params)}
        return jax.tree.map(lambda a: NamedSharding(mesh, specs.get(a.shape, P())), carry)

    def _spec(self, array: Any) -> P:
        pieces = self.mesh.shape.get("model", 1) if self.mesh is not None else 1
        if pieces > 1 and array.ndim and array.shape[-1] >= WIDE and array.shape[-1] % pieces == 0:
            return P(*[None] * (array.ndim - 1), "model")
        return P()


def _put(array: Any, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(array), sharding), impl=jax.random.key_impl(array))
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return jax.jit(lambda a: a, out_shardings=sharding)(array)
    host = np.asarray(array)  # every process has all of it, and hands its devices their parts
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def checked_mesh(where: str, mesh: Any, needs_data: bool = False) -> Mesh | None:
    """The mesh with automatic axes. needs_data: it must have the axes of a `Placement`."""
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        refuse_type(
            where, f'mesh is {shown(mesh)}, wanted a jax.sharding.Mesh, as jax.make_mesh((8,), ("data",)) makes it'
        )
    names = tuple(mesh.axis_names)
    if needs_data and ("data" not in names or set(names) - {"data", "model"}):
        refuse(where, f'the mesh has the axes {names}, wanted "data" and, for wide layers, "model"')
    if all(kind == AxisType.Auto for kind in mesh.axis_types):
        return mesh
    return Mesh(np.asarray(mesh.devices), names, axis_types=(AxisType.Auto,) * len(names))
