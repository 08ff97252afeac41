"""Augmentation of pixel windows: against torchvision, and against a loop over the pictures of a batch."""

import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as plain
from torchvision.transforms.v2 import functional

from backbones.base import Preprocessing
from benchmarks.config.recipe import Augment
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Ego4D
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.row import RecipeRow
from benchmarks.pipeline.session import Session
from benchmarks.pixels.augment import RATIO, draw_boxes, resized_crops
from benchmarks.pixels.crops import Crops
from benchmarks.pixels.source import PixelSource
from benchmarks.pixels.windows import CropRows, PixelData, as_tensors
from benchmarks.priors.base import Priors
from benchmarks.system import interrupts
from benchmarks.training import loop
from registry import load_plugin
from tests.contracts import uniform

HOME = Path(__file__).resolve().parents[3]
SIDE = 24
TRUNK = HOME / "tests" / "parts" / "tiny_trunk.py"
BOTH = Augment(flip=0.5, crop=0.8)


@pytest.fixture(scope="module", autouse=True)
def _trunk() -> None:
    load_plugin(TRUNK)


def pictures(count: int, side: int = SIDE) -> np.ndarray:
    """Smooth pictures with noise, as faces are, uint8 (count, side, side, 3)."""
    coarse = Image.Resampling.BICUBIC
    values = ((uniform("pictures", (count, 6, 6, 3)) + 1) * 127).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((side, side), coarse)) for each in values])


def windows(folder: Path, priors: Priors | None = None) -> tuple[PixelData, np.ndarray, np.ndarray]:
    """Forty windows over ten stored pictures, half of them in the mirrored view; the pictures, and the rows."""
    stored = pictures(10)
    for number, picture in enumerate(stored):
        Image.fromarray(picture).save(folder / f"{number}.png")
    crops = Crops(folder, [f"{number}.png" for number in range(10)], Preprocessing(SIDE, SIDE, "bilinear"))
    rows = np.random.default_rng(3).integers(0, 20, (40, 7))
    rows[5] = -1  # a window without any frame
    return PixelData(crops, CropRows(rows, np.arange(40) % 2), priors), stored, rows


# -- the boxes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smallest", [0.8, 0.08])
def test_boxes_are_distributed_like_torchvisions(smallest: float) -> None:
    side, count = 224, 6000
    ours = draw_boxes((count // 6, 6), side, smallest, np.random.default_rng(1)).reshape(-1, 4).astype(np.int64)
    torch.manual_seed(2)
    picture = torch.zeros(3, side, side)
    theirs = np.array([RandomResizedCrop.get_params(picture, [smallest, 1.0], list(RATIO)) for _ in range(count)])
    assert (ours >= 0).all() and (ours[:, :2] + ours[:, 2:] <= side).all()
    for name, values, wanted in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True):
        assert ks_2samp(values, wanted).pvalue > 1e-3, name
    for what in (lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 2] / box[:, 3]):
        assert ks_2samp(what(ours), what(theirs)).pvalue > 1e-3
    whole = [(boxes[:, 2:] == side).all(axis=1).mean() for boxes in (ours, theirs)]
    assert whole[0] == pytest.approx(whole[1], abs=0.008)  # ten tries, then the whole picture


def test_a_box_is_drawn_for_each_frame() -> None:
    boxes = draw_boxes((50, 7), 224, 0.8, np.random.default_rng(1))
    assert boxes.shape == (50, 7, 4)
    assert len(np.unique(boxes.reshape(-1, 4), axis=0)) > 300
    np.testing.assert_array_equal(boxes, draw_boxes((50, 7), 224, 0.8, np.random.default_rng(1)))
    assert (boxes != draw_boxes((50, 7), 224, 0.8, np.random.default_rng(2))).any()


# -- the pixels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smallest", [0.8, 0.1])
def test_crops_are_torchvisions(smallest: float) -> None:
    stored = pictures(4, 96)
    which = np.arange(32) % 4
    boxes = draw_boxes((32,), 96, smallest, np.random.default_rng(4))
    found = resized_crops(stored, which, boxes)
    for number, (of, box) in enumerate(zip(which, boxes.tolist(), strict=True)):
        picture = torch.from_numpy(stored[of]).permute(2, 0, 1)
        wanted = functional.resized_crop(picture, *box, [96, 96], antialias=True).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found[number], wanted)
        # torchvision's way for pictures of PIL, as in the published program, rounds between its two passes.
        pil = np.asarray(plain.resized_crop(Image.fromarray(stored[of]), *box, [96, 96]), dtype=np.int16)
        assert np.abs(found[number] - pil).max() <= 1


def test_a_batch_is_that_of_a_loop_over_its_frames(tmp_path: Path) -> None:
    """Mirror whole windows, cut each frame on its own: drawn here from the same generator, applied by torchvision."""
    points = uniform("points", (40, 5, 3)).astype(np.float32)
    priors = Priors(uniform("pose", (40, 3)).astype(np.float32) * 60, points)
    data, stored, rows = windows(tmp_path, priors)
    data.start_epoch(7, 2, BOTH)
    generator = np.random.default_rng([7, 2])
    mirrored = generator.random(40) < 0.5
    boxes = draw_boxes((40, 7), SIDE, 0.8, generator)
    assert 10 < mirrored.sum() < 30
    at = np.random.default_rng(0).permutation(40)[:16]
    at[0] = 5
    batch, labels = data[at]
    assert batch.priors is not None
    assert len(batch.pixels) == 15 * 7  # no two frames of a batch are cut alike
    assert labels.tolist() == (at % 2).tolist()
    plain_priors, mirrored_priors = as_tensors(priors), as_tensors(priors.mirrored())
    for place, window in enumerate(at):
        for name, values in (mirrored_priors if mirrored[window] else plain_priors).items():
            torch.testing.assert_close(batch.priors[name][place], values[window], atol=0, rtol=0)
        for frame in range(7):
            number = rows[window, frame]
            if number < 0:
                assert batch.rows[place, frame] == -1
                continue
            picture = torch.from_numpy(stored[number % 10]).permute(2, 0, 1)
            if (number >= 10) != mirrored[window]:  # mirrored twice is the original
                picture = functional.horizontal_flip(picture)
            wanted = functional.resized_crop(picture, *boxes[window, frame].tolist(), [SIDE, SIDE], antialias=True)
            torch.testing.assert_close(batch.pixels[batch.rows[place, frame]], wanted.permute(1, 2, 0), atol=0, rtol=0)


def test_without_crops_frames_are_still_shared(tmp_path: Path) -> None:
    data, _, rows = windows(tmp_path)
    for augment, most in ((Augment(), 20), (Augment(flip=0.5), 20)):
        data.start_epoch(7, 0, augment)
        batch, _ = data[range(40)]
        assert len(batch.pixels) <= most < rows.size
    data.start_epoch(7, 0, Augment())
    np.testing.assert_array_equal(data.rows, rows)


def test_draws_depend_on_seed_and_epoch_only(tmp_path: Path) -> None:
    data, _, _ = windows(tmp_path)

    def drawn(seed: int, epoch: int) -> torch.Tensor:
        data.start_epoch(seed, epoch, BOTH)
        return data[range(8)][0].pixels

    first = drawn(1, 0)
    assert first.shape == (7 * 7, SIDE, SIDE, 3)
    for seed, epoch in ((1, 1), (2, 0)):
        assert not torch.equal(drawn(seed, epoch), first)
    assert torch.equal(drawn(1, 0), first)
    # A process that has only some of the windows sees the same.
    assert torch.equal(data.part(np.arange(3, 8))[range(5)][0].pixels, data[range(3, 8)][0].pixels)


# -- the whole line -----------------------------------------------------------------------------------------------

SETTINGS = [
    "backbone.frozen=false", "windows.stride.train=2", "windows.stride.val=2", "training.epochs=6",
    "training.lr=0.01", "training.batch_size=16", "training.schedule=cosine", "training.schedule_floor=0.001",
    "training.schedule_unit=epoch", "training.class_weight=balanced_key_frames", "augment.flip=0.5",
    "augment.crop=0.8", "temporal_dropout=true",
]  # fmt: skip


@pytest.mark.slow
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    lam_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = resolve("gazelstm", "ego4d", backbone="tiny_trunk", settings=SETTINGS)
    pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path / "whole"))
    loss, steps = loop.cross_entropy, []

    def counted(*arguments: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 12:
            monkeypatch.setattr(interrupts, "pending", signal.SIGTERM)
        return loss(*arguments)

    monkeypatch.setattr(loop, "cross_entropy", counted)
    with pytest.raises(interrupts.Stopped):
        pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path / "resumed"))
    monkeypatch.setattr(interrupts, "pending", 0)
    assert not list((tmp_path / "resumed").glob("trainings/*/*/model.safetensors"))
    pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path / "resumed"))
    whole, resumed = (
        next((tmp_path / name).glob("trainings/*/*/model.safetensors")).read_bytes() for name in ("whole", "resumed")
    )
    assert whole == resumed
    tables = [pd.read_csv(next((tmp_path / name).glob("results/*/*/predictions.csv"))) for name in ("whole", "resumed")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    per_epoch = len(RecipeRow(row, Session(Ego4D(lam_tree))).key_frames["train"].rows) / 16
    assert len(steps) == 6 * np.ceil(per_epoch)


# -- the published fault ------------------------------------------------------------------------------------------


def test_blurred_key_frames_of_test_are_black_on_request(lam_tree: Path) -> None:
    session = Session(Ego4D(lam_tree))
    row = resolve("gazelstm", "ego4d", backbone="tiny_trunk", settings=[*SETTINGS, "published_faults=true"])
    table = session.tables["test"]
    chosen = RecipeRow(row, session).key_frames["test"]
    crops = Crops(lam_tree, table["image"].tolist(), Preprocessing(16, 16))
    p = np.random.default_rng(0).random(len(table))
    source = PixelSource(
        {"test": crops, "val": crops}, {"test": np.arange(len(table)), "val": np.arange(len(table))},
        {"test": table, "val": table}, {}, 0.0, [], {"test": p, "val": p}, None, True,
    )  # fmt: skip
    faulty, clean = (source.windows(chosen, split, ["original", "flipped"]) for split in ("test", "val"))
    blurred = p[chosen.centres] < 0.2
    assert 0 < blurred.sum() < len(blurred)
    half = len(chosen.rows)
    for window in range(2 * half):
        (found, _), (sharp, _) = faulty[[window]], clean[[window]]
        key = clean.rows[window, 3]
        for place in range(7):
            picture = found.pixels[found.rows[0, place]]
            if blurred[window % half] and clean.rows[window, place] == key:
                assert not picture.any()
            else:
                assert torch.equal(picture, sharp.pixels[sharp.rows[0, place]])
