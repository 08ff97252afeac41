"""The test crops of Ego4D's challenge, indexed by their file names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.annotations import list_folder, list_subfolders
from benchmarks.data.csv_fields import read_csv
from benchmarks.data.formats import ENDINGS
from benchmarks.data.frames import BOX, COLUMNS, frame_table, repeated
from registry import UserError
from zoo.files.untrusted import read_bytes


def read_challenge(top: Path, labels: Path | None = None, prefix: str = "") -> pd.DataFrame:
    """Reads a tree of challenge crops, `<video>/<track>/<frame>_<unique id>.jpg`, as a FrameTable.

    Crops may also end in .jpeg or .png, in upper or lower case. Files with other endings are left out.

    Args:
        top: folder of the videos.
        labels: file in the format of `labels_challenge.csv`, used if it exists.
        prefix: prepended to image paths, which are relative to `top`.

    Raises:
        UserError: there are no crops, a name cannot be parsed, or the labels are broken or have other unique ids.
    """
    found: list[tuple[str, str]] = []
    counts, numbers, images, unique_ids = [], [], [], []
    for video in list_subfolders(top, "the challenge's test crops"):
        for track in list_subfolders(top / video, "a test video"):
            folder = top / video / track
            names = [name for name in list_folder(folder, "a test track") if name.lower().endswith(ENDINGS)]
            number, ids = _parsed_names(folder, names)
            found.append((video, track))
            counts.append(len(names))
            numbers.append(number)
            images += [f"{prefix}{video}/{track}/{name}" for name in names]
            unique_ids += ids
    if not images:
        raise UserError(f"{top}: no <video>/<track>/<frame>_<unique id>.jpg below it")
    videos, tracks = (repeated(list(values), counts) for values in zip(*found, strict=True))
    columns: dict[str, Any] = {"clip": videos, "track": tracks, "frame": np.concatenate(numbers)}
    columns |= {"image": np.array(images, dtype=object), "unique_id": np.array(unique_ids, dtype=object)}
    if labels is not None and os.path.lexists(labels):
        table = pd.DataFrame(columns)
        table = table.merge(_read_labels(labels), how="outer", on=["clip", "track", "frame"], suffixes=("", "_label"))
        both = table["unique_id"].notna() & table["unique_id_label"].notna()
        differ = table[both & (table["unique_id"] != table["unique_id_label"])]
        if len(differ):
            row = differ.iloc[0]
            raise UserError(
                f"{labels}: {len(differ)} rows have another unique id than the crop's file: clip {row['clip']}, "
                f"track {row['track']}, frame {row['frame']}: {row['unique_id_label']}, but {row['image']}"
            )
        table["unique_id"] = table["unique_id"].fillna(table["unique_id_label"])
        table = table.drop(columns="unique_id_label").fillna({"image": "", "person": "", "label": -1})
        columns = {name: table[name] for name in COLUMNS}
    else:
        columns |= {"person": "", "label": -1, **dict.fromkeys(BOX, np.nan)}
    return frame_table(columns, str(top))


def _parsed_names(folder: Path, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Splits names `<frame>_<unique id>.jpg` into int64 (N,) frame numbers and ids."""
    stems = [name[: name.rindex(".")] for name in names]
    width = stems[0].find("_") if stems else 0
    text = "".join(stems).encode("ascii", "replace")
    if width in range(1, 16) and len(text) == len(stems) * len(stems[0]) and len(set(map(len, stems))) == 1:
        # Names of one length, which is the rule within a track, are parsed in one numpy expression.
        letters = np.frombuffer(text, dtype=np.uint8).reshape(len(stems), -1)
        digits = letters[:, :width] - np.uint8(ord("0"))
        if (digits <= 9).all() and (letters[:, width] == ord("_")).all() and len(stems[0]) > width + 1:
            return digits @ 10 ** np.arange(width)[::-1], [stem[width + 1 :] for stem in stems]
    split = [stem.partition("_") for stem in stems]
    for name, (number, _, unique_id) in zip(names, split, strict=True):
        if not (number.isdigit() and number.isascii() and len(number) < 19 and unique_id):
            raise UserError(f"{folder / name}: a test crop is named <frame>_<unique id>.jpg")
    return np.array([int(number) for number, _, _ in split], dtype=np.int64), [unique_id for _, _, unique_id in split]


def _read_labels(path: Path) -> pd.DataFrame:
    wanted = ["clip", "track", "frame", "unique_id", "person", *BOX, "label"]
    types: dict[str, Any] = dict.fromkeys(["clip", "track", "unique_id", "person"], str)
    types |= {"frame": np.int64, "label": np.int64, **dict.fromkeys(BOX, np.float64)}
    data = read_bytes(path, "labels of the test crops")
    try:
        return read_csv(data, dtype=types, keep_default_na=False, na_values=dict.fromkeys(BOX, [""]))[wanted]
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; its header must be {','.join(wanted)}") from None
    except (ValueError, OverflowError) as error:  # pandas' errors are ValueErrors
        raise UserError(f"{path}: {error}") from None
