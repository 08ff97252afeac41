import json
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.rows import identity, provenance, schema
from benchmarks.system import device
from registry import UserError


def test_first_difference_names_the_key_and_both_values() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": None}}
    assert identity.first_difference(old, json.loads(json.dumps(old))) is None
    assert identity.first_difference(old, {"a": 1, "b": {"c": [1, 3], "d": None}}) == "b.c: [1, 2] there, [1, 3] now"
    assert identity.first_difference(old, {"a": 1, "b": {"c": [1, 2]}, "e": 5}) == "e: None there, 5 now"


def test_code_version_describes_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the working directory; dirty once a tracked file differs."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], cwd=tmp_path / "code", check=True)
    monkeypatch.setattr(provenance, "HOME", tmp_path / "code")
    monkeypatch.chdir(tmp_path)
    clean = provenance.code_version()
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "code" / "untracked").write_text("2")
    assert provenance.code_version() == clean
    (tmp_path / "code" / "file").write_text("2")
    assert provenance.code_version() == {"commit": clean["commit"], "dirty": True}


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "HOME", tmp_path)
    assert provenance.code_version() == {"commit": None, "dirty": None}


def test_deterministic_results_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    promised = {"features": True, "training": True, "scores": True}
    assert device.deterministic("cpu") == promised
    on_gpu = device.deterministic("cuda:0")
    assert not any(on_gpu[step] for step in promised)
    assert on_gpu["settings"]["deterministic algorithms"] is False
    assert not any(device.deterministic("mps").values())

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        strict = device.deterministic("cuda")
    finally:
        torch.use_deterministic_algorithms(False)
    assert strict["training"] and strict["scores"] and not strict["features"]
    assert strict["settings"]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_a_broken_result_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path} .*run (it|the recipe) again"):
        schema.read_result(path)
