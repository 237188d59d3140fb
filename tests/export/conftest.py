"""The files are written and read by an extra."""

import pytest


@pytest.fixture(autouse=True)
def _extra():
    pytest.importorskip("safetensors", reason="needs fdl[export]")
    pytest.importorskip("flatbuffers", reason="needs fdl[export]")
