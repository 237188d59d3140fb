"""What is in the wheel and the sdist, and that the sdist makes the same wheel: python contents.py WHEEL SDIST WHEEL_OF_THE_SDIST."""

import sys
import tarfile
import zipfile
from pathlib import PurePosixPath

IN_WHEEL = ("fdl/__init__.py", "fdl/py.typed", "fdl/data/digits.npz", "fdl/data/DIGITS.md", "fdl/doctor/page.html")
IN_SDIST = ("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "tests/concepts.py", *IN_WHEEL)


def files(wheel: str) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def problems(wheel: dict[str, bytes], sdist: set[str], again: dict[str, bytes]) -> list[str]:
    found = [f"the wheel lacks {name}" for name in IN_WHEEL if name not in wheel]
    found += [f"the sdist lacks {name}" for name in IN_SDIST if name not in sdist]
    if not any(name.endswith("licenses/LICENSE") for name in wheel):
        found.append("the wheel lacks LICENSE")
    for name in wheel:
        top = PurePosixPath(name).parts[0]
        if not (top == "fdl" or top.endswith(".dist-info")):
            found.append(f"the wheel holds {name}")
    found += [
        f"{name} is in both wheels and differs" for name in wheel.keys() & again.keys() if wheel[name] != again[name]
    ]
    found += [f"{name} is in one wheel only" for name in wheel.keys() ^ again.keys()]
    return found


if __name__ == "__main__":
    with tarfile.open(sys.argv[2]) as archive:
        sdist = {member.name.partition("/")[2] for member in archive.getmembers()}
    wheel = files(sys.argv[1])
    found = problems(wheel, sdist, files(sys.argv[3]))
    print(
        "\n".join(found)
        or f"build: {len(wheel)} files in the wheel, {len(sdist)} in the sdist, whose wheel is the same"
    )
    sys.exit(bool(found))
