"""What `predict` is given: videos, folders of them, the shipped sample; and the folder of results of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.video.decode import Video
from registry import UserError, printable

SAMPLE = Path(__file__).with_name("sample") / "sample.mp4"
# Endings of files that are taken from a folder. A file that is named itself may have any ending.
ENDINGS = {
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
}


class Given(NamedTuple):
    """One video to score.

    Attributes:
        video: the file.
        out: its folder of results.
    """

    video: Path
    out: Path


def find_videos(given: Sequence[str], out: Path) -> list[Given]:
    """Lists the videos that are meant, with their folders of results.

    One file has `out` itself. Several files, or the files of a folder, have one subfolder each, named after the video.

    Args:
        given: files, folders, or `sample` for the shipped video if there is no file of that name.
        out: the folder of results of the command.

    Raises:
        UserError: a folder has no videos.
    """
    found: list[Path] = []
    for text in given:
        if (path := Path(text)).is_dir():
            found += _videos_in(path)
        else:
            found.append(named_video(text))
    if len(found) == 1 and not Path(given[0]).is_dir():
        return [Given(found[0], out)]
    different = list({_identity(path): path for path in reversed(found)}.values())[::-1]
    return [Given(path, out / name) for path, name in zip(different, folder_names(different), strict=True)]


def named_video(text: str) -> Path:
    """Returns the path of one video; `sample` is the shipped one if there is no file of that name."""
    path = Path(text)
    return SAMPLE if text == "sample" and not path.exists() else path


def _videos_in(folder: Path) -> list[Path]:
    """Lists the videos directly in a folder, by name. Hidden files are none: macOS adds `._walk.mp4` to `walk.mp4`."""
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"folder {printable(str(folder))} cannot be read: {error.strerror or error}") from error
    videos = [
        path for path in names if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()
    ]
    if not videos:
        raise UserError(
            f"folder {printable(str(folder))} has no videos ({', '.join(sorted(ENDINGS))}); folders in it are not "
            "searched: give the folder that has them, or the files"
        )
    return videos


def _identity(path: Path) -> object:
    """Equal for two ways to one file, as through a link."""
    try:
        found = path.stat()
    except OSError:
        return path.absolute()
    return found.st_dev, found.st_ino


def folder_names(videos: Sequence[Path]) -> list[str]:
    """Names the folders of results of several videos: different, also where capitals do not count.

    A folder has the video's name without its ending. Of videos with the same name all have it with the ending, and then
    the names of the folders above it, as many as needed. So a name depends on what else is there, but not on the order.

    Example:
        >>> folder_names([Path("a/walk.mp4"), Path("a/talk.mp4"), Path("a/talk.mov"), Path("b/talk.mov")])
        ['walk', 'talk.mp4', 'a_talk.mov', 'b_talk.mov']
    """
    whole = [Path(os.path.normpath(video.absolute())).parts[1:] for video in videos]  # links keep their names
    names = [_stem(parts[-1]) for parts in whole]
    for count in range(1, max(map(len, whole), default=0) + 1):
        names = _changed(names, lambda k, count=count: "_".join(whole[k][-count:]))  # type: ignore[misc]
    return _changed(names, lambda k: f"{k + 1}_{names[k]}")


def _stem(name: str) -> str:
    """Returns a file's name without its ending; with it if only dots would be left, which are other folders."""
    stem = Path(name).stem
    return stem if stem.strip(". ") else f"video_{name}"


def _changed(names: list[str], renamed: Callable[[int], str]) -> list[str]:
    """Renames all names that occur more than once."""
    often = Counter(name.casefold() for name in names)
    return [renamed(k) if often[name.casefold()] > 1 else name for k, name in enumerate(names)]


def readable(given: Sequence[Given]) -> tuple[list[Given], dict[Path, str]]:
    """Opens each video and decodes its first frame, which needs no model.

    Returns:
        The videos that can be read, and of the others path -> what is wrong, in one line.

    Raises:
        UserError: none can be read, and there is only one.
    """
    good, bad = [], {}
    for one in given:
        try:
            Video(one.video)
            good.append(one)
        except UserError as error:
            if len(given) == 1:
                raise
            bad[one.video] = str(error)
    return good, bad
