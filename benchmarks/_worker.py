"""A process of its own for every variant: started with the same allocator, threads spread, asked over a pipe."""

import contextlib
import dataclasses
import importlib.util
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent

# One measurement lasts at least this long: 1 % of it is 500 us, ten times what the clocks and a message cost.
SHORTEST = 0.05

# A worker that has not answered by then (import, compilation and check together) counts as failed.
PATIENCE = 600.0

# Read by glibc when a process starts: blocks of up to 1 GiB come from the heap, and the heap is not given back.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What `setup` returns: `result`, a (nested) dict of arrays to compare with the reference; `call`, what is timed,
    which must wait for its own completion; `units`, how many units of the work one call does."""

    result: Any
    call: Callable[[], object] = lambda: None
    units: int = 1


def load(path: Path) -> ModuleType:
    """The benchmark in that file, as a module named after it."""
    name = f"{FOLDER.name}.{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def missing(requires: Sequence[str]) -> list[str]:
    """Those of the modules that cannot be imported here."""
    return [name for name in requires if importlib.util.find_spec(name) is None]


def _measure(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Elapsed and CPU seconds of `count` calls."""
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start, time.process_time() - cpu


def _spread_threads() -> None:
    """XLA's threads for parts of an operation, one core each; a process without JAX has none."""
    if "jax" in sys.modules:
        from fdl.train import tune_runtime

        tune_runtime(dispatch=False, allocator=False, threads=True)


def _serve(connection: Connection, path: Path, function: str, arguments: Mapping[str, Any]) -> None:
    """The worker: set up, send the result, then answer each message with (seconds per unit, cpu/wall, CPU seconds)."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            trial = getattr(load(path), function)(**arguments)
            connection.send(("result", trial.result))
            _spread_threads()
            count = 0
            while connection.recv() == "measure":
                before = time.process_time()
                if not count:
                    once, _ = _measure(trial.call, 1)  # warms up after the check
                    count = max(1, math.ceil(SHORTEST / max(min(once, _measure(trial.call, 1)[0]), 1e-9)))
                wall, cpu = _measure(trial.call, count)
                connection.send(("time", (wall / count / trial.units, cpu / wall, time.process_time() - before)))
    except EOFError:
        pass
    except Exception:
        connection.send(("error", traceback.format_exc()))


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """For processes that are started inside; what the user has set stays."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


class Worker:
    """A process that holds one variant, and the wire to it."""

    def __init__(self, setup: Callable[..., Trial], arguments: Mapping[str, Any]):
        context = multiprocessing.get_context("spawn")
        path = Path(sys.modules[setup.__module__].__file__ or "")
        self._wire, theirs = context.Pipe()
        call = (theirs, path, setup.__name__, dict(arguments))
        self._process = context.Process(target=_serve, args=call, daemon=True)
        with _environment(ALLOCATOR):
            self._process.start()
        theirs.close()

    def receive(self) -> tuple[str, Any]:
        """("result" | "time" | "error", value)."""
        try:
            if not self._wire.poll(PATIENCE):
                return "error", f"no answer in {PATIENCE:.0f} s"
            return self._wire.recv()
        except (EOFError, ConnectionError):
            self._process.join(1)
            return "error", f"the process ended with exit code {self._process.exitcode}"

    def measure(self) -> tuple[str, Any]:
        try:
            self._wire.send("measure")
        except (BrokenPipeError, ConnectionError):
            pass  # receive() says how it ended
        return self.receive()

    def stop(self) -> None:
        self._wire.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def result_of(setup: Callable[..., Trial], arguments: Mapping[str, Any]) -> Any:
    """The `result` of that trial, from a process that ends with it. RuntimeError, with its traceback, if it failed."""
    worker = Worker(setup, arguments)
    try:
        kind, result = worker.receive()
    finally:
        worker.stop()
    if kind != "result":
        raise RuntimeError(str(result))
    return result


def cpu_times() -> tuple[float, float] | None:
    """Seconds that all cores together were (busy, there) since the machine started; None where /proc does not say."""
    try:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = ticks[3] + ticks[4]  # idle, and waiting for a disk
    second = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / second, sum(ticks) / second
