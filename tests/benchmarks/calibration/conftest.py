"""A finished run that the calibration tests share; copy it before changing it."""

from pathlib import Path

import pytest

pytest.importorskip("av")
pytest.importorskip("cv2")

from tests.benchmarks.calibration import parts


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with walk.mp4, the model folder `tint`, and the run `out`."""
    home = tmp_path_factory.mktemp("walk")
    parts.video(home / "walk.mp4")
    parts.predicted(home / "walk.mp4", parts.model_folder(home / "tint"), home / "out")
    return home
