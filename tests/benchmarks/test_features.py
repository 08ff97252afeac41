import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import features
from benchmarks.features import DamagedImageError, FeatureStore, extract, shard_of
from registry import BACKBONES, UserError

IMAGES = ["a/t/1.png", "a/t/2.png", "b/t/1.png", "top.png"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for image in IMAGES:
        path = tmp_path / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (24, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def store_at(folder: Path) -> FeatureStore:
    return FeatureStore(folder, BACKBONES.build(dict(type="tiny_means")).fingerprint())


def test_features_are_the_backbones_own(tree: Path, tmp_path: Path) -> None:
    """Each vector against one image at a time, opened and mirrored by PIL."""
    backbone, store = BACKBONES.build(dict(type="tiny_means")), store_at(tmp_path / "store")
    done = extract(backbone, tree, {"original": IMAGES, "flipped": IMAGES[:2]}, store, batch_size=3)
    assert (done.encoded, done.reused, done.damaged) == (6, 0, [])
    for view, images in (("original", IMAGES), ("flipped", IMAGES[:2])):
        for image, found in zip(images, store.read(view, images), strict=True):
            picture = Image.open(tree / image)
            if view == "flipped":
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = torch.from_numpy(backbone.preprocessing.resize_crop(picture).copy())[None]
            assert torch.equal(found, backbone(backbone.preprocessing.normalise(pixels))[0])


def test_what_is_there_is_not_computed_again(tree: Path, tmp_path: Path) -> None:
    backbone = BACKBONES.build(dict(type="tiny_means"))
    extract(backbone, tree, {"original": IMAGES[:1]}, store_at(tmp_path / "store"))
    done = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    assert (done.encoded, done.reused) == (3, 1)
    shutil.rmtree(tree)
    done = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    assert (done.encoded, done.reused) == (0, 4)


def test_manifest_says_what_the_store_holds(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store)
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["feature_dim"] == 48
    assert manifest["views"] == {"original": {"shards": 3, "images": 4}}
    assert manifest["fingerprint"] == store.fingerprint


def test_order_asked_for_is_order_given(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store)
    assert torch.equal(store.read("original", IMAGES[::-1]), store.read("original", IMAGES).flip(0))


def test_absence_is_never_silent(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES[:1]}, store)
    with pytest.raises(UserError, match="has no original features of a/t/2.png"):
        store.read("original", IMAGES[:2])
    with pytest.raises(UserError, match="has no flipped features"):
        store.read("flipped", IMAGES[:1])


def test_another_backbone_is_refused(tree: Path, tmp_path: Path) -> None:
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    with pytest.raises(UserError, match="another backbone, weights or preprocessing"):
        FeatureStore(tmp_path / "store", BACKBONES.build(dict(type="tiny_means", scale=2.0)).fingerprint())


@pytest.mark.parametrize("content", [b"", b"no picture", "half"], ids=["empty", "text", "truncated"])
def test_damaged_crop_is_named_or_skipped(tree: Path, tmp_path: Path, content: bytes | str) -> None:
    victim = tree / IMAGES[1]
    victim.write_bytes(victim.read_bytes()[:-300] if isinstance(content, str) else content)
    backbone, store = BACKBONES.build(dict(type="tiny_means")), store_at(tmp_path / "store")
    with pytest.raises(DamagedImageError, match=f"damaged crop {victim}: .*--skip-damaged"):
        extract(backbone, tree, {"original": IMAGES}, store)
    done = extract(backbone, tree, {"original": IMAGES}, store, skip_damaged=True)
    assert done.damaged == [IMAGES[1]]
    assert len(store.read("original", [IMAGES[0], *IMAGES[2:]])) == 3
    again = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"), skip_damaged=True)
    assert (again.encoded, again.damaged) == (0, [IMAGES[1]])


def test_a_disk_that_is_too_small_is_told_before_the_work(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="no space for the features in .*--out DIR"):
        extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    assert not (tmp_path / "store" / "original").exists()


def test_an_interrupted_run_keeps_the_finished_shards(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, store = BACKBONES.build(dict(type="tiny_means")), store_at(tmp_path / "store")
    writes, add = [], FeatureStore.add

    def add_one_then_stop(self: FeatureStore, *arguments: object) -> None:
        if writes:
            raise KeyboardInterrupt
        writes.append(arguments)
        add(self, *arguments)

    monkeypatch.setattr(FeatureStore, "add", add_one_then_stop)
    with pytest.raises(KeyboardInterrupt):
        extract(backbone, tree, {"original": IMAGES}, store, batch_size=1)
    monkeypatch.setattr(FeatureStore, "add", add)
    done = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"), batch_size=1)
    assert (done.encoded, done.reused) == (2, 2)
    assert not list((tmp_path / "store").rglob("*.part"))


def test_damaged_feature_file_is_named(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store)
    path = store.path("original", "a")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged feature file .*a.safetensors"):
        store.read("original", IMAGES)


def test_first_folder_names_the_shard() -> None:
    assert [shard_of(image) for image in ("clip/track/f.jpg", "clip/f.jpg", "f.jpg")] == ["clip", "clip", "_"]
