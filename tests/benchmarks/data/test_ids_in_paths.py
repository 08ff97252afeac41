"""Ids from files cannot read or write outside of the root, in any reader or writer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import bench
from benchmarks.data.crops import cut_crops
from benchmarks.data.dataset import Ego4D
from benchmarks.data.ego4d import read_split
from benchmarks.data.frames import frame_table
from benchmarks.data.pictures import DamagedImageError, over_crops, read_crop
from benchmarks.data.prepare import prepare_annotations
from benchmarks.features.extract import ExtractOptions, extract
from benchmarks.features.store import FeatureStore
from benchmarks.pipeline.extract import extract_features
from benchmarks.pipeline.session import Session
from registry import BACKBONES, UserError
from tests.benchmarks.data.test_prepare import box, person, write
from tests.benchmarks.pipeline.test_run import recipe

ESCAPES = ("../../canary", "..", "{canary}", "a/../../../canary", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root beside canaries that look like data; they must be as they were when the test is over."""
    canary = tmp_path / "canary"
    (canary / "t").mkdir(parents=True)
    boxes = [{"clip_uid": "c", "frameNumber": 1, "Person ID": "1", "x": 1, "y": 1, "width": 9, "height": 9}]
    for name in ("t.json", "1.json", "canary.json"):
        (canary / name).write_text(json.dumps(boxes))
    (tmp_path / "canary.json").write_text("[]")
    (tmp_path / "canary.mp4").write_bytes(b"canary")
    Image.new("RGB", (9, 9), (255, 0, 0)).save(canary / "t" / "face_00001.jpg")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    yield tmp_path / "root"
    shutil.rmtree(tmp_path / "root", ignore_errors=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def filled(text: str, root: Path) -> str:
    return text.replace("{canary}", str(root.parent / "canary"))


def table(root: Path, **columns: object) -> pd.DataFrame:
    known = dict(clip="c", track="t", frame=[1, 2], person="1", x1=1.0, y1=1.0, x2=9.0, y2=9.0, label=0, image="")
    return frame_table({**known, "unique_id": "", **columns})


@pytest.mark.parametrize("text", ESCAPES)
def test_prepare(root: Path, text: str, capsys: pytest.CaptureFixture) -> None:
    sound = {"clip_uid": "c", "persons": [person("0"), person("1", {"t": [box(1)]})]}
    evil = filled(text, root)
    for clip in (
        sound | {"clip_uid": evil},
        sound | {"persons": [person("0"), person("1", {evil: [box(1)]})]},
    ):
        write(root, "val", clip, lists=False)
        assert bench.main(["prepare", "--root", str(root), "--annotations-only", "--split-lists", "official"]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and "av_val.json: clip " in message and "cannot name a file" in message


@pytest.mark.parametrize("text", ESCAPES[:-1])
def test_split_lists(root: Path, text: str) -> None:
    write(root, "val", {"clip_uid": "c", "persons": [person("0"), person("1", {"t": [box(1)]})]})
    prepare_annotations(root)
    (root / "split" / "val.list").write_text(f"c\n{filled(text, root)}\n")
    with pytest.raises(UserError, match=r"val\.list: line 2: .* cannot name a file"):
        read_split(root, "val", images=False)


def test_ids_of_the_same_file(root: Path) -> None:
    for clips, said in (
        ([{"clip_uid": "c", "persons": []}, {"clip_uid": "C", "persons": []}], "clips: 'c' and 'C' would be the same"),
        ([{"clip_uid": "c", "persons": [person("0"), person("1", {"t": [box(1)], "T": [box(2)]})]}],
         "clip c: tracks: 't' and 'T' would be the same file"),
    ):  # fmt: skip
        write(root, "val", *clips, lists=False)
        with pytest.raises(UserError, match=said):
            prepare_annotations(root)
    write(root, "val", {"clip_uid": "c", "persons": []})
    write(root, "train", {"clip_uid": "C", "persons": []})
    with pytest.raises(UserError, match="'C' and 'c' would be the same file"):
        prepare_annotations(root)


def test_links_of_the_owner_are_read_and_not_written_through(root: Path) -> None:
    write(root, "val", {"clip_uid": "c", "persons": [person("0"), person("1", {"t": [box(1)]})]})
    prepare_annotations(root)
    moved = root.parent / "canary"
    (root / "json_original" / "d").symlink_to(moved)
    (root / "split" / "val.list").write_text("d\n")
    with pytest.raises(UserError, match="is listed twice"):  # three files of one track's name: it was read
        read_split(root, "val", images=False).pipe(lambda read: frame_table(read.assign(track="t")))
    write(root, "val", {"clip_uid": "d", "persons": [person("0"), person("1", {"t": [box(1)]})]})
    with pytest.raises(UserError, match="is a link out of .*json_original; remove it"):
        prepare_annotations(root)


@pytest.mark.parametrize("text", ESCAPES)
def test_crops(root: Path, text: str) -> None:
    pytest.importorskip("av")
    (root / "videos").mkdir(parents=True)
    evil = filled(text, root)
    for columns in ({"clip": evil}, {"track": evil}):
        with pytest.raises(UserError, match="is not a path below"):
            cut_crops(root, table(root, **columns), workers=1)
    (root / "face_imgs").mkdir()
    (root / "face_imgs" / "c").symlink_to(root.parent / "canary")
    with pytest.raises(UserError, match="is a link out of"):
        cut_crops(root, table(root), workers=1)


@pytest.mark.parametrize("text", ESCAPES)
def test_images_and_feature_store(root: Path, tmp_path: Path, text: str) -> None:
    (root / "c").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(root / "c" / "1.jpg")
    backbone = BACKBONES.build({"type": "tiny_means"}).eval()
    image = f"{filled(text, root)}/t/face_00001.jpg"
    with pytest.raises(UserError, match="is not a path below") as caught:
        read_crop(root, image, preprocessing=backbone.preprocessing)
    assert not isinstance(caught.value, DamagedImageError)  # --skip-damaged does not skip it
    with pytest.raises(UserError, match="is not a path below"):
        over_crops(root, [image, image], lambda number, picture: number)
    store = FeatureStore(root / "store", backbone.fingerprint())
    with pytest.raises(UserError, match="is not a path below"):
        extract(backbone, root, {"original": ["c/1.jpg", image]}, store, ExtractOptions(skip_damaged=True))
    store.create(backbone.feature_dim)
    for shard in (filled(text, root), "a/../../canary"):
        for use in (
            lambda shard=shard: store.write("original", shard, {"a": np.zeros(48, np.float32)}, [], "F32"),
            lambda shard=shard: store.open(shard),
            lambda shard=shard: store.read_shard("original", shard),
        ):
            if "/" in shard:  # else it is the name of a file, with what follows
                with pytest.raises(UserError, match="is not a path below"):
                    use()


@pytest.mark.parametrize("prefix", ["../canary/", "/", "./"])
def test_trees_of_a_frame_table(root: Path, lam_tree: Path, prefix: str) -> None:
    """A data set of one's own whose images lead out: no feature store is made there."""

    class Own(Ego4D):
        def frames(self, split: str) -> pd.DataFrame:
            found = super().frames(split)
            return found.assign(image=[prefix + image for image in found["image"]])

    with pytest.raises(UserError, match="an image's tree: .* is not a path below"):
        extract_features([recipe("probe")], Session(Own(lam_tree), out=root / "runs"))
