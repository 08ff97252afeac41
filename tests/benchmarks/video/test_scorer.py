"""Scores of faces: windows by time and smoothing against plain loops, and independence of later frames."""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from backbones.base import Preprocessing
from benchmarks.data.crops import cut_crops
from benchmarks.data.frames import frame_table
from benchmarks.scoring.predict import probabilities
from benchmarks.scoring.smooth import smooth_scores
from benchmarks.video.decode import Frame, Video
from benchmarks.video.scorer import ScoredFace, Scorer, cut, reframed, widened
from benchmarks.video.track import TrackedFrame
from heads.base import Window
from registry import UserError
from tests.benchmarks.video.parts import SIZE, SQUARE, av, draw, make, model, squares
from tests.pretended import pretended_gpu
from zoo.models import Model


def frames_at(times: Sequence[float]) -> list[TrackedFrame]:
    """The squares' frames with their boxes; no detector, no tracker, no codec."""
    out = []
    for number, time in enumerate(times):
        here = squares(number)
        tracks = ["1", "2"][: len(here)]
        boxes = np.array([(left, top, left + SQUARE, top + SQUARE) for left, top, _ in here], dtype=np.float64)
        shown = av.VideoFrame.from_ndarray(draw(here), format="rgb24")
        out.append(TrackedFrame(Frame(number, time, number, 0, shown), tracks, boxes))
    return out


def scored(tracked: list[TrackedFrame], judge: Model, causal: bool = False) -> list[ScoredFace]:
    scorer = Scorer(judge, causal)
    rows = [row for one in tracked for row in scorer.push(one)] + scorer.finish()
    assert [(row.frame, row.track) for row in rows] == [(p.frame.number, t) for p in tracked for t in p.tracks]
    return rows


def plainly(tracked: list[TrackedFrame], judge: Model, causal: bool = False) -> np.ndarray:
    """The same by a loop over all frames: each position of a window takes the frame nearest to its time."""
    times = np.array([one.frame.time for one in tracked])
    head, radius = judge.network.head, judge.network.head.window // 2
    smooth = judge.smoothing["window"] // 2 if judge.smoothing else 0
    vectors: dict[tuple[str, int], torch.Tensor] = {}
    for number, one in enumerate(tracked):
        for track, box in zip(one.tracks, one.boxes, strict=True):
            left, top, right, bottom = box.astype(int)
            pixels = np.asarray(one.frame.picture())[top:bottom, left:right]
            image = judge.network.backbone.preprocessing.resize_crop(Image.fromarray(pixels))
            both = torch.from_numpy(np.stack([image, image[:, ::-1]]))[: len(judge.views)]
            with torch.no_grad():
                vectors[track, number] = judge.network.backbone(judge.network.backbone.preprocessing.normalise(both))

    def around(number: int, size: int) -> list[int]:
        out = []
        for offset in range(-size, size + 1):
            distance = np.abs(times - (times[number] + offset / judge.rate))
            nearest = int(np.flatnonzero(distance < distance.min() + 1e-7)[0]) if offset else number
            inside = times[0] <= times[number] + offset / judge.rate <= times[-1]
            near = distance[nearest] <= (1 if inside else 0.5) / judge.rate + 1e-3
            out.append(nearest if near and not (causal and offset > 0) else -1)
        return out

    raw = {}
    for track, number in vectors:
        window = around(number, radius)
        zero = torch.zeros(head.feature_dim)
        features = [
            [vectors[track, n][v] if (track, n) in vectors else zero for n in window] for v in range(len(judge.views))
        ]
        present = torch.tensor([[(track, n) in vectors for n in window]])
        with torch.no_grad():
            found = [probabilities(head(Window(torch.stack(f)[None], present)))[0] for f in features]
        raw[track, number] = np.mean(found)
    out = []
    for track, number in vectors:
        out.append(np.median([raw[track, n] for n in around(number, smooth) if (track, n) in raw]))
    return np.array(out)


RATES = {
    "the model's": np.arange(60) / 15,
    "twice the model's": np.arange(60) / 30,
    "a third less": np.arange(60) / 10,
    "not a multiple": np.arange(60) / 25,
    "varying": np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.07, 0.3], 60)),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", RATES)
def test_scores_are_those_of_a_plain_loop(name: str, causal: bool) -> None:
    tracked, judge = frames_at(RATES[name].tolist()), model()
    rows = scored(tracked, judge, causal)
    wanted = plainly(tracked, judge, causal)
    assert wanted.std() > 0.02, "the test is vacuous"
    np.testing.assert_allclose([row.score for row in rows], wanted, atol=1e-5)


def test_at_the_models_rate_smoothing_is_that_of_prediction_files() -> None:
    tracked = frames_at((np.arange(60) / 15).tolist())
    raw, smooth = scored(tracked, model(smoothing=None)), scored(tracked, model())
    frames = pd.DataFrame({"clip": "c", "track": [row.track for row in raw], "frame": [row.frame for row in raw]})
    wanted = smooth_scores(frames, np.array([row.score for row in raw]), "median", 5)
    np.testing.assert_allclose([row.score for row in smooth], wanted, atol=1e-9)
    wanted = smooth_scores(frames, np.array([row.score for row in raw]), "gaussian", 5)
    gaussian = scored(tracked, model(smoothing={"filter": "gaussian", "window": 5}))
    np.testing.assert_allclose([row.score for row in gaussian], wanted, atol=1e-9)


def test_twice_the_rate_gives_the_same_scores_at_the_same_times() -> None:
    slow = frames_at((np.arange(30) / 15).tolist())
    times = (np.arange(60) / 30).tolist()
    fast = [
        TrackedFrame(Frame(n, times[n], n, 0, slow[n // 2].frame.shown), slow[n // 2].tracks, slow[n // 2].boxes)
        for n in range(60)
    ]
    judge = model()
    every_second = [row.score for row in scored(fast, judge) if row.frame % 2 == 0 and row.frame < 50]
    np.testing.assert_allclose(every_second, [r.score for r in scored(slow, judge) if r.frame < 25], atol=1e-12)


def test_causal_rows_come_at_once_and_do_not_depend_on_later_frames() -> None:
    judge = model()
    tracked = frames_at((np.arange(50) / 20).tolist())
    scorer = Scorer(judge, causal=True)
    answers = [scorer.push(one) for one in tracked]
    for one, rows in zip(tracked, answers, strict=True):
        assert [(row.frame, row.track) for row in rows] == [(one.frame.number, track) for track in one.tracks]
    assert scorer.finish() == []
    short = scored(tracked[:23], judge, causal=True)
    assert [row.score for row in short] == [row.score for rows in answers[:23] for row in rows]


def test_memory_does_not_grow_with_the_video() -> None:
    scorer, boxes, most = Scorer(model()), [], 0
    for one in frames_at((np.arange(400) / 30).tolist()):
        kept = np.minimum(one.boxes, 119)  # the squares drift out of the picture
        boxes.append(weakref.ref(kept))
        scorer.push(TrackedFrame(one.frame, one.tracks, kept))
        del kept
        most = max(most, sum(box() is not None for box in boxes))
    assert 0 < most < 135  # of 400 frames with two faces each


def test_a_face_is_cut_like_the_data_sets_crops() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(cut(picture, np.array([2.7, 3.2, 9.9, 12.0])), picture[3:12, 2:9])
    assert np.array_equal(cut(picture, np.array([-5.0, -5, 4, 6])), picture[:6, :4])
    assert cut(picture, np.array([31.0, 3, 40, 9])) is None
    # A box of 8 x 4 and margins on the left, top, right and bottom.
    assert widened(np.array([4.0, 5, 12, 9]), [0.125, 0.5, 0.25, 0.75]).tolist() == [3, 3, 14, 12]


def test_moves_of_crops_are_limited() -> None:
    rect = np.array([10.0, 20, 30, 60])
    assert reframed(rect, np.zeros(4)).tolist() == rect.tolist()
    np.testing.assert_allclose(reframed(rect, np.array([0.1, -0.2, 0, 0])), [12, 12, 32, 52])
    np.testing.assert_allclose(reframed(rect, np.array([0, 0, np.log(1.2), np.log(0.8)])), [8, 24, 32, 56])
    np.testing.assert_allclose(
        reframed(rect, np.array([9, -9, 9, -9])), reframed(rect, np.array([0.3, -0.3, 0.3, -0.3]))
    )
    # The furthest move stays within the part of the picture that is kept.
    furthest = reframed(rect, np.full(4, 0.3))
    assert (furthest[2:] < rect[2:] + (rect[2:] - rect[:2]) / 2).all()


def test_faces_are_cut_again_where_the_backbone_reframes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores equal those of boxes that are already at the reframed place."""
    random = np.random.default_rng(3)
    pictures = [random.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8) for _ in range(12)]
    boxes = random.uniform(30, 50, (12, 2))
    boxes = np.concatenate([boxes, boxes + random.uniform(20, 40, (12, 2))], axis=1)
    moves = np.array([0.1, -0.15, np.log(1.1), np.log(0.9)])
    wanted = np.stack([reframed(box, moves) for box in boxes])

    def scores(of: np.ndarray) -> list[float]:
        tracked = []
        for number, (picture, box) in enumerate(zip(pictures, of, strict=True)):
            shown = av.VideoFrame.from_ndarray(picture, format="rgb24")
            tracked.append(TrackedFrame(Frame(number, number / 15, number, 0, shown), ["1"], box[None]))
        return [row.score for row in scored(tracked, model())]

    plain, there = scores(boxes), scores(wanted)
    assert plain != there
    backbone = type(model().network.backbone)
    monkeypatch.setattr(backbone, "reframes", True)
    monkeypatch.setattr(backbone, "reframe", lambda self, features: torch.from_numpy(moves).expand(len(features), 4))
    assert scores(boxes) == there


def test_square_crops_match_those_of_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same boxes of the same frames the scorer cuts the pixels of `prepare`, byte for byte."""
    boxes = {2: (10.7, 5.2, 60.9, 99.0), 5: (-8.5, 30.0, 40.1, 140.0), 9: (120.0, 2.5, 159.9, 30.2)}
    clip = make(tmp_path / "videos" / "clip.mp4", frames=10)
    columns = dict(zip(("x1", "y1", "x2", "y2"), zip(*boxes.values(), strict=True), strict=True))
    frames = [frame + 1 for frame in boxes]  # the data set counts from 1
    table = frame_table(
        dict(clip="clip", track="1", frame=frames, **columns, person="1", label=0, image="", unique_id="")
    )
    assert cut_crops(tmp_path, table, workers=1).written == 3
    resize, seen = Preprocessing.resize_crop, []
    monkeypatch.setattr(Preprocessing, "resize_crop", lambda self, crop: seen.append(crop) or resize(self, crop))
    scorer = Scorer(model(square=True), causal=True)
    for frame in Video(clip).frames():
        if frame.number in boxes:
            scorer.push(TrackedFrame(frame, ["1"], np.array([boxes[frame.number]])))
    for frame, crop in zip(frames, seen, strict=True):
        crop.save(tmp_path / "ours.jpg", quality=95)
        cut_by_prepare = tmp_path / "face_imgs" / "clip" / "1" / f"face_{frame:05d}.jpg"
        assert Image.open(tmp_path / "ours.jpg").tobytes() == Image.open(cut_by_prepare).tobytes()


def test_a_model_that_needs_priors_is_refused() -> None:
    judge = model()
    judge.network.head.needs_priors = ("head_pose_bins",)
    with pytest.raises(UserError, match="squares needs head_pose_bins"):
        Scorer(judge)


@pytest.mark.parametrize("causal", [False, True])
def test_on_a_gpu_every_batch_has_one_size(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are recorded for the first size; a larger batch would record again and give other bits."""
    tracked = frames_at(np.arange(47) / 30)  # the last batch is not full
    expected = scored(tracked, model(), causal)
    one, sizes = model(), []
    encoder = one.network.backbone.encoder

    def counted(device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        encode = encoder(torch.device("cpu"))
        return lambda pixels: sizes.append(len(pixels)) or encode(pixels)

    monkeypatch.setattr(one.network.backbone, "encoder", counted)
    monkeypatch.setattr(one.network, "parameters", lambda: iter([SimpleNamespace(device=torch.device("cuda"))]))
    with pretended_gpu(monkeypatch):
        found = scored(tracked, one, causal)
    assert {*sizes} == {4 if causal else 32}
    np.testing.assert_allclose([row.score for row in found], [row.score for row in expected], atol=1e-6)
