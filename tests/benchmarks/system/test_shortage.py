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
from benchmarks.system.shortage import is_out_of_memory, shortage_message

ON_A_CPU = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


def test_torchs_error_on_a_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError(ON_A_CPU), "out of memory"),
        (torch.OutOfMemoryError("no room"), "out of memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "raise ulimit -v"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:9"), "lost the connection"),
        (torch.distributed.DistBackendError("NCCL error"), "lost the connection to another process of torchrun"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/data/a"), "/data/a: Input/output error"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files"),
    ],
)
def test_errors_of_the_machine_take_one_line(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr(show, "run", fail)
    assert bench.main(["show", "probe"]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        FileNotFoundError(errno.ENOENT, "gone", "/out of memory"),
        ImportError("cannot import name 'a' from 'b'"),
    ],
)
def test_bugs_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> int:
        raise error

    assert shortage_message(error) is None
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
def test_running_out_of_memory_does_not_make_a_crop_damaged(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise --skip-damaged would leave it out permanently."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")

    def fail(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(type(error)):
        pictures.over_crops(tmp_path, ["a.png"], lambda number, picture: picture.size)
    with pytest.raises(type(error)):
        pictures.read_crop(tmp_path, "a.png", preprocessing=Preprocessing(size=16, resize=16))
