"""MNIST from its original files: 60,000 handwritten digits of 28x28 pixels to train on and 10,000 to test on.

Four IDX files in one folder, plain or gzip (a plain one is read where both are there):

    train-images-idx3-ubyte     train-labels-idx1-ubyte     t10k-images-idx3-ubyte     t10k-labels-idx1-ubyte

Any number of examples is taken, so that Fashion-MNIST, which has the same files, and shortened ones are read too. A plain file
holds no checksum: a pixel changed on the disk is not noticed there, in a gzip file it is.

Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition", 1998.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fdl.data._files import folder_of, require_labels
from fdl.data.digits import Examples
from fdl.data.idx import unsigned_bytes
from fdl.errors import DataError

SIDE, CLASSES = 28, 10


def mnist(folder: str | os.PathLike[str]) -> tuple[Examples, Examples]:
    """MNIST as ((x, y), (xt, yt)): x float32 [N, 28, 28, 1] in [0, 1] (the grey value divided by 255), y int32 [N], the digit.

    Errors: DataError, naming the file, the offset and the reason, for a file that is missing, damaged, cut short, too long or
    not of this format, and for labels that are not as many as the images.

        >>> (x, y), (xt, yt) = fdl.data.mnist("mnist")
        >>> x.shape[1:], x.dtype, y.dtype
        ((28, 28, 1), dtype('float32'), dtype('int32'))
    """
    folder = folder_of("fdl.data.mnist", folder, "train-images-idx3-ubyte and three more, plain or .gz")
    return _part(folder, "train"), _part(folder, "t10k")


def _part(folder: Path, part: str) -> Examples:
    images = _file(folder, f"{part}-images-idx3-ubyte")
    labels = _file(folder, f"{part}-labels-idx1-ubyte")
    y: NDArray[np.uint8] = unsigned_bytes(labels, (None,))  # first, as they are small
    require_labels(labels, y, CLASSES, offset=8, stride=1)
    ink = unsigned_bytes(images, (None, SIDE, SIDE))
    if len(ink) != len(y):
        raise DataError(str(images), f"at byte 4: it has {len(ink)} images, {labels.name} has {len(y)} labels")
    x = ink[..., None].astype(np.float32)  # [N, 28, 28, 1]
    x /= np.float32(255)
    return x, y.astype(np.int32)


def _file(folder: Path, name: str) -> Path:
    # some copies have a dot in place of the second hyphen
    names = [variant + suffix for suffix in ("", ".gz") for variant in (name, name.replace("-idx", ".idx"))]
    for candidate in names:
        try:
            os.lstat(folder / candidate)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(str(folder / candidate), f"cannot be read ({error.strerror or error})") from error
        return folder / candidate
    raise DataError(str(folder / name), f"is missing; wanted {names[0]} or {names[0]}.gz")
