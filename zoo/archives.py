"""Archives unpacked inside their folder and within limits; what else they hold is refused before it is written."""

from __future__ import annotations

import io
import lzma
import tarfile
import unicodedata
from pathlib import Path, PurePosixPath

from registry import UserError

MEMBERS = 100_000
BYTES = 1 << 30
RATIO = 200  # times the archive's size; xz packs zeros seven thousand times as small
FREE = 1 << 24  # bytes that an archive may come to whatever its size: tar alone rounds up to 10,240
DICTIONARY = 1 << 28  # bytes that unpacking may take; xz -9 takes 64 MiB


class _Unpacked(io.RawIOBase):
    """What an xz file holds, as a stream that ends in an error where it is more than so many bytes."""

    def __init__(self, file: io.BufferedIOBase, most: int) -> None:
        self._file = file
        self._most = most
        self._xz = lzma.LZMADecompressor(memlimit=DICTIONARY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._xz.eof:
            packed = self._file.read(1 << 16) if self._xz.needs_input else b""
            if self._xz.needs_input and not packed:
                raise EOFError("it is cut short")
            found = self._xz.decompress(packed, len(buffer))
            if found:
                self._most -= len(found)
                if self._most < 0:
                    raise tarfile.TarError("it unpacks to more than it may")
                buffer[: len(found)] = found
                return len(found)
        return 0


def unpack(archive: Path, folder: Path, *, members: int = MEMBERS, size: int = BYTES) -> None:
    """Unpack a `.tar.xz` of plain files and folders.

    Args:
        archive: the file.
        folder: an empty one; what was unpacked before a refusal is left in it.
        members: that it may hold.
        size: bytes that it may come to, its tar's own included; never more than `RATIO` times its own size.

    Raises:
        UserError: it is damaged or beyond its limits, or holds a link, a device, a path that is absolute or leads out
            of the folder, or one that is there twice, be it in other letters' case.
        OSError: the folder cannot be written.
    """
    seen: set[str] = set()
    most = min(size, max(FREE, RATIO * archive.stat().st_size))
    try:
        with archive.open("rb") as file, io.BufferedReader(_Unpacked(file, most), 1 << 16) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    _check(member, seen)
                    if len(seen) > members:
                        raise tarfile.TarError(f"it has more than {members:,} members")
                    tar.extract(member, folder, set_attrs=False, filter="data")
                    tar.members.clear()  # type: ignore[attr-defined] # or it keeps them all
            while stream.read(1 << 16):  # to the checksum at the end
                pass
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError, UnicodeError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error})") from error


def _check(member: tarfile.TarInfo, seen: set[str]) -> None:
    """Refuse what is no file or folder of its own below the folder."""
    path = PurePosixPath(member.name)
    shown = f"{member.name!r:.80}"
    if not (member.isreg() or member.isdir()):
        raise tarfile.TarError(f"{shown} is neither a file nor a folder")
    if member.sparse:
        raise tarfile.TarError(f"{shown} is a sparse file")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise tarfile.TarError(f"{shown} leads out of its folder")
    if len(path.parts) > 32 or any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in path.parts):
        raise tarfile.TarError(f"{shown} is too long a path")
    key = unicodedata.normalize("NFC", str(path)).casefold()
    if key in seen:
        raise tarfile.TarError(f"{shown} is there twice")
    seen.add(key)
