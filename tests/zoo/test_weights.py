"""Weights files are written atomically and read only if they are valid."""

import gc
import hashlib
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from heads.base import Window
from registry import HEADS, UserError
from zoo.weights import read_head, read_weights, write_head, write_weights

STATE = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2])}


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    sha256 = write_weights(path, STATE, {"words": [1, "é"], "more": None})
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    state, about = read_weights(path)
    assert about == {"words": [1, "é"], "more": None}
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert all(torch.equal(load_file(path)[name], STATE[name]) for name in STATE)  # anyone can read it
    assert write_weights(tmp_path / "y", dict(reversed(STATE.items())), {"more": None, "words": [1, "é"]}) == sha256
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]
    assert path.stat().st_mode & 0o777 == (tmp_path / "y").stat().st_mode & 0o777
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode & 0o777 == (tmp_path / "plain").stat().st_mode & 0o777


def test_tensor_views_are_written(tmp_path: Path) -> None:
    write_weights(tmp_path / "x", {"t": STATE["b"].t()}, {})
    assert torch.equal(read_weights(tmp_path / "x")[0]["t"], STATE["b"].t())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_weights(path, STATE, {"version": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="no space left for .*x.safetensors"):
        write_weights(path, STATE, {"version": 2})
    assert read_weights(path)[1] == {"version": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write "):
        write_weights(tmp_path / "file" / "x", STATE, {})


def test_head(tmp_path: Path) -> None:
    config = {"type": "lstm", "projection": 4, "hidden": 4, "mlp": (5,)}
    head = HEADS.build({**config, "feature_dim": 3, "window": 5}).eval()
    path = tmp_path / "head.safetensors"
    write_head(path, head, config, backbone={"weights": "abc"})
    again, about = read_head(path)
    assert about["backbone"] == {"weights": "abc"}
    assert about["head"] == {"type": "lstm", "projection": 4, "hidden": 4, "mlp": [5], "feature_dim": 3, "window": 5}
    window = Window(torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool))
    assert torch.equal(again(window), head(window))
    assert not again.training


def test_files_without_a_head(tmp_path: Path) -> None:
    head, path = HEADS.build({"type": "probe", "feature_dim": 3}), tmp_path / "head"
    write_weights(path, head.state_dict(), {})
    with pytest.raises(UserError, match="are not those of a head"):
        read_head(path)
    write_head(path, head, {"type": "probed"})
    with pytest.raises(UserError, match=r"weights .*: unknown head 'probed'; did you mean 'probe'"):
        read_head(path)
    write_head(path, head, {"type": "gru"})
    with pytest.raises(UserError, match="lacks tensor 'fc1.bias'"):
        read_head(path)


def test_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(UserError, match="do not exist"):
        read_weights(path)
    write_weights(path, STATE, {})
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:9], b""):
        path.write_bytes(damage)
        with pytest.raises(UserError, match="damaged or not a safetensors file"):
            read_weights(path)
    save_file(STATE, path)
    assert read_weights(path)[1] == {}


def test_reading_leaves_nothing_in_memory(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", {f"part{n}": torch.ones(300, n) for n in range(20)}, {})
    read_weights(tmp_path / "w.safetensors")
    gc.collect()
    tracemalloc.start(1)
    try:
        for _ in range(20):
            read_weights(tmp_path / "w.safetensors")
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 20 * 20 * 10, "a number for every tensor"
