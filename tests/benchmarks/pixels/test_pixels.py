"""Windows of pixels, and the line that trains a backbone on them: against loops over pictures that PIL decodes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks.config.recipe import Augment, Recipe
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Dataset, Ego4D
from benchmarks.data.windows import KeyFrames
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.extract import extract_features
from benchmarks.pipeline.recipe import training_job
from benchmarks.pipeline.row import RecipeRow
from benchmarks.pipeline.session import Session
from benchmarks.pipeline.sources import touched_rows
from benchmarks.pixels.crops import Crops, read_pixels
from benchmarks.pixels.sharpness import cumulative_normal, laplacian_variance
from benchmarks.pixels.source import PixelSource
from benchmarks.pixels.windows import as_tensors, shuffled
from benchmarks.priors.base import Priors
from benchmarks.rows import schema
from benchmarks.rows.identity import training_identity
from benchmarks.scoring.predict import score_windows
from benchmarks.table.table import rows as table_rows
from benchmarks.training import loop
from benchmarks.training.checkpoint import CHECKPOINT
from benchmarks.training.job import TrainingJob
from benchmarks.training.train import build_model
from registry import BACKBONES, UserError, load_plugin
from tests.contracts import uniform
from tools.pretrain_gaze_resnet import build_network, write
from zoo.model import LookingAtMeModel, PixelWindow, read_model
from zoo.weights import read_weights, write_weights

HOME = Path(__file__).resolve().parents[3]
TRUNK = HOME / "tests" / "parts" / "tiny_trunk.py"
SETTINGS = [
    "backbone.frozen=false", "windows.stride.train=2", "windows.stride.val=2", "training.epochs=6",
    "training.lr=0.01", "training.batch_size=16", "training.schedule=cosine",
]  # fmt: skip
SMALL = ["head.width=8", "head.feed_forward=8", "head.encoder_layers=1", "head.decoder_layers=1"]


@pytest.fixture(scope="session", autouse=True)
def _trunk() -> None:
    load_plugin(TRUNK)


def recipe(name: str = "gazelstm", *settings: str) -> Recipe:
    return resolve(name, "ego4d", backbone="tiny_trunk", settings=[*SETTINGS, *settings])


def filled(window: list[int]) -> list[int]:
    """The published rule by hand: a side's frames close up to the centre, and its outermost one fills the rest."""
    middle = len(window) // 2
    if all(row < 0 for row in window):
        return window
    centre = window[middle]
    if centre < 0:
        places = sorted(range(len(window)), key=lambda place: (abs(place - middle), place))
        centre = next(window[place] for place in places if window[place] >= 0)
    left, right = ([row for row in side if row >= 0] for side in (window[:middle], window[middle + 1 :]))
    left = [left[0] if left else centre] * (middle - len(left)) + left
    return [*left, centre, *right, *[right[-1] if right else centre] * (middle - len(right))]


def holes(table: pd.DataFrame) -> pd.DataFrame:
    """Take crops away: every fifth, which leaves key frames without one, and a whole stretch of one track."""
    image = table["image"].to_numpy().copy()
    image[::5] = ""
    image[:9] = ""
    return table.assign(image=image)


class Holes(Ego4D):
    def frames(self, split: str) -> pd.DataFrame:
        return holes(super().frames(split))


def pixels_of(dataset: Dataset, row: Recipe, budget: int = 10**9) -> tuple[PixelSource, dict[str, KeyFrames]]:
    session = Session(dataset)
    tables = {split: session.tables[split] for split in ("train", "val")}
    key_frames = {split: RecipeRow(row, session).key_frames[split] for split in tables}
    touched = {split: touched_rows([each]) for split, each in key_frames.items()}
    preprocessing = BACKBONES.build(row.backbone).preprocessing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.pixels.crops.BUDGET", budget)
        crops, positions, damaged = read_pixels(dataset.root, tables, touched, preprocessing, skip_damaged=False)
    return PixelSource(crops, positions, tables, {}, 0.0, damaged), key_frames


@pytest.mark.parametrize("budget", [10**9, 0], ids=["kept", "decoded when asked for"])
def test_batches_are_those_of_a_loop_over_files(lam_tree: Path, budget: int) -> None:
    row = recipe()
    pixels, key_frames = pixels_of(Holes(lam_tree), row, budget)
    assert pixels.crops["val"].kept is (budget > 0)
    data = pixels.windows(key_frames["val"], "val", ["original", "flipped"])
    table, chosen = pixels.tables["val"], key_frames["val"]
    half = len(chosen.rows)
    assert len(data) == 2 * half
    places = np.random.default_rng(0).permutation(2 * half)[:24].tolist()
    places += [0, half]  # the first windows, which have no frame at all
    batch, labels = data[places]
    assert len(batch.pixels) == len(np.unique(batch.rows[batch.rows >= 0])) <= batch.rows.numel() // 2
    absent_centres = 0
    for place, rows, label in zip(places, batch.rows, labels, strict=True):
        window = filled(chosen.rows[place % half].tolist())
        absent_centres += chosen.rows[place % half, 3] < 0
        assert label == table["label"][chosen.centres[place % half]]
        for row_number, at in zip(window, rows, strict=True):
            if row_number < 0:
                assert at == -1
                continue
            # 20 pixels a side become 16, bicubic, as tiny_trunk asks.
            with Image.open(lam_tree / table["image"][row_number]) as opened:
                wanted = np.asarray(opened.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC))
            np.testing.assert_array_equal(batch.pixels[at], wanted[:, ::-1] if place >= half else wanted)
    assert absent_centres > 2
    assert (batch.rows[-2:] == -1).all()


def test_a_damaged_crop_is_named_or_left_out(lam_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Ego4D(lam_tree).frames("val")["image"].tolist()[:3]
    for image in images:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).write_bytes((lam_tree / image).read_bytes())
    (tmp_path / images[1]).write_bytes(b"no picture")
    preprocessing = BACKBONES.build({"type": "tiny_trunk"}).preprocessing
    table = pd.DataFrame({"image": images})
    for budget in (10**9, 0):
        with pytest.raises(UserError, match=f"damaged crop {tmp_path / images[1]}"):
            crops = Crops(tmp_path, images, preprocessing, budget)
            crops.read(skip_damaged=False)
            crops.take(np.array([1]))
        monkeypatch.setattr("benchmarks.pixels.crops.BUDGET", budget)
        crops, positions, damaged = read_pixels(
            tmp_path, {"val": table}, {"val": np.arange(3)}, preprocessing, skip_damaged=True
        )
        assert damaged == [images[1]]
        assert positions["val"].tolist() == [0, -1, 1]
        np.testing.assert_array_equal(
            crops["val"].take(np.array([1]))[0], Crops(tmp_path, images[2:], preprocessing).take(np.array([0]))[0]
        )


@pytest.mark.parametrize("head", ["gazelstm", "gazepose"])
def test_each_frame_is_encoded_once_to_the_same_logits(head: str) -> None:
    sizes = dict(width=8, feed_forward=8, encoder_layers=1, decoder_layers=1) if head == "gazepose" else {}
    torch.manual_seed(0)
    model = LookingAtMeModel.build({"type": "gaze_resnet18", "size": 32}, {"type": head, **sizes}).eval()
    pixels = torch.from_numpy(((uniform("pixels", (70, 32, 32, 3)) + 1) * 127).astype(np.uint8))  # more than a pass
    rows = torch.from_numpy(np.random.default_rng(1).integers(0, 70, (30, 7)))
    rows[4, :2] = -1
    rows[5, 3] = -1
    priors = as_tensors(Priors(np.full((30, 3), 5, np.float32), np.zeros((30, 5, 3), np.float32)))
    present = rows >= 0
    images = model.backbone.preprocessing.normalise(pixels)[rows.clamp(min=0)]
    with torch.no_grad():
        plain = model(images, present, priors)
        once = model.judge(PixelWindow(pixels, rows, priors))
    torch.testing.assert_close(once, plain, atol=1e-6, rtol=1e-6)


def test_a_frame_shared_by_windows_gets_the_gradient_of_all() -> None:
    """In double precision and evaluation mode both ways are the same function, so their gradients are, too."""
    pixels = torch.from_numpy(((uniform("pixels", (9, 16, 16, 3)) + 1) * 127).astype(np.uint8))
    rows = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7, 8]])
    gradients = []
    for way in ("once", "plain"):
        torch.manual_seed(0)
        model = LookingAtMeModel.build({"type": "tiny_trunk", "frozen": False}, {"type": "gazelstm"}).train()
        model.backbone.network.norm.eval()
        images = model.backbone.preprocessing.normalise(pixels)[rows]
        batch = PixelWindow(pixels, rows)
        logits = model.judge(batch) if way == "once" else model(images, rows >= 0)
        logits.square().sum().backward()
        gradients.append(model.backbone.network.patches.weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_every_window_once_an_epoch_in_another_order() -> None:
    epochs = [shuffled(18, (5, epoch)).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(18)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert shuffled(18, (5, 2)).tolist() == epochs[2]


def test_blurred_neighbours_are_dropped_before_the_gaps_are_filled(lam_tree: Path) -> None:
    pixels, key_frames = pixels_of(Ego4D(lam_tree), recipe())
    table, chosen = pixels.tables["train"], key_frames["train"]
    grey = []
    for image in table["image"]:
        picture = Image.open(lam_tree / image).convert("RGB") if image else None
        grey.append(np.nan if picture is None else laplacian_variance(np.asarray(picture.resize((224, 224), 2))))
    p = cumulative_normal(np.array(grey))
    pixels.sharpness = {"train": p}
    data = pixels.windows(chosen, "train", ["original"])

    def expected(draws: np.ndarray | None) -> np.ndarray:
        windows = []
        for number, rows in enumerate(chosen.rows.tolist()):
            kept = []
            for place, row in enumerate(rows):
                blurred = row >= 0 and (p[row] < 0.2 if draws is None else draws[number, place] > p[row] + 0.2)
                kept.append(-1 if blurred and place != 3 else row)
            windows.append([pixels.positions["train"][row] for row in filled(kept)])
        return np.array(windows)

    np.testing.assert_array_equal(data.rows, expected(None))
    drawn = []
    for epoch in (0, 1, 0):
        data.start_epoch(7, epoch, Augment())
        drawn.append(data.rows)
        np.testing.assert_array_equal(data.rows, expected(np.random.default_rng([7, epoch]).random(chosen.rows.shape)))
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[0], drawn[2])


def test_priors_are_those_of_the_key_frame_and_mirror_with_it(lam_tree: Path) -> None:
    pixels, key_frames = pixels_of(Ego4D(lam_tree), recipe())

    class Numbered:
        def read(self, frames: pd.DataFrame) -> Priors:
            number = frames["frame"].to_numpy(dtype=np.float32)
            pose = np.stack([-number - 0.5, 0 * number, np.full_like(number, np.nan)], axis=1)
            points = np.arange(15, dtype=np.float32).reshape(5, 3) / 16
            return Priors(pose, np.repeat(points[None], len(number), axis=0))

    pixels.prior = Numbered()  # type: ignore[assignment]
    chosen = key_frames["train"]
    data = pixels.windows(chosen, "train", ["original", "flipped"])
    at = [3, 3 + len(chosen.rows)]
    (plain, mirrored), frame = data[at][0].priors["landmarks"], pixels.tables["train"]["frame"]
    bins = data[at][0].priors["head_pose_bins"].tolist()
    key = frame[chosen.centres[3]]
    assert bins == [[key, 0, 90], [key, 0, 90]]  # of a size, whatever the side; unknown is 90
    # Five x, five y, five confidences of points (0, 1, 2), (3, 4, 5) ... sixteenths.
    assert (plain * 16).tolist() == [0, 3, 6, 9, 12, 1, 4, 7, 10, 13, 2, 5, 8, 11, 14]
    # Left eye and right eye, left and right corner of the mouth change places, and x changes its sign.
    assert (mirrored * 16).tolist() == [0, -6, -3, -12, -9, 1, 7, 4, 13, 10, 2, 8, 5, 14, 11]


# -- the whole line -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(lam_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, schema.Result]:
    """Two seeds, one after the other."""
    out = tmp_path_factory.mktemp("undisturbed")
    return out, pipeline.run([recipe()], Session(Ego4D(lam_tree), seeds=2, out=out))[0]


def predictions(out: Path) -> pd.DataFrame:
    return pd.read_csv(next(out.glob("results/*/*/predictions.csv")))


def without_seconds(reports: list[dict]) -> list[dict]:
    return [{key: value for key, value in report.items() if key != "seconds"} for report in reports]


def test_a_backbone_learns_through_the_line(undisturbed: tuple) -> None:
    out, row = undisturbed
    assert row["splits"]["test"]["metrics"]["mAP"]["mean"] > 0.85
    assert row["backbone"]["weights"]["random_init"]
    assert row["backbone"]["fingerprint"]["weights"] == "random init, drawn by the seed of each training"
    assert not (out / "features").exists()
    # Each seed starts from weights of its own.
    first, second = (report["initial"]["sha256"] for report in row["training"])
    assert first != second
    assert row["head"]["parameters"] == row["training"][0]["parameters"] < 5_000_000


def test_what_was_trained_can_be_read_and_scores_alike(lam_tree: Path, undisturbed: tuple) -> None:
    out, row = undisturbed
    model = read_model(next(out.glob("trainings/*/seed3408/model.safetensors")))
    assert model.backbone.frozen and not model.training
    own = recipe()
    pixels, key_frames = pixels_of(Ego4D(lam_tree), own)
    found = score_windows(model, pixels.windows(key_frames["val"], "val", ["original"]), batch_size=5)
    written = predictions(out)
    written = written[(written["split"] == "val") & (written["seed"] == 3408)]
    np.testing.assert_allclose(found, written["score"], atol=1e-6)


def test_what_is_trained_is_found_again(lam_tree: Path, undisturbed: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    out, row = undisturbed
    monkeypatch.setattr(loop, "cross_entropy", lambda *_: pytest.fail("trained again"))
    (next(out.glob("results/*/*/result.json"))).rename(out / "kept.json")
    again = pipeline.run([recipe()], Session(Ego4D(lam_tree), seeds=2, out=out))[0]
    assert again["splits"] == row["splits"]


@pytest.mark.slow
def test_seeds_side_by_side_end_as_one_after_another(lam_tree: Path, undisturbed: tuple, tmp_path: Path) -> None:
    row = pipeline.run([recipe()], Session(Ego4D(lam_tree), seeds=2, out=tmp_path, workers=2, plugins=[str(TRUNK)]))[0]
    assert without_seconds(row["training"]) == without_seconds(undisturbed[1]["training"])
    pd.testing.assert_frame_equal(predictions(tmp_path), predictions(undisturbed[0]), check_exact=True)


@pytest.mark.slow
def test_killed_and_run_again_it_ends_as_undisturbed(
    lam_tree: Path, undisturbed: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both seeds are in the middle of their training when the program is killed; its processes go with it."""
    settings = [f"--set={setting}" for setting in SETTINGS]
    command = [
        sys.executable, "bench.py", "--recipe", "gazelstm", "--dataset", "ego4d", "--root", str(lam_tree), "--seeds",
        "2", "--out", str(tmp_path), "--device", "cpu", "--backbone", "tiny_trunk", "--plugin", str(TRUNK), *settings,
    ]  # fmt: skip
    nap = {**os.environ, "TINY_TRUNK_NAP": "0.3"}
    process = subprocess.Popen(command, cwd=HOME, env=nap, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 180
    while not list(tmp_path.glob(f"trainings/*/seed*/{CHECKPOINT}")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.read()  # ends when the last of its processes has closed it
    assert list(tmp_path.glob(f"trainings/*/seed*/{CHECKPOINT}"))
    assert not list(tmp_path.glob("trainings/*/seed*/model.safetensors"))
    steps = []
    loss = loop.cross_entropy
    monkeypatch.setattr(loop, "cross_entropy", lambda *arguments: (steps.append(1), loss(*arguments))[1])
    row = pipeline.run([recipe()], Session(Ego4D(lam_tree), seeds=2, out=tmp_path))[0]
    assert len(steps) < 2 * 6 * 5, "restarted instead of resuming"
    assert without_seconds(row["training"]) == without_seconds(undisturbed[1]["training"])
    pd.testing.assert_frame_equal(predictions(tmp_path), predictions(undisturbed[0]), check_exact=True)


@pytest.mark.slow
def test_processes_of_torchrun_train_one_model(lam_tree: Path, tmp_path: Path) -> None:
    """Two of them, on the CPU; the first one writes, and what it writes has learnt."""
    settings = [f"--set={setting}" for setting in SETTINGS]
    command = [
        "torchrun", "--nproc-per-node", "2", "bench.py", "--recipe", "gazelstm", "--dataset", "ego4d", "--root",
        str(lam_tree), "--out", str(tmp_path), "--device", "cpu", "--backbone", "tiny_trunk", "--plugin", str(TRUNK),
        *settings,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| method") == 1
    row = schema.read_result(next(tmp_path.glob("results/*/*/result.json")))
    assert row["splits"]["test"]["metrics"]["mAP"]["mean"] > 0.85
    assert row["splits"]["val"]["metrics"]["mAP"]["mean"] == pytest.approx(row["training"][0]["best_mAP"], abs=1e-9)
    refused = subprocess.run(
        [*command[:4], "--recipe", "probe", "--out", str(tmp_path)],
        cwd=HOME, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "torchrun is for recipes with a trainable backbone; run probe without it" in refused.stderr


def test_gazepose_runs_with_priors_from_files(lam_tree: Path, tmp_path: Path) -> None:
    pose, landmarks = {}, {}
    dataset = Ego4D(lam_tree)
    for split in ("train", "val", "test"):
        for clip, track, frame in dataset.frames(split)[["clip", "track", "frame"]].itertuples(index=False):
            pose[f"{clip}:{track}:{frame}"] = [10.0, 0.0, 0.0]
            landmarks.setdefault(clip, {}).setdefault(track, {})[str(frame)] = [[0.3, 0.4, 0.0, 0.9]] * 5
    (tmp_path / "pose.json").write_text(json.dumps(pose))
    (tmp_path / "landmarks.json").write_text(json.dumps(landmarks))
    named = [f"priors.head_pose={tmp_path / 'pose.json'}", f"priors.landmarks={tmp_path / 'landmarks.json'}"]
    row = recipe("gazepose", *SMALL, "training.epochs=3", "priors=file", *named)
    result = pipeline.run([row], Session(dataset, out=tmp_path / "runs"))[0]
    assert result["settings"]["priors"].keys() == {"head_pose", "landmarks", "version"}
    assert result["config"]["temporal_dropout"]
    assert result["splits"]["test"]["metrics"]["mAP"]["mean"] > 0.8


def test_bfloat16_trains_weights_of_float32(lam_tree: Path, tmp_path: Path) -> None:
    row = recipe("gazelstm", "training.precision=bfloat16")
    result = pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))[0]
    assert result["splits"]["test"]["metrics"]["mAP"]["mean"] > 0.8
    state = read_model(next(tmp_path.glob("trainings/*/*/model.safetensors"))).state_dict()
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}


def test_keys_that_were_added_do_not_make_old_trainings_new(lam_tree: Path) -> None:
    """A training is found by what determines it; keys at the values they had before there were any stay out of it."""

    class Source:
        backbone = {"fingerprint": {}, "weights": {"sha256": "0"}}
        damaged: list = []

    described = {"splits": {split: {"sha256": "1"} for split in ("train", "val")}}
    plain = resolve("internlstm", "ego4d")
    found = training_identity(plain, {}, described, Source())  # type: ignore[arg-type]
    assert found.keys() == {"version", "features", "frames", "damaged", "windows", "views", "head", "training"}
    assert found["training"].keys() == {"epochs", "batch_size", "lr", "weight_decay", "class_weight"}
    changed = resolve("internlstm", "ego4d", settings=["training.schedule=cosine"])
    found = training_identity(changed, {}, described, Source())  # type: ignore[arg-type]
    assert found["training"]["schedule"] == "cosine"


# -- what is told before any work ---------------------------------------------------------------------------------


def test_a_recipe_without_its_priors_says_who_makes_them(lam_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recipe gazepose: it needs head_pose_bins and landmarks.*face_mesh: ") as told:
        pipeline.run([resolve("gazepose", "ego4d")], Session(Ego4D(lam_tree), out=tmp_path / "runs"))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "runs").exists()


def test_a_recipe_without_the_weights_of_its_start_names_them(lam_tree: Path, tmp_path: Path) -> None:
    session = Session(Ego4D(lam_tree), out=tmp_path / "runs")
    with pytest.raises(
        UserError, match="recipe gazelstm_gaze360 starts from Gaze360's ResNet-18 and LSTM; add --weights"
    ):
        pipeline.run([resolve("gazelstm_gaze360", "ego4d")], session)
    file = tmp_path / "other.safetensors"
    write_weights(file, {"x": torch.zeros(1)}, {"kind": "gazelstm"})
    row = resolve("gazelstm_gaze360", "ego4d", weights=str(file))
    for work in (pipeline.run, pipeline.show_work):
        with pytest.raises(UserError, match="other.safetensors was not written by import --as gaze360; add --set init"):
            work([row], session)
    assert not (tmp_path / "runs" / "trainings").exists()


def test_a_head_that_features_cannot_serve_is_told_before_they_are_computed(lam_tree: Path, tmp_path: Path) -> None:
    row = resolve("internlstm", "ego4d", backbone="tiny_means", head="gazepose")
    for work in (pipeline.run, extract_features):
        with pytest.raises(UserError, match="head gazepose needs the key frame's map, head_pose_bins, landmarks;"):
            work([row], Session(Ego4D(lam_tree), out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_features_are_not_extracted_for_a_backbone_that_trains(
    lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert extract_features([recipe()], Session(Ego4D(lam_tree), out=tmp_path)).encoded == 0
    assert "its backbone trains, so there are no features to extract" in capsys.readouterr().err


def test_a_head_that_is_solved_cannot_train_a_backbone(lam_tree: Path, tmp_path: Path) -> None:
    row = resolve("gazelstm", "ego4d", backbone="tiny_trunk", head="probe_sklearn", settings=SETTINGS)
    with pytest.raises(UserError, match="head probe_sklearn has a closed-form fit"):
        pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))


# -- the weights of the classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["balanced", "balanced_key_frames", "[0.136,0.864]"])
def test_class_weights_are_those_of_a_loop(lam_tree: Path, tmp_path: Path, how: str) -> None:
    own = recipe("gazelstm", f"training.class_weight={how}")
    session = Session(Holes(lam_tree), out=tmp_path)
    row = RecipeRow(own, session)
    pixels, _ = pixels_of(Holes(lam_tree), own)
    pixels.backbone.update(feature_dim=16, weights={"sha256": None}, fingerprint={})
    wanted_frames = {False: 0, True: 0}
    seen: dict[str, int] = {}
    for clip, label, image in session.tables["train"][["clip", "label", "image"]].itertuples(index=False):
        position = seen.get(clip, 0)  # clips of this tree have one track each
        seen[clip] = position + 1
        if how == "balanced" or (position % 2 == 0 and image):
            wanted_frames[label == 1] += 1
    total = sum(wanted_frames.values())
    wanted = [wanted_frames[True] / total, wanted_frames[False] / total] if how.startswith("b") else [0.136, 0.864]
    splits = {split: row.key_frames[split] for split in ("train", "val")}
    found = training_job(row, pixels, splits).weights
    assert found.tolist() == pytest.approx(wanted)


# -- where a training starts --------------------------------------------------------------------------------------


def job(head: dict, backbone: dict) -> TrainingJob:
    """A job of which the model is built, and nothing else."""
    nothing: Any = None
    return TrainingJob(head, backbone, *[nothing] * 4, to_score={}, folder=Path(), device="cpu", name="")


def test_imported_weights_start_trunk_and_lstm(tmp_path: Path) -> None:
    """A file as `import --as gaze360` writes it: the trunk, and the LSTM under the head's names."""
    torch.manual_seed(9)
    source = LookingAtMeModel.build({"type": "gaze_resnet18", "seed": 9}, {"type": "gazelstm"})
    state = {key: value for key, value in source.state_dict().items() if "last_layer" not in key}
    file = tmp_path / "gaze360.safetensors"
    write_weights(file, state, {"backbone": {"type": "gaze_resnet18"}, "kind": "gaze360", "licence": "research"})
    backbone = {"type": "gaze_resnet18", "weights": str(file), "frozen": False}
    model, initial = build_model(job({"type": "gazelstm", "feature_dim": 256}, backbone), seed=1)
    assert initial["initial"]["lstm"] == {"file": "gaze360.safetensors", "kind": "gaze360", "tensors": "lstm.*"}
    for key, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]) is ("last_layer" not in key), key
    del state["head.lstm.bias_ih_l0"]
    write_weights(file, state, {})
    _, initial = build_model(job({"type": "gazelstm", "feature_dim": 256}, backbone), seed=1)
    assert initial["initial"]["lstm"] is None


def test_a_row_that_starts_from_renders_records_it(
    lam_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that `tools.pretrain_gaze_resnet` writes, for trunk and LSTM; of other weights than the row draws."""
    file = tmp_path / "gaze_resnet18_renders" / "model.safetensors"
    monkeypatch.setattr("backbones.gaze_resnet.RENDERS", file)
    short = ["backbone.size=32", "training.epochs=1", "training.batch_size=16"]
    short += ["windows.stride.train=5", "windows.stride.val=5"]
    row = resolve("gazelstm", "ego4d", settings=["init=renders", *short])
    session = Session(Ego4D(lam_tree), out=tmp_path / "runs")
    with pytest.raises(
        UserError, match=r"model.safetensors does not exist; make it with python -m tools.pretrain_gaze"
    ):
        pipeline.run([row], session)
    source = build_network(32, seed=9).state_dict()
    file.parent.mkdir()
    report = write(source, 32, file.parent, {}, {})
    model, _ = build_model(job({**row.head, "feature_dim": 256}, row.backbone), seed=1)
    stored = read_weights(file)[0]
    missing = [key for key, value in model.state_dict().items() if not torch.equal(value, stored.get(key, value + 1))]
    assert [key for key in missing if "last_layer" not in key] == []

    record = pipeline.run([row], session)[0]
    assert record["backbone"]["weights"] == {
        "name": "gaze_resnet18_renders",
        "origin": "model.safetensors",
        "file": None,  # in the checkout it is that of the shipped file
        "sha256": report["sha256"],
        "licence": "Apache-2.0",
        "random_init": False,
    }
    assert record["config"]["init"] == "renders"
    assert record["head"]["initialised_from"] == {
        "file": "model.safetensors",
        "kind": "gaze360_renders",
        "tensors": "lstm.*",
    }
    shown = [each for each in table_rows([(record, "")]) if each.recipe == record["name"]]
    assert [(each.method, each.backbone) for each in shown] == [
        ("GazeLSTM (from renders) (changed)", "gaze_resnet18 (renders)")
    ]
    # It is no import of Gaze360's, and a recipe that asks for one does not take it.
    other = resolve("gazelstm_gaze360", "ego4d", weights=str(file))
    with pytest.raises(UserError, match="was not written by import --as gaze360"):
        pipeline.run([other], session)


def test_random_trunks_differ_from_seed_to_seed_unless_one_is_named() -> None:
    def first(training: int, **named: int) -> torch.Tensor:
        config = {"type": "tiny_trunk", "frozen": False, **named}
        model, _ = build_model(job({"type": "gazelstm", "feature_dim": 16}, config), training)
        return model.backbone.network.fc.weight

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(first(1, seed=3), first(2, seed=3))
