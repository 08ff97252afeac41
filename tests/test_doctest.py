"""The examples in docstrings of the application, run as they stand."""

import doctest
import importlib
import io

import numpy as np
import pytest

from tests.conftest import HOME
from tests.sources import APPLICATION, module_name, python_files

MODULES = [
    module_name(path) for path in python_files(*APPLICATION) if ">>> " in (HOME / path).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(importlib.import_module(name), name, extraglobs={"np": np}):
        said = io.StringIO()
        assert runner.run(test, out=said.write).failed == 0, said.getvalue()
    assert runner.tries > 0
