"""Hostile archives: nothing leaves the folder, nothing grows beyond its limits."""

import io
import lzma
import resource
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import UserError
from zoo.archives import unpack


def entry(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def made(path: Path, *entries: tuple) -> Path:
    with tarfile.open(path, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def test_what_tarfile_packs_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "in" / "a" / "b").mkdir(parents=True)
    (tmp_path / "in" / "a" / "b" / "one.bin").write_bytes(bytes(range(256)) * 300)
    (tmp_path / "in" / "Ünï.txt").write_text("two")
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz") as tar:
        tar.add(tmp_path / "in", "top")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "x.tar.xz", tmp_path / "out")
    found = {path.relative_to(tmp_path / "out" / "top") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {str(path) for path in found} == {"a/b/one.bin", "Ünï.txt"}
    for path in found:
        assert (tmp_path / "out" / "top" / path).read_bytes() == (tmp_path / "in" / path).read_bytes()


ESCAPES: dict[str, tuple[tuple, ...]] = {
    "parent": (entry("../escaped"),),
    "parent inside": (entry("a/../../escaped"),),
    "absolute": (entry("/tmp/lamzoo_escaped_by_absolute_path"),),
    "backslash": (entry("..\\escaped"),),
    "link": (entry("a", kind=tarfile.SYMTYPE, link="../outside"), entry("a/escaped")),
    "link alone": (entry("a", kind=tarfile.SYMTYPE, link="b"),),
    "hard link": (entry("a", kind=tarfile.LNKTYPE, link="../outside/secret"),),
    "device": (entry("a", kind=tarfile.CHRTYPE),),
    "pipe": (entry("a", kind=tarfile.FIFOTYPE),),
    "twice": (entry("a"), entry("a", b"y")),
    "twice by case": (entry("Name"), entry("nAME", b"y")),
    "twice by spelling": (entry("a/b"), entry("a/./b", b"y")),
    "folder and file": (entry("a", kind=tarfile.DIRTYPE), entry("a", b"y")),
    "file as folder": (entry("a"), entry("a/b")),
    "deep": (entry("/".join("d" * 40)),),
    "long": (entry("n" * 300),),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_what_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    archive = made(tmp_path / "x.tar.xz", *ESCAPES[name])
    folder = tmp_path / "folder"
    folder.mkdir()
    # A file in a folder's place is the operating system's own error.
    with pytest.raises((UserError, OSError), match=None if name == "file as folder" else "cannot be unpacked"):
        unpack(archive, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"x.tar.xz", "outside", "folder"}
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret"]
    assert not Path("/tmp/lamzoo_escaped_by_absolute_path").exists()
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def lying(path: Path) -> None:
    """A member that claims a gigabyte and brings nothing."""
    info = tarfile.TarInfo("a")
    info.size = 1 << 30
    path.write_bytes(lzma.compress(info.tobuf()))


def write_zeros(path: Path, info: tarfile.TarInfo) -> None:
    """A member of 64 MiB of zeros, whatever its header says."""
    packer = lzma.LZMACompressor(preset=0)
    with path.open("wb") as file:
        file.write(packer.compress(info.tobuf()))
        for _ in range(64):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())


def bomb(path: Path) -> None:
    """Of a gigabyte of zeros as many as pass every limit, in 10 KB."""
    info = tarfile.TarInfo("a")
    info.size = 1 << 30
    write_zeros(path, info)


def header_bomb(path: Path) -> None:
    """Zeros where tarfile reads a name, which it would hold in memory."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    write_zeros(path, info)


def dictionary(path: Path) -> None:
    """A header that asks for 1.5 GiB to unpack a few bytes."""
    content = lzma.compress(tarfile.TarInfo("a").tobuf(), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}])
    # The byte of the block's header that says how large the dictionary is, and the header's checksum after it.
    header = bytearray(content[12:20])
    header[4] = 37  # of 40, which stands for 4 GiB
    path.write_bytes(content[:12] + header + zlib.crc32(header).to_bytes(4, "little") + content[24:])


BOMBS: dict[str, Callable[[Path], None]] = {
    "lying size": lying,
    "zeros": bomb,
    "zeros in a header": header_bomb,
    "dictionary": dictionary,
    "no xz": lambda path: path.write_bytes(b"not packed at all"),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_grows_is_refused(tmp_path: Path, name: str) -> None:
    BOMBS[name](tmp_path / "x.tar.xz")
    (tmp_path / "folder").mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "x.tar.xz", tmp_path / "folder")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000  # KB
    assert sum(path.stat().st_size for path in (tmp_path / "folder").rglob("*")) < 1 << 26


def test_too_many_members_or_bytes_are_refused(tmp_path: Path) -> None:
    archive = made(tmp_path / "x.tar.xz", *(entry(str(number)) for number in range(30)))
    for limits, words in (({"members": 29}, "more than 29 members"), ({"size": 10_000}, "more than it may")):
        folder = tmp_path / words.replace(" ", "_")
        folder.mkdir()
        with pytest.raises(UserError, match=words):
            unpack(archive, folder, **limits)
    (tmp_path / "all").mkdir()
    unpack(archive, tmp_path / "all", members=30)
    assert len(list((tmp_path / "all").iterdir())) == 30


def test_every_cut_is_refused(tmp_path: Path) -> None:
    whole = made(tmp_path / "x.tar.xz", entry("a", bytes(100)), entry("b", b"y" * 100)).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.tar.xz").write_bytes(whole[:length])
        folder = tmp_path / str(length)
        folder.mkdir()
        with pytest.raises(UserError, match="cannot be unpacked"):
            unpack(tmp_path / "cut.tar.xz", folder)
