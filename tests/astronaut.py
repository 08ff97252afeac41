"""A photograph of a face that a package ships."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image


def astronaut() -> Image.Image:
    """NASA's portrait of Eileen Collins, 512 x 512 pixels, public domain; skips the test without scikit-image."""
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs scikit-image's photograph of an astronaut")
    return Image.open(Path(package.submodule_search_locations[0]) / "data" / "astronaut.png").convert("RGB")
