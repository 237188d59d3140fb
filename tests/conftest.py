"""The strict session: float64 at hand, no silent rank or dtype promotion, warnings are errors (pyproject.toml)."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def getkey(request):
    """A function that returns a fresh PRNG key at every call, the same ones in every run of the test."""
    root = jax.random.key(sum(map(ord, request.node.nodeid)))
    calls = iter(range(1_000_000))
    return lambda: jax.random.fold_in(root, next(calls))
