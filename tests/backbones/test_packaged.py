"""OpenCV that is installed and does not load: the message has the way out."""

import sys
from pathlib import Path

import pytest

from backbones import face_mesh
from backbones.packaged import need_opencv
from registry import UserError


def test_where_libgl_is_lacking_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    wanted = "needs OpenCV, which does not load here .libGL.so.1: .*pip install opencv-python-headless"
    face_mesh.model_file.cache_clear()  # another test may have found it
    with pytest.raises(UserError, match=wanted):
        face_mesh.model_file("face_mesh")
    with pytest.raises(UserError, match="^annotated.mp4 " + wanted):
        need_opencv("annotated.mp4")
