import errno
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import bench
from backbones.base import Preprocessing
from benchmarks.commands import show
from benchmarks.data import pictures
from benchmarks.system.shortage import is_out_of_memory, line_of

ON_A_CPU = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


def test_torch_says_on_a_cpu_what_is_taken_for_that() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError(ON_A_CPU), "out of memory"),
        (torch.OutOfMemoryError("no room"), "out of memory"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/data/a"), "/data/a: Input/output error"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files"),
    ],
)
def test_what_the_machine_does_is_told_in_a_line(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr(show, "run", fail)
    assert bench.main(["show", "probe"]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "gone", "/out of memory")]
)
def test_mistakes_in_the_code_are_not_hidden(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> int:
        raise error

    assert line_of(error) is None
    monkeypatch.setattr(show, "run", fail)
    with pytest.raises(type(error)):
        bench.main(["show", "probe"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        OSError("out of memory error when reading image file"),  # Pillow's decoders
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes."),
    ],
)
def test_a_crop_that_no_memory_is_left_for_is_not_a_damaged_crop(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else --skip-damaged would leave it out for good."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")

    def fail(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(type(error)):
        pictures.over_crops(tmp_path, ["a.png"], lambda number, picture: picture.size)
    with pytest.raises(type(error)):
        pictures.read_crop(tmp_path, "a.png", preprocessing=Preprocessing(size=16, resize=16))
