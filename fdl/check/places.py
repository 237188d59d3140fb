"""Whose line an equation is: that of the caller, and of the library function inside which it ran.

JAX keeps the frames that ran when it recorded an equation. A jitted function is traced on its own, so the frames of an
equation inside it are followed by those of the call, and so on outwards. Of all of them

    the caller's place    the innermost one that is neither in JAX, in fdl, in another installed package, nor in Python's own
    the library's place   the innermost one further in; `inside` is the first public function or class further in

Functions of JAX that do one operation (jnp.sqrt, x + y) are no places: the caller's line shows them already.
"""

import dataclasses
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from types import CodeType, ModuleType
from typing import Any

from fdl.check.paths import _FDL, _JAX, _MACHINERY, Span, frames_of

_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
_PYTHON = sysconfig.get_path("stdlib") + os.sep
_PARTS = tuple(_JAX + os.path.join("_src", part) for part in ("numpy", "nn", "scipy", "ops", "image", "random.py"))
_SINGLE = tuple(
    _JAX + os.path.join("_src", "numpy", file)
    for file in ("ufuncs.py", "ufunc_api.py", "array_methods.py", "util.py", "vectorize.py")
)


@dataclasses.dataclass(frozen=True)
class Where:
    """The caller's place of an equation (None: no frame is the caller's), the library's, and what that is inside of."""

    own: Span | None
    library: Span | None
    inside: str  # "jax.numpy.linalg.norm", "flax.linen.Dense"; empty where the caller's line says it all

    @property
    def shown(self) -> Span | None:
        return self.own or self.library


def where_of(equations: Sequence[Any]) -> Where:
    """The place of the last of these equations, each of which is inside the one before."""
    frames = [frame for equation in equations for frame in frames_of(equation) if not _is_machinery(frame.code)]
    own = next((k for k in reversed(range(len(frames))) if not _is_library(frames[k].code)), -1)
    further_in = frames[own + 1 :]
    offered = [name for frame in further_in if (name := _public_name(frame.code))]
    # with no line of the caller, what was called from outside says little
    inside = offered[0 if own >= 0 else -1] if offered else ""
    return Where(frames[own].span if own >= 0 else None, further_in[-1].span if further_in else None, inside)


def _is_library(code: CodeType) -> bool:
    file = code.co_filename
    return file.startswith((_JAX, _FDL, _PYTHON)) or any(part in file for part in _INSTALLED)


def _is_machinery(code: CodeType) -> bool:
    file = code.co_filename
    if file.startswith(_JAX + "_src"):
        return not file.startswith(_PARTS) or file.startswith(_SINGLE)
    return file.startswith(_MACHINERY) or (file.startswith(_PYTHON) and not any(part in file for part in _INSTALLED))


def _public_name(code: CodeType) -> str:
    """The shortest name under which a library offers a function, or the class whose method it is; empty if it does not."""
    path = code.co_qualname.removesuffix(".__call__").split(".")
    if any(part.startswith(("_", "<")) for part in path):
        return ""
    names = [
        ".".join((module.__name__, *path)) for module in _relatives(code.co_filename) if _offers(module, path, code)
    ]
    return min(names, key=lambda name: (name.count("."), len(name), name), default="")


def _relatives(file: str) -> Iterator[ModuleType]:
    """The public modules of the package that the file belongs to."""
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    home = next((module.__name__ for module in modules if getattr(module, "__file__", None) == file), "")
    top = home.partition(".")[0]
    for module in modules if top else ():
        name = module.__name__
        if (name == top or name.startswith(top + ".")) and not any(part.startswith("_") for part in name.split(".")):
            yield module


def _offers(module: ModuleType, path: list[str], code: CodeType) -> bool:
    first = vars(module).get(path[0])
    if isinstance(first, type):
        return getattr(sys.modules.get(first.__module__), "__file__", None) == code.co_filename
    return len(path) == 1 and callable(first) and getattr(inspect.unwrap(first), "__code__", None) is code
