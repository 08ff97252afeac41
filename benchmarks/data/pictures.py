"""Work on many crops at once: each is decoded and handed to a function, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from registry import UserError

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")


def over_crops(root: Path, images: Sequence[str], work: Callable[[int, Image.Image], T]) -> list[T | None]:
    """Decode crops and call a function with each, in threads.

    Threads do, since decoding, OpenCV and most of numpy let others run.

    Args:
        root: what the images' paths are relative to.
        images: N paths.
        work: called with the number of the crop and its picture in RGB; from several threads.

    Returns:
        N answers, None for a crop that cannot be decoded.

    Raises:
        UserError: a crop does not exist.
    """
    from PIL import Image

    def one(number: int) -> T | None:
        path = root / images[number]
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except FileNotFoundError as error:
            raise UserError(f"crop {path} does not exist; prepare the data again") from error
        except Exception:  # Pillow's decoders raise anything
            return None
        return work(number, picture)

    workers = min(os.cpu_count() or 1, len(images))
    if workers <= 1:
        return [one(number) for number in range(len(images))]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(one, number) for number in range(len(images))]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
