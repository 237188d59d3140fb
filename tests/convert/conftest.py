"""What the comparisons with libraries share."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def their_promotion() -> Iterator[None]:
    """The rest of the session is stricter than the libraries are."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
