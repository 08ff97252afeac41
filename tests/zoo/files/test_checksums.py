import subprocess
from pathlib import Path

import pytest

from registry import UserError
from zoo.files.checksums import NAME, check_file, damaged, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "a b.csv").write_text("1,2\n")
    (tmp_path / "result.json").write_text("{}\n")
    write_sums(tmp_path, ["seed1/a b.csv", "result.json"])
    return tmp_path


def test_sha256sum_accepts_the_file(folder: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", NAME], cwd=folder, check=True)
    assert damaged(folder, "result.json") == []


@pytest.mark.parametrize("name", ["seed1/a b.csv", "result.json", NAME])
def test_a_flipped_bit_anywhere_is_detected(folder: Path, name: str) -> None:
    sound = (folder / name).read_bytes()
    for place in range(len(sound)):
        spoilt = bytearray(sound)
        spoilt[place] ^= 1 << place % 8
        (folder / name).write_bytes(spoilt)
        assert damaged(folder, "result.json"), place
        (folder / name).write_bytes(sound[:place])
        assert damaged(folder, "result.json"), f"cut to {place}"
    (folder / name).write_bytes(sound)
    assert damaged(folder, "result.json") == []


def test_a_missing_file_is_damaged_and_missing_checksums_are_not(folder: Path) -> None:
    (folder / "seed1" / "a b.csv").unlink()
    assert damaged(folder, "result.json") == ["seed1/a b.csv"]
    assert damaged(folder, "result.json", "result.json") == []
    (folder / NAME).unlink()
    assert damaged(folder, "result.json") == []


def test_names_that_lead_elsewhere_are_damage(folder: Path) -> None:
    text = (folder / NAME).read_text().replace("seed1/a b.csv", "../a b.csv")
    (folder / NAME).write_text(text)
    assert damaged(folder, "result.json") == ["../a b.csv"]


@pytest.mark.parametrize("name", ["/etc/hostname", "seed1/../result.json", "./result.json", ""])
def test_names_that_are_not_paths_below_are_damage(folder: Path, name: str) -> None:
    lines = (folder / NAME).read_text().splitlines()
    (folder / NAME).write_text(f"{lines[1][:64]}  {name}\n{lines[1]}\n")
    assert damaged(folder, "result.json") == [name]


def test_the_folder_may_be_named_from_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "seed1")
    assert damaged(Path(".."), "result.json") == []
    assert damaged(Path("../seed1/.."), "result.json") == []
    check_file(Path("../result.json"), "result.json", "run again")


def test_check_file_names_file_and_remedy(folder: Path) -> None:
    check_file(folder / "result.json", "result.json", "run again")
    (folder / "result.json").write_text("{ }\n")
    with pytest.raises(UserError, match=r"result.json is damaged .*; run again$"):
        check_file(folder / "result.json", "result.json", "run again")
