import os
import tracemalloc
from pathlib import Path

import pytest

from backbones.opening import open_regular, read_at_most, read_small


def test_a_regular_file_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open_regular(path, "w", encoding="utf-8") as file:
        file.write("one\n")
    with open_regular(path, "ab", buffering=0) as file:
        file.write(b"two\n")
    assert read_small(path) == path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("mode", ["wb", "ab", "rb+", "xb"])
def test_links_are_followed_for_reading_only(tmp_path: Path, mode: str) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"kept")
    link.symlink_to(target)
    assert read_small(link) == b"kept"
    with pytest.raises(OSError):
        open_regular(link, mode)
    assert target.read_bytes() == b"kept"


@pytest.mark.parametrize("mode", ["rb", "wb", "ab", "rb+"])
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path, mode: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/null")):
        with pytest.raises(OSError) as caught:
            open_regular(path, mode)
        assert caught.value.strerror
        assert caught.value.filename == str(path) or caught.value.filename == path


def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 256 MiB"):
        read_small(path)


def test_reading_allocates_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    tracemalloc.start()
    assert len(read_small(path)) == 3_000_000
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_pipe_that_never_ends_is_left(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 5000)
    with os.fdopen(reader, "rb", buffering=0) as file, pytest.raises(OSError, match="larger than"):
        read_at_most(file, 4000)
    os.close(writer)


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is a folder"):
        open_regular(tmp_path)


def test_missing_files_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
