"""The doctor finds what is installed, says how to get the rest, and never raises."""

import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from benchmarks.data import synthlam
from tests.conftest import HOME

doctor = importlib.import_module("benchmarks.commands.doctor")


def look(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str]:
    status = bench.main(["doctor", *arguments])
    return status, capsys.readouterr().out


def test_here_all_is_well(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    status, said = look(capsys, "--out", str(tmp_path / "runs"))
    assert status == 0, said
    assert f"ok       torch {importlib.metadata.version('torch')}" in said
    assert "ok       internvit_nano: zoo/weights/internvit_nano/model.safetensors" in said
    assert said.splitlines()[-1].endswith("can run")
    assert not (tmp_path / "runs").exists()  # nothing is changed


@pytest.mark.slow
def test_what_is_missing_has_its_command(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("timm", "av", "opencv-python-headless"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.4.1" if name == "torch" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(synthlam, "ARCHIVE", tmp_path / "gone.tar.xz")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    status, said = look(capsys, "--root", str(tmp_path))
    assert status == 1
    assert "MISSING  torch >= 2.6 (found 2.4.1): pip install .\n" in said
    assert "MISSING  timm >= 1.0.8 (not installed): pip install .\n" in said
    (video,) = [line for line in said.splitlines() if line.startswith("  -        video: ")]
    assert re.search(r": av >= \d+ \(not installed\)", video)
    assert video.endswith(': pip install ".[video]"')
    assert f"MISSING  SynthLAM as shipped: {tmp_path}/gone.tar.xz: git restore" in said
    assert "hf download OpenGVLab/InternViT-6B-448px-V1-5 --local-dir DIR (11 GB)" in said
    assert f"-        Ego4D {tmp_path}/face_imgs: python bench.py prepare --root {tmp_path}\n" in said
    assert "`python bench.py --recipe internlstm_flip_tta` lacks 3 of its requirements" in said


@pytest.mark.slow
def test_it_sees_what_was_added(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--OpenGVLab--InternViT-300M-448px" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    (tmp_path / "face_imgs").mkdir()
    (tmp_path / "runs" / "results" / "synthlam" / "probe").mkdir(parents=True)
    (tmp_path / "runs" / "results" / "synthlam" / "probe" / "result.json").write_text(json.dumps({}))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    status, said = look(capsys, "--root", str(tmp_path), "--out", str(tmp_path / "runs"))
    assert status == 0
    assert "ok       internvit_300m: OpenGVLab/InternViT-300M-448px" in said
    assert f"ok       Ego4D {tmp_path}/face_imgs\n" in said
    assert "1 row finished" in said


@pytest.mark.slow
def test_a_broken_look_is_a_finding(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(synthlam, "checksum", broken)
    status, said = look(capsys)
    assert status == 1
    assert "MISSING  check failed (RuntimeError: no such thing)" in said
    assert "weights\n" in said  # what comes after is looked at all the same


@pytest.mark.slow
def test_it_runs_where_nothing_is_installed(tmp_path: Path) -> None:
    """Without site-packages: what it says then is what to install."""
    code = (
        "import argparse, importlib, pathlib, sys; d = importlib.import_module('benchmarks.commands.doctor');"
        f"sys.exit(d.run(argparse.Namespace(root=None, out=pathlib.Path({str(tmp_path / 'runs')!r}))))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "MISSING  torch >= 2.6 (not installed): pip install ." in done.stdout


def test_it_imports_no_torch_itself() -> None:
    code = "import sys, bench; bench.main(['doctor']); assert not {'torch', 'timm', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_package_that_is_there_and_does_not_load(tmp_path: Path) -> None:
    """As numpy of another Python, or a torch whose libraries are missing."""
    (tmp_path / "safetensors").mkdir()
    (tmp_path / "safetensors" / "__init__.py").write_text(
        "raise ImportError('libsafe.so.1: cannot open shared object')"
    )
    done = subprocess.run(
        [sys.executable, "bench.py", "doctor"],
        cwd=HOME, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    wanted = "MISSING  imports of the main job: ImportError: libsafe.so.1: cannot open shared object: see the packages"
    assert wanted in done.stdout


@pytest.mark.slow
def test_what_the_main_job_imports_late_is_imported_too(tmp_path: Path) -> None:
    """scikit-learn is imported where a record is written, after all the training."""
    assert {"sklearn.metrics", "scipy.optimize", "heads.recurrent"} <= set(doctor.main_imports())
    assert not {"cv2", "av", "ray", "wandb"} & {name.partition(".")[0] for name in doctor.main_imports()}
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object')")
    done = subprocess.run(
        [sys.executable, "bench.py", "doctor"],
        cwd=HOME, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "MISSING  imports of the main job: ImportError: libgomp.so.1: cannot open shared object: see" in done.stdout


def test_opencv_is_there_once_and_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def there(*names: str) -> list[str]:
        real = importlib.metadata.version

        def version(name: str) -> str:
            if name.startswith("opencv"):
                if name not in names:
                    raise importlib.metadata.PackageNotFoundError(name)
                return "4.10.0"
            return real(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        return [f"{found.what}: {found.fix}" for found in doctor.opencv() if not found.there]

    (tmp_path / "cv2.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert there() == there("opencv-python") == there("opencv-python-headless") == []
    (both,) = there("opencv-python", "opencv-python-headless")
    assert both.startswith("opencv-python and opencv-python-headless are both installed")
    assert both.endswith(
        "pip uninstall -y opencv-python-headless && pip install --force-reinstall --no-deps opencv-python"
    )
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    (broken,) = there("opencv-python")
    assert "libGL.so.1" in broken
    assert broken.endswith("pip uninstall -y opencv-python && pip install opencv-python-headless")
