"""The strict session: float64 at hand, no silent rank or dtype promotion, warnings are errors (pyproject.toml).

Compiling was most of the suite's time, so tests compile fast rather than well: older code generation (a quarter less) and
LLVM without optimizations (another quarter). A test of rounding or of the speed-dependent kind is marked `optimized` and
compiles as users do, but for the code generation.
"""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

# XLA ends the process over a flag that it does not know
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

# what one worker has compiled the other one, and the processes that tests start, read
if "FDL_TEST_COMPILED" not in os.environ:
    os.environ["FDL_TEST_COMPILED"] = tempfile.mkdtemp(prefix="fdl-tests-")
    atexit.register(shutil.rmtree, os.environ["FDL_TEST_COMPILED"], ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["FDL_TEST_COMPILED"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # for the processes that tests start; here the fixture below decides

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# tracing makes many objects that stay: collected at Python's own pace they were 8 % of the suite's time
gc.set_threshold(200_000, 50, 100)


# Linux allows a process 65,530 mappings by default; every program keeps a dozen, and beyond the limit LLVM ends the process
MAPPINGS = Path("/proc/self/maps")
TOO_MANY = 30_000


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > TOO_MANY:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _compile_fast(request):
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimized") is None)


@pytest.fixture
def getkey(request):
    """A function that returns a fresh PRNG key at every call, the same ones in every run of the test."""
    root = jax.random.key(sum(map(ord, request.node.nodeid)))
    calls = iter(range(1_000_000))
    return lambda: jax.random.fold_in(root, next(calls))
