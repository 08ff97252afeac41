import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backbones.base import Backbone
from benchmarks.data.pictures import DamagedImageError
from benchmarks.features import encoding, loops
from benchmarks.features.backlog import deal
from benchmarks.features.extract import ExtractOptions, extract, fingerprint_of
from benchmarks.features.shard_files import shard_of
from benchmarks.features.store import FeatureStore
from registry import BACKBONES, UserError
from tests.benchmarks.features.extracting import make_crops, names_that_differ, stop_after

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
    done = extract(backbone, tree, {"original": IMAGES, "flipped": IMAGES[:2]}, store, ExtractOptions(batch_size=3))
    assert (done.encoded, done.reused, done.damaged) == (6, 0, [])
    for view, images in (("original", IMAGES), ("flipped", IMAGES[:2])):
        for image, found in zip(images, store.read(view, images), strict=True):
            picture = Image.open(tree / image)
            if view == "flipped":
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = torch.from_numpy(backbone.preprocessing.resize_crop(picture).copy())[None]
            assert torch.equal(found, backbone(backbone.preprocessing.normalise(pixels))[0])


def test_existing_features_are_not_computed_again(tree: Path, tmp_path: Path) -> None:
    backbone = BACKBONES.build(dict(type="tiny_means"))
    extract(backbone, tree, {"original": IMAGES[:1]}, store_at(tmp_path / "store"))
    done = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    assert (done.encoded, done.reused) == (3, 1)
    shutil.rmtree(tree)
    done = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    assert (done.encoded, done.reused) == (0, 4)


def test_the_manifest_describes_the_store(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store)
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["feature_dim"] == 48
    assert manifest["views"] == {"original": {"shards": 3, "images": 4}}
    assert manifest["fingerprint"] == store.fingerprint


def test_features_come_in_the_requested_order(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store)
    assert torch.equal(store.read("original", IMAGES[::-1]), store.read("original", IMAGES).flip(0))


def test_missing_features_are_an_error(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES[:1]}, store)
    with pytest.raises(UserError, match="has no original features of a/t/2.png"):
        store.read("original", IMAGES[:2])
    with pytest.raises(UserError, match="has no flipped features"):
        store.read("flipped", IMAGES[:1])


def test_another_backbone_is_refused(tree: Path, tmp_path: Path) -> None:
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    with pytest.raises(UserError, match="another backbone, weights, preprocessing or dtype"):
        FeatureStore(tmp_path / "store", BACKBONES.build(dict(type="tiny_means", scale=2.0)).fingerprint())


def bomb(path: Path) -> None:
    """Write the header of a PNG of 20,000 x 20,000 pixels, without the pixels."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"no picture"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-300]),
    "bomb": bomb,
    "large": lambda path: Image.new("L", (8000, 7000)).save(path),
    "narrow": lambda path: Image.new("L", (20000, 1)).resize((1, 200000)).save(path),
    "link to nothing": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_crop_is_named_or_skipped(tree: Path, tmp_path: Path, damage: str) -> None:
    victim = tree / IMAGES[1]
    DAMAGE[damage](victim)
    backbone, store = BACKBONES.build(dict(type="tiny_means")), store_at(tmp_path / "store")
    with pytest.raises(DamagedImageError, match=f"(damaged|cannot read) crop {victim}: .*--skip-damaged"):
        extract(backbone, tree, {"original": IMAGES}, store)
    done = extract(backbone, tree, {"original": IMAGES}, store, ExtractOptions(skip_damaged=True))
    assert done.damaged == [IMAGES[1]]
    assert len(store.read("original", [IMAGES[0], *IMAGES[2:]])) == 3
    again = extract(
        backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"), ExtractOptions(skip_damaged=True)
    )
    assert (again.encoded, again.damaged) == (0, [IMAGES[1]])


def test_a_repaired_crop_is_no_longer_listed_as_damaged(tree: Path, tmp_path: Path) -> None:
    backbone, store = BACKBONES.build(dict(type="tiny_means")), store_at(tmp_path / "store")
    sound = (tree / IMAGES[1]).read_bytes()
    (tree / IMAGES[1]).write_bytes(b"")
    extract(backbone, tree, {"original": IMAGES}, store, ExtractOptions(skip_damaged=True))
    (tree / IMAGES[1]).write_bytes(sound)
    done = extract(backbone, tree, {"original": IMAGES}, store)
    assert (done.encoded, done.reused, done.damaged, store.damaged) == (1, 3, [], [])


def test_an_unreadable_crop_is_named(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("benchmarks.data.pictures.open_input", refuse)
    with pytest.raises(DamagedImageError, match=r"damaged crop .*a/t/1.png: Permission denied;"):
        extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES[:1]}, store_at(tmp_path / "store"))


def test_a_missing_crop_is_an_error_even_with_skip_damaged(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"crop .*a/t/9.png does not exist"):
        extract(
            BACKBONES.build(dict(type="tiny_means")),
            tree,
            {"original": ["a/t/9.png"]},
            store_at(tmp_path / "store"),
            ExtractOptions(skip_damaged=True),
        )


def pictures(folder: Path) -> dict[str, tuple[Path, Image.Image]]:
    """Save images of all modes that are converted: name -> its path, and the expected RGB."""
    random = np.random.default_rng(0)
    grey = random.integers(0, 255, (30, 30), dtype=np.uint8)
    colours = Image.fromarray(random.integers(0, 255, (30, 30, 3), dtype=np.uint8))
    palette = colours.quantize(16)
    table = np.array(palette.getpalette()[:48], np.uint8).reshape(16, 3)
    alpha = colours.copy()
    alpha.putalpha(Image.fromarray(grey))
    found = {
        "grey.png": (Image.fromarray(grey), Image.fromarray(np.stack([grey] * 3, axis=2))),
        "palette.png": (palette, Image.fromarray(table[np.array(palette)])),
        "alpha.png": (alpha, colours),  # alpha is left out, the colours below it count
        "one.png": (Image.new("RGB", (1, 1), (10, 20, 30)), Image.new("RGB", (16, 16), (10, 20, 30))),
        "turned.jpg": (Image.new("RGB", (40, 20), (200, 10, 10)), Image.new("RGB", (40, 20), (200, 10, 10))),
        "grey.jpg": (Image.new("L", (20, 20), 90), Image.new("RGB", (20, 20), (90, 90, 90))),
        # 255 - ink, times 255 - black: what Pillow makes of CMYK
        "cmyk.jpg": (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), Image.new("RGB", (20, 20), (255, 0, 0))),
    }  # fmt: skip
    saved = {}
    for name, (picture, meant) in found.items():
        exif = picture.getexif()
        if name == "turned.jpg":
            exif[0x0112] = 6  # to be turned by 90 degrees, says the camera
            picture.paste((10, 10, 200), (0, 0, 20, 20))
            meant.paste((10, 10, 200), (0, 0, 20, 20))
        picture.save(folder / name, exif=exif, quality=100, subsampling=0)
        saved[name] = (folder / name, meant)
    return saved


def test_all_image_modes_become_rgb(tmp_path: Path) -> None:
    backbone = BACKBONES.build(dict(type="tiny_means"))
    saved = pictures(tmp_path)
    store = store_at(tmp_path / "store")
    extract(backbone, tmp_path, {"original": list(saved)}, store)
    for name, (_, meant) in saved.items():
        pixels = torch.from_numpy(backbone.preprocessing.resize_crop(meant).copy())[None]
        expected = backbone(backbone.preprocessing.normalise(pixels))[0]
        # a grey level is 1 / 57 of a standard deviation; JPEG may round by two
        torch.testing.assert_close(store.read("original", [name])[0], expected, atol=2 / 57, rtol=0)


def test_a_missing_manifest_is_written_again(tmp_path: Path) -> None:
    backbone = BACKBONES.build(dict(type="tiny_means"))
    images = list(pictures(tmp_path))
    extract(backbone, tmp_path, {"original": images}, store_at(tmp_path / "store"))
    manifest = tmp_path / "store" / "manifest.json"
    text = manifest.read_bytes()
    manifest.unlink()
    assert extract(backbone, tmp_path, {"original": images}, store_at(tmp_path / "store")).encoded == 0
    assert manifest.read_bytes() == text


def test_unusual_file_names(tmp_path: Path) -> None:
    images = ["a b/t/ü .png", "a b/t/line\nbreak.png", "[c]*?/t/'\".png", "日本/1.png", os.fsdecode(b"d/\xff.png")]
    for image in images:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (len(image), 0, 0)).save(tmp_path / image)
    from benchmarks.commands.extract import images_below

    assert sorted(images_below(tmp_path)) == sorted(images)
    backbone = BACKBONES.build(dict(type="tiny_means"))
    extract(backbone, tmp_path, {"original": images}, store_at(tmp_path / "store"))
    store = store_at(tmp_path / "store")
    alone = [extract_one(backbone, tmp_path, image) for image in images]
    assert torch.equal(store.read("original", images), torch.stack(alone))
    assert extract(backbone, tmp_path, {"original": images}, store).reused == 5


def extract_one(backbone: Backbone, root: Path, image: str) -> torch.Tensor:
    pixels = torch.from_numpy(backbone.preprocessing.resize_crop(Image.open(root / image)).copy())[None]
    return backbone(backbone.preprocessing.normalise(pixels))[0]


def test_links_to_folders_are_followed_and_folders_are_not_images(tree: Path, tmp_path: Path) -> None:
    from benchmarks.commands.extract import images_below

    (tmp_path / "root" / "x.jpg").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to(tree / "a")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "x.jpg" / "1.JPEG").touch()
    assert sorted(images_below(tmp_path / "root")) == ["link/t/1.png", "link/t/2.png", "x.jpg/1.JPEG"]


def test_pictures_with_other_endings_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from benchmarks.commands.extract import images_below

    for name in ("1.png", "2.webp", "3.WebP", "4.heic", "5.txt"):
        (tmp_path / name).touch()
    assert list(images_below(tmp_path)) == ["1.png"]
    assert capsys.readouterr().err == f"{tmp_path}: 3 pictures with other endings left out: .heic 1, .webp 2\n"


def test_too_little_disk_space_is_reported_before_the_extraction(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("benchmarks.features.extract.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="no space for the features in .*--out DIR"):
        extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    assert not (tmp_path / "store" / "original").exists()


def test_an_interrupted_run_keeps_the_finished_batches(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, store = BACKBONES.build(dict(type="tiny_means")), store_at(tmp_path / "store")
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(backbone, tree, {"original": IMAGES}, store, ExtractOptions(batch_size=1))
    monkeypatch.undo()
    assert store_at(tmp_path / "store").seconds > 0
    done = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"), ExtractOptions(batch_size=1))
    assert (done.encoded, done.reused) == (2, 2)
    assert not list((tmp_path / "store").rglob("*.part"))


def test_a_damaged_feature_file_is_rebuilt(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    backbone = BACKBONES.build(dict(type="tiny_means"))
    extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    path = store_at(tmp_path / "store").path("original", "a")
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 4]))
    done = extract(backbone, tree, {"original": IMAGES}, store_at(tmp_path / "store"))
    assert (done.encoded, done.reused) == (2, 2)
    assert path.read_bytes() == sound
    assert f"damaged feature file {path}: rebuilding it" in capsys.readouterr().err


def test_features_do_not_depend_on_batches_or_shares(tmp_path: Path) -> None:
    """In one process or two shares, all views at once or one by one, in batches of any size."""
    images = make_crops(tmp_path / "images", {"a": 23, "b": 5, "c": 1, "d": 17})
    views = {"original": images, "flipped": images[3:30]}

    def make(folder: str, **arguments: int) -> FeatureStore:
        backbone = BACKBONES.build(dict(type="slow_means", **arguments))
        return backbone, FeatureStore(tmp_path / folder, backbone.fingerprint())

    backbone, store = make("one")
    extract(backbone, tmp_path / "images", views, store)
    assert set(backbone.batches) == {4}  # passes of one size are what makes the bits equal
    backbone, store = make("shares")
    extract(backbone, tmp_path / "images", views, store, ExtractOptions(share=(1, 2), batch_size=7))
    backbone, store = make("views")
    extract(backbone, tmp_path / "images", {"flipped": images[3:9]}, store, ExtractOptions(batch_size=3))
    extract(backbone, tmp_path / "images", {"original": images}, store)
    extract(backbone, tmp_path / "images", views, store, ExtractOptions(batch_size=64))
    assert names_that_differ(tmp_path / "one", tmp_path / "shares") == []
    assert names_that_differ(tmp_path / "one", tmp_path / "views") == []


def test_the_gpu_loop_gives_the_same_features_as_the_cpu_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on the CPU, without CUDA streams: decoding, mirroring, damage and writing are the same."""
    images = make_crops(tmp_path / "images", {"a": 23, "b": 5, "c": 1, "d": 17})
    Image.new("RGB", (90, 70), (3, 4, 5)).save(tmp_path / "images" / images[0])  # resized by its decoder
    (tmp_path / "images" / images[7]).write_bytes(b"")
    views = {"original": images, "flipped": images[3:30]}
    backbone = BACKBONES.build(dict(type="slow_means"))
    for folder in ("workers", "pipeline"):
        store = FeatureStore(tmp_path / folder, backbone.fingerprint())
        done = extract(backbone, tmp_path / "images", views, store, ExtractOptions(skip_damaged=True, batch_size=5))
        assert (done.encoded, done.damaged) == (46 + 27 - 2, [images[7]])
        monkeypatch.setattr("benchmarks.features.extract.cpu_loop", loops.gpu_loop)
    assert names_that_differ(tmp_path / "workers", tmp_path / "pipeline") == []


def test_batches_shrink_when_memory_runs_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    device = torch.device("cpu")

    class Small:
        """Takes five images."""

        preprocessing = BACKBONES.build(dict(type="tiny_means")).preprocessing

        def encoder(self, device: torch.device, dtype: str | None) -> object:
            return self.encode

        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            if len(pixels) > self.fits:
                raise torch.OutOfMemoryError("no room")
            return pixels[:, 0, 0, :1].float()

    small = Small()
    small.fits = 5
    pixels = torch.arange(41, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3)
    encode = encoding.Encoding(small, device, None, 32)
    assert encode(pixels).flatten().tolist() == list(range(41))
    assert encode.size == 4
    assert "out of memory with a batch of 8 images; continuing with 4" in capsys.readouterr().err
    assert encoding.find_batch_size(small, device, None) == 4
    small.fits = 0
    with pytest.raises(UserError, match="too little memory for one image"):
        encode(pixels)
    assert encoding.find_batch_size(small, device, None) == 1


def test_an_extraction_with_little_memory(tmp_path: Path) -> None:
    images = make_crops(tmp_path / "images", {"a": 9, "b": 5})
    for folder, fits in (("much", 1000), ("little", 0)):
        backbone = BACKBONES.build(dict(type="slow_means", fits=fits))
        store = FeatureStore(tmp_path / folder, backbone.fingerprint())
        if fits:
            assert extract(backbone, tmp_path / "images", {"original": images}, store).encoded == 14
        else:
            with pytest.raises(UserError, match="too little memory for one image"):
                extract(backbone, tmp_path / "images", {"original": images}, store)


def test_flop_of_an_image() -> None:
    """One product of 768 values and 32 x 768 weights; for InternViT only the layers are counted by hand."""
    assert encoding.flops_of(BACKBONES.build(dict(type="slow_means"))) == 2 * 768 * 32
    nano = BACKBONES.build(dict(type="internvit_nano"))
    size = nano.architecture
    tokens = (size["image_size"] // size["patch_size"]) ** 2 + 1
    width, inner = size["hidden_size"], size["intermediate_size"]
    layer = 2 * tokens * width * (4 * width + 2 * inner) + 4 * tokens**2 * width
    # the last layer computes keys and values of all tokens, and the rest of one
    layers = size["num_hidden_layers"]
    assert (layers - 1) * layer < encoding.flops_of(nano) < layers * layer * 1.05


@settings(max_examples=50, deadline=None)
@given(sizes=st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(0, 50)), processes=st.integers(1, 5))
def test_clips_are_dealt_once_and_evenly(sizes: dict[str, int], processes: int) -> None:
    shares = deal(sizes, processes)
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)  # the last clip of the fullest fitted best there


@pytest.mark.gpu("a CUDA device that no other program uses: it fills the memory to find a batch size")
def test_gpu_features_are_close_to_cpu_features(tmp_path: Path) -> None:
    """With a measured batch size, two runs give equal bits, close to the CPU's features."""
    images = make_crops(tmp_path / "images", {"a": 23, "b": 5})
    found = []
    for device, folder in (("cpu", "cpu"), ("cuda", "one"), ("cuda", "other")):
        backbone = BACKBONES.build(dict(type="internvit_nano")).to(device)
        store = FeatureStore(tmp_path / folder, fingerprint_of(backbone))
        views = dict.fromkeys(("original", "flipped"), images)
        done = extract(backbone, tmp_path / "images", views, store, ExtractOptions(device=device))
        assert done.encoded == 56
        found.append(torch.cat([store.read(view, images) for view in ("original", "flipped")]))
    assert torch.cosine_similarity(found[0].float(), found[1].float()).min() > 0.999
    assert names_that_differ(tmp_path / "one", tmp_path / "other") == []


def test_damaged_feature_file_is_named(tree: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    extract(BACKBONES.build(dict(type="tiny_means")), tree, {"original": IMAGES}, store)
    path = store.path("original", "a")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged feature file .*a.safetensors"):
        store.read("original", IMAGES)


def test_first_folder_names_the_shard() -> None:
    assert [shard_of(image) for image in ("clip/track/f.jpg", "clip/f.jpg", "f.jpg")] == ["clip", "clip", "_"]
