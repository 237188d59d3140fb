"""Leaving fdl: parameters and inference functions in files that other programs read without it.

    fdl.export.save_params("digits.safetensors", params, state)
    params, state = fdl.export.load_params("digits.safetensors", like=model.init(key, (64,)))

    fdl.export.inference("digits.jaxexport", model, params, state, (64,))
    classify = fdl.export.load_inference("digits.jaxexport")

| file         | what                                                                                          |
|--------------|-----------------------------------------------------------------------------------------------|
| params.py    | nested dicts of arrays in a safetensors file, under readable names                            |
| inference.py | the function in use, its parameters inside, as a `jax.export` artefact with a JSON manifest   |
| files.py     | a file is written whole or not at all                                                         |

Both take the extra `pip install 'fdl[export]'` (safetensors; flatbuffers, which `jax.export` needs to make and read files).

There is no ONNX here: jax2onnx 0.17.1 with onnxruntime 1.32 gave an MLP and a GRU to 4e-7, but no convolution (`lax.platform_dependent` has
no translation there; the plain equations did, for some nets), a file for embedding and GRU that onnxruntime refused, and it
brings about 35 packages, among them an older orbax than checkpoints use.
"""

from fdl.export.inference import Exported, Inference, inference, load_inference
from fdl.export.params import load_metadata, load_params, save_params

__all__ = [
    "Exported",
    "Inference",
    "inference",
    "load_inference",
    "load_metadata",
    "load_params",
    "save_params",
]
