"""Kept frame tables: equal to fresh ones, and never used once anything that they depend on has changed."""

import hashlib
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from benchmarks.data import cache, ego4d
from benchmarks.data.ego4d import read_split
from tools.speed.index import make_train_root


@pytest.fixture
def root(tmp_path, monkeypatch):
    """12,000 frames in 3 clips of 4 tracks, with crops of two tracks, and a cache folder of its own."""
    monkeypatch.setenv("LAMZOO_CACHE", str(tmp_path / "cache"))
    root = make_train_root(tmp_path / "root", clips=3)
    clips = ego4d.read_list(root, "train")
    for clip, track in ((clips[0], "0"), (clips[2], "3")):
        folder = root / "face_imgs" / clip / track
        folder.mkdir(parents=True)
        for frame in (1, 2, 500):
            (folder / f"face_{frame:05d}.jpg").touch()
    segments = json.loads((root / "result_LAM" / f"{clips[0]}.json").read_text())
    marked = [{**segment, "person": segment["label"], "is_at_me": True} for segment in segments[:3]]
    annotated = [{"clip_uid": clip, "social_segments_looking": marked} for clip in clips]
    (root / "json").mkdir()
    (root / "json" / "av_train.json").write_text(json.dumps({"videos": [{"clips": annotated}]}))
    settle(root)
    return root


def settle(root, seconds=1e9):
    for path in [root, *root.rglob("*")]:
        os.utime(path, (seconds, seconds))


def fresh(root, images=True, label_policy="published"):
    return ego4d.read_annotated(root, "train", ego4d.read_list(root, "train"), images, label_policy)


def kept(root):
    return sorted((root.parent / "cache" / "frames").glob("*"))


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("label_policy", ["published", "is_at_me"])
def test_the_second_reading_is_equal_and_reads_no_annotation(root, monkeypatch, images, label_policy):
    expected = fresh(root, images, label_policy)
    first = read_split(root, "train", images, label_policy)
    pd.testing.assert_frame_equal(first, expected, check_exact=True)
    assert len(kept(root)) == 1
    monkeypatch.setattr(ego4d, "read_annotated", None)
    for _ in range(2):
        again = read_split(root, "train", images, label_policy)
        pd.testing.assert_frame_equal(again, expected, check_exact=True, check_column_type=True)
        again.loc[:, "label"] = 7  # the caller's own
        again.loc[5, ["x1", "clip"]] = [3.0, "other"]


def test_kept_where_pandas_text_has_to_be_made_column_by_column(root, monkeypatch):
    """As it has to be with Arrow's strings."""
    expected = read_split(root, "train")
    monkeypatch.setattr(ego4d, "read_annotated", None)
    monkeypatch.setattr(cache, "getattr", lambda *arguments: None, raising=False)
    pd.testing.assert_frame_equal(read_split(root, "train"), expected, check_exact=True)


def test_questions_are_kept_apart(root):
    tables = {
        (images, policy): read_split(root, "train", images, policy)
        for images in (True, False)
        for policy in ("published", "is_at_me")
    }
    assert len(kept(root)) == 4
    for (images, policy), table in tables.items():
        pd.testing.assert_frame_equal(table, read_split(root, "train", images, policy))
        assert (table["image"] != "").any() == images
    assert tables[True, "published"]["label"].sum() != tables[True, "is_at_me"]["label"].sum()


def change_a_box(root, clip):
    path = root / "json_original" / clip / "1.json"
    text = path.read_text()
    at = text.index('"x": ') + 5  # same size, another digit, and the old time put back
    path.write_text(text[:at] + text[at:].replace(text[at], str(9 - int(text[at]) if text[at].isdigit() else 1), 1))
    os.utime(path, (1e9, 1e9))


def remove_a_track(root, clip):
    (root / "json_original" / clip / "2.json").unlink()


def change_the_segments(root, clip):
    (root / "result_LAM" / f"{clip}.json").write_text('[{"label": "1", "start_frame": 1, "end_frame": 999}]')


def remove_the_segments(root, clip):
    (root / "result_LAM" / f"{clip}.json").unlink()


def drop_a_clip(root, clip):
    (root / "split" / "train.list").write_text("".join(f"{c}\n" for c in ego4d.read_list(root, "train") if c != clip))


def add_a_crop(root, clip):
    (root / "face_imgs" / clip / "0" / "face_00003.jpg").touch()


def remove_a_crop(root, clip):
    (root / "face_imgs" / clip / "0" / "face_00002.jpg").unlink()


CHANGES = [
    change_a_box,
    remove_a_track,
    change_the_segments,
    remove_the_segments,
    drop_a_clip,
    add_a_crop,
    remove_a_crop,
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_an_input_shows(root, change):
    before = read_split(root, "train")
    clip = ego4d.read_list(root, "train")[0]
    change(root, clip)
    after = read_split(root, "train")
    assert not after.equals(before)
    pd.testing.assert_frame_equal(after, fresh(root), check_exact=True)


def test_marks_and_code_show_too(root, monkeypatch):
    before = read_split(root, "train", label_policy="is_at_me")
    path = root / "json" / "av_train.json"
    path.write_text(path.read_text().replace('"start_frame": ', '"start_frame": 1', 1))
    assert not read_split(root, "train", label_policy="is_at_me").equals(before)
    (name,) = kept(root)
    settle(root)
    read_split(root, "train", label_policy="is_at_me")
    written = name.read_bytes()
    monkeypatch.setattr(ego4d, "code_digest", lambda: "another")
    read_split(root, "train", label_policy="is_at_me")
    assert name.read_bytes() != written


def test_inputs_of_this_moment_are_not_kept(root):
    """They may change again within one tick of the file system's clock, and nothing would show it."""
    settle(root, time.time())
    read_split(root, "train")
    assert not kept(root)


def test_small_splits_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMZOO_CACHE", str(tmp_path / "cache"))
    read_split(make_train_root(tmp_path / "root", clips=1, frames=20), "train", images=False)
    assert not (tmp_path / "cache").exists()


def test_damaged_and_foreign_files_are_not_used(root):
    expected = read_split(root, "train")
    (path,) = kept(root)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [b"", whole[:10], whole[:70], whole[:-1], whole[: len(whole) // 2], whole + b"\0", pickle.dumps(expected)]
    places = [0, 31, 32, 63, 64, 72, 80, 200, len(whole) - 1, *random.integers(0, len(whole), 25).tolist()]
    damaged += [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in places]
    swapped = 64 + 4096 * np.arange(2, 5)  # two pages in each other's place
    first, second = whole[swapped[0] : swapped[1]], whole[swapped[1] : swapped[2]]
    damaged.append(whole[: swapped[0]] + second + first + whole[swapped[2] :])
    for content in damaged:
        path.write_bytes(content)
        pd.testing.assert_frame_equal(read_split(root, "train"), expected, check_exact=True)
        assert path.read_bytes() == whole  # put right


def test_what_is_in_the_file_is_not_believed_either(root):
    """A file with a right checksum and a header that does not fit its columns."""
    read_split(root, "train")
    (path,) = kept(root)
    data = np.fromfile(path, dtype=np.uint8)
    length = int.from_bytes(data[64:72].tobytes(), "little")
    header = json.loads(data[72 : 72 + length].tobytes())
    assert cache.page_checksum(data[64:]) == data[32:64].tobytes()
    for key, value in (("rows", 3), ("rows", 10**15), ("columns", {}), ("columns", None), ("signature", 5)):
        text = json.dumps({**header, key: value}).encode().ljust(length)
        content = data[64:72].tobytes() + text[:length] + data[72 + length :].tobytes()
        forged = cache.MAGIC + cache.page_checksum(np.frombuffer(content, np.uint8)) + content
        path.write_bytes(forged)
        table = read_split(root, "train")
        pd.testing.assert_frame_equal(table, fresh(root), check_exact=True)


def test_no_cache_folder_no_error(root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for name in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("LAMZOO_CACHE", str(name))
        pd.testing.assert_frame_equal(read_split(root, "train"), fresh(root))


def test_several_at_once(root):
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: read_split(root, "train"), range(8)))
    for table in tables:
        pd.testing.assert_frame_equal(table, fresh(root), check_exact=True)


def test_any_text_comes_back(tmp_path, monkeypatch):
    """Names that are no UTF-8, line ends, and nothing at all; a null character, which no file name has, is not kept."""
    monkeypatch.setenv("LAMZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "MIN_ROWS", 1)
    arrow = getattr(pd.Series(["a"]).dtype, "storage", "") == "pyarrow"  # which holds UTF-8 only
    columns = {
        "clip": ["a", "a", "é\n", "é\n", "z" if arrow else "\udcff"],
        "track": ["", "", "", "1", "1"],
        "frame": [1, 2, 1, 1, -5],
    }
    columns |= {"person": "p", "x1": 0.0, "y1": np.nan, "x2": np.inf, "y2": -0.0, "label": [1, 0, -1, 0, 1]}
    table = ego4d.frame_table(columns | {"image": ["", "x", "x", "", "y"], "unique_id": ["1", "01", "1e3", "", "NaN"]})
    cache.store_table(["q"], "s", table)
    pd.testing.assert_frame_equal(cache.load_table(["q"], "s"), table, check_exact=True)
    assert cache.load_table(["q"], "t") is None and cache.load_table(["r"], "s") is None
    cache.store_table(["z"], "s", table.assign(image="\0"))
    assert cache.load_table(["z"], "s") is None


def test_a_pipe_in_the_place_of_a_table_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMZOO_CACHE", str(tmp_path))
    name = hashlib.sha256(b"q").hexdigest()[:32]
    (tmp_path / "frames").mkdir()
    os.mkfifo(tmp_path / "frames" / f"{name}.bin")
    assert cache.load_table(["q"], "s") is None
