import io
import json
import multiprocessing
import re
import shutil
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.data import synthlam
from benchmarks.data.ego4d import read_split
from registry import UserError


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The shipped data, unpacked into a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return synthlam.root()


@pytest.fixture(scope="session")
def truth(root):
    return synthlam.truth(root)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small archive in the place of the shipped one, and a cache of its own."""
    shipped = tmp_path / "shipped" / "synthlam"
    shipped.mkdir(parents=True)
    with tarfile.open(shipped / "synthlam-2.tar.xz", "w:xz") as tar:
        for path, content in (("split/train.list", b"a\n"), ("face_imgs/a/b/face_00001.jpg", b"12345")):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    _record(shipped / "synthlam-2.tar.xz")
    monkeypatch.setattr(synthlam, "ARCHIVE", shipped / "synthlam-2.tar.xz")
    monkeypatch.setenv("LAMZOO_CACHE", str(tmp_path / "cache"))
    synthlam.shipped_record.cache_clear()
    yield shipped / "synthlam-2.tar.xz"
    synthlam.shipped_record.cache_clear()


def _record(archive):
    import hashlib

    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (archive.parent / "synthlam-2.json").write_text(json.dumps({"sha256": digest}))


class TestShipped:
    def test_archive_is_the_recorded_one_and_small(self):
        import hashlib

        content = synthlam.ARCHIVE.read_bytes()
        assert hashlib.sha256(content).hexdigest() == synthlam.checksum()
        assert len(content) <= 40e6

    def test_no_identity_is_in_two_splits(self, truth):
        splits = truth.groupby("identity").split.nunique()
        assert len(splits) > 1000
        assert splits.max() == 1

    def test_no_clip_or_track_is_in_two_splits(self, truth):
        assert truth.groupby("clip").split.nunique().max() == 1
        assert truth.groupby("track").clip.nunique().max() == 1

    def test_crops_decode_at_their_size(self, root, truth):
        on_disk = {p.relative_to(root).as_posix() for p in root.rglob("*.jpg")}
        assert on_disk == set(truth.image)
        some = truth[::6]
        for path, width, height in zip(some.image, some.width, some.height, strict=True):
            with Image.open(root / path) as image:
                image.load()
                assert image.size == (width, height)
                assert image.mode == "RGB"
        side = truth[["width", "height"]].max(axis=1)
        assert side.max() <= 112
        assert side.min() >= 20

    @pytest.mark.parametrize(
        ("split", "clips", "crops"), [("train", 140, 15000), ("val", 70, 7500), ("test", 390, 44000)]
    )
    def test_sizes_and_positive_rate(self, root, truth, split, clips, crops):
        rows = read_split(root, split)
        assert rows["clip"].nunique() >= clips
        assert (truth.split == split).sum() >= crops
        assert 0.14 <= rows.label.mean() <= 0.17
        assert set(rows.label.unique()) == {0, 1}

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_reader_finds_every_crop(self, root, truth, split):
        rows = read_split(root, split)
        first = truth[(truth.split == split) & ((truth.frame > 0) | (split == "test"))]
        assert set(rows.image) - {""} == set(first.image)
        joined = rows.merge(first, on=["clip", "track", "frame"], suffixes=("", "_true"))
        assert len(joined) == len(first)
        assert (joined.label == joined.label_true).all()

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_labels_are_the_segments_of_the_raw_annotations(self, root, truth, split):
        looking = set()
        for video in json.loads((root / f"json/av_{split}.json").read_text())["videos"]:
            for clip in video["clips"]:
                for look in clip["social_segments_looking"]:
                    frames = range(look["start_frame"], look["end_frame"] + 1)
                    looking |= {(clip["clip_uid"], look["person"], frame) for frame in frames}
        crops = truth[truth.split == split]
        expected = [key in looking for key in zip(crops["clip"], crops.person, crops.frame, strict=True)]
        assert crops.label.astype(bool).tolist() == expected

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_boxes_are_those_of_the_crops(self, root, truth, split):
        boxes = {}
        for video in json.loads((root / f"json/av_{split}.json").read_text())["videos"]:
            for clip in video["clips"]:
                for person in clip["persons"]:
                    for track in person["tracking_paths"]:
                        for b in track["track"]:
                            boxes[clip["clip_uid"], track["track_id"], b["frame"]] = b
        crops = truth[truth.split == split]
        for row in crops.itertuples():
            b = boxes[row.clip, row.track, row.frame]
            inside = min(b["x"] + b["width"], 1920) - max(b["x"], 0), min(b["y"] + b["height"], 1080) - max(b["y"], 0)
            assert inside == pytest.approx((row.width, row.height), abs=0.51)
        assert len(boxes) > len(crops)  # boxes without a crop, as in the real data
        assert any(b["width"] <= 0 or b["height"] <= 0 for b in boxes.values())

    def test_test_labels_name_the_crops(self, root, truth):
        labels = pd.read_csv(root / "labels_challenge.csv", dtype={"unique_id": str, "person": str})
        paths = [f"videos_challenge/{r.clip}/{r.track}/{r.frame:05d}_{r.unique_id}.jpg" for r in labels.itertuples()]
        assert sorted(paths) == sorted(truth[truth.split == "test"].image)
        assert labels.unique_id.is_unique

    def test_gaze_angle_decides_and_head_pose_does_not(self, truth):
        # 2 * 3 groups of crops, each large enough to say something
        at_camera, beside = truth.gaze_angle < 4, truth.gaze_angle.between(10, 18)
        assert truth[at_camera].label.mean() > 0.75
        assert truth[beside].label.mean() < 0.1
        assert beside.mean() > 0.15  # near misses are common
        facing = truth.head_yaw.abs() < 10
        assert truth[facing].label.mean() < 0.4

    def test_angles_agree_with_each_other(self, truth):
        # cos(angle) = cos(yaw) cos(pitch) for a gaze measured from the line to the camera
        yaw, pitch = np.radians(truth.gaze_yaw), np.radians(truth.gaze_pitch)
        np.testing.assert_allclose(np.cos(np.radians(truth.gaze_angle)), np.cos(yaw) * np.cos(pitch), atol=2e-4)
        assert truth.eye_yaw.abs().max() < 36  # what eyes can do in a head

    def test_priors_are_noisy_incomplete_and_near_the_truth(self, root, truth):
        poses = json.loads((root / "priors/head_pose.json").read_text())
        marks = json.loads((root / "priors/landmarks.json").read_text())
        keys = truth["clip"] + ":" + truth.track + ":" + truth.frame.astype(str)
        have = keys.isin(list(poses))
        assert 0.8 < have.mean() < 0.99
        given = np.array([poses[k] for k in keys[have]])
        error = np.abs(given[:, 0] - truth.head_yaw[have])
        assert 1.5 < error.median() < 6
        small = truth[["width", "height"]].max(axis=1)[have] < 40
        assert error[small].mean() > error[~small].mean()
        rows = [marks.get(r.clip, {}).get(r.track, {}).get(str(r.frame)) for r in truth.itertuples()]
        values = np.array([r for r in rows if r is not None])
        assert 0.8 < len(values) / len(rows) < 1
        assert values.shape[1:] == (5, 4)
        assert ((values[..., 3] >= 0) & (values[..., 3] <= 1)).all()
        frontal = np.array([r for r, yaw in zip(rows, truth.head_yaw, strict=True) if r is not None and abs(yaw) < 20])
        nose, left_eye, right_eye, mouth = frontal[:, 0], frontal[:, 1], frontal[:, 2], frontal[:, 3:].mean(1)
        assert (left_eye[:, 0] > right_eye[:, 0]).mean() > 0.99  # the person's left is on the right of the image
        assert (nose[:, 1] > left_eye[:, 1]).mean() > 0.98
        assert (mouth[:, 1] > nose[:, 1]).mean() > 0.95

    def test_card_states_the_archive(self):
        card = (synthlam.ARCHIVE.parent / "README.md").read_text(encoding="utf-8")
        assert synthlam.checksum() in card
        assert not re.search(r"\{\{|\}\}", card)


class TestUnpacking:
    def test_twice_unpacks_once(self, tiny):
        first = synthlam.root()
        before = (first / "split/train.list").stat().st_mtime_ns
        assert synthlam.root() == first
        assert (first / "split/train.list").stat().st_mtime_ns == before
        assert [p.name for p in first.parent.iterdir()] == [first.name]

    @pytest.mark.parametrize("damage", ["truncated", "missing", "no marker", "half", "a file"])
    def test_damage_is_found_and_mended(self, tiny, damage):
        folder = synthlam.root()
        crop = folder / "face_imgs/a/b/face_00001.jpg"
        if damage == "truncated":
            crop.write_bytes(b"12")
        elif damage == "missing":
            crop.unlink()
        elif damage == "no marker":
            (folder / synthlam.MARKER).unlink()
        elif damage == "half":
            shutil.rmtree(folder / "face_imgs")
        else:
            shutil.rmtree(folder)
            folder.write_text("in the way")
        again = synthlam.root()
        assert (again / "face_imgs/a/b/face_00001.jpg").read_bytes() == b"12345"
        assert [p.name for p in again.parent.iterdir()] == [again.name]

    def test_four_processes_at_once(self, tiny):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            roots = pool.map(_root, range(8))
        assert len(set(roots)) == 1
        assert synthlam.is_whole(synthlam.root())
        assert len(list(synthlam.root().parent.iterdir())) == 1

    def test_changed_archive_is_refused(self, tiny):
        tiny.write_bytes(tiny.read_bytes() + b"0")
        with pytest.raises(UserError, match="not the recorded archive"):
            synthlam.root()

    def test_missing_archive_is_named(self, tiny):
        tiny.unlink()
        with pytest.raises(UserError, match="synthlam-2.tar.xz"):
            synthlam.root()

    def test_path_out_of_the_folder_is_refused(self, tiny, tmp_path):
        with tarfile.open(tiny, "w:xz") as tar:
            info = tarfile.TarInfo("../../escaped")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        _record(tiny)
        synthlam.shipped_record.cache_clear()
        with pytest.raises(UserError, match="cannot be unpacked"):
            synthlam.root()
        assert not list(tmp_path.rglob("escaped"))

    def test_cache_that_cannot_be_written_is_named(self, tiny, tmp_path, monkeypatch):
        (tmp_path / "blocked").write_text("a file")
        monkeypatch.setenv("LAMZOO_CACHE", str(tmp_path / "blocked"))
        with pytest.raises(UserError, match="LAMZOO_CACHE"):
            synthlam.root()


def _root(_):
    return str(synthlam.root())
