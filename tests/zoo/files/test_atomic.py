import errno
from pathlib import Path

import pytest

from registry import UserError
from zoo.files.atomic import check_writable, replacing, write_json, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_not_a_number_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"mAP": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "no space left for"), (errno.EROFS, "cannot write .*Read-only file system")]
)
def test_failed_writes_are_told_in_a_line(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(UserError, match=message), replacing(tmp_path / "x"):
        raise OSError(number, __import__("os").strerror(number))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / "file" / "folder")
    check_writable(tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())
