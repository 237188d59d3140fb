"""A diagnosis does not depend on how busy the machine is: its budgets of time are larger here."""

import importlib

import pytest

BUDGETS = (("stock", "_SECONDS"), ("terms", "_SECONDS"), ("terms", "_SECONDS_OF_FAULTS"), ("shrink", "_SECONDS"))


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    for file, name in BUDGETS:
        module = importlib.import_module(f"fdl.check.{file}")  # `fdl.check.shrink` by attribute is the function
        monkeypatch.setattr(module, name, 30 * getattr(module, name))
