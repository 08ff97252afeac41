import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tools.synthlam import scene

for _name in ("anny", "pyvista", "cv2"):
    pytest.importorskip(_name)

from benchmarks.priors.base import LANDMARKS  # noqa: E402
from tools.synthlam import clips, dataset, filming  # noqa: E402
from tools.synthlam import renderer as drawing  # noqa: E402
from tools.synthlam.camera import SIDE  # noqa: E402
from tools.synthlam.geometry import angles_of, direction, rotation  # noqa: E402
from tools.synthlam.identity import sample_identity  # noqa: E402
from tools.synthlam.light import sample_light  # noqa: E402
from tools.synthlam.pretraining import PRETRAINING_TARGETS, pretraining_shard  # noqa: E402


@pytest.fixture(scope="module")
def renderer():
    return drawing.process_renderer()


def _shoot(renderer, identity, gaze, blink=0.0, **changes):
    who = sample_identity(identity, renderer.model.shape_labels)
    renderer.who = None
    renderer.set_identity(replace(who, **changes))
    light = sample_light(np.random.default_rng(3))
    pose = drawing.Pose(np.eye(3), direction(*np.radians(gaze)), blink=blink)
    tight = renderer.box(pose)
    middle, half = (tight[:2] + tight[2:]) / 2, float(max(tight[2:] - tight[:2])) / 2
    view = drawing.View(0.0, 2.0, np.concatenate([middle - half, middle + half]), (96, 96))
    return renderer.render(pose, light, view), pose, tight


def _eye(renderer, picture, k, reach=(9, 14)):
    """The pixels around eye `k` (0: the person's left) and its place, from `_shoot`."""
    pixels, pose, tight = picture
    points, _ = renderer.landmarks(pose)
    scale = SIDE / max(tight[2:] - tight[:2])
    x, y = (points[k, :2] - (tight[:2] + tight[2:]) / 2) * [1, -1] * scale + SIDE / 2
    return pixels[int(y) - reach[0] : int(y) + reach[0] + 1, int(x) - reach[1] : int(x) + reach[1] + 1, :3]


@pytest.mark.slow
def test_same_seed_same_bytes_regardless_of_earlier_renders(tmp_path, renderer):
    pretraining_shard((3, 0, 6, tmp_path))
    first = np.load(tmp_path / "shard_00000.npz")["jpeg"].tobytes()
    (tmp_path / "shard_00000.npz").unlink()
    _shoot(renderer, 5, (20, 0))
    pretraining_shard((3, 0, 6, tmp_path))
    shard = np.load(tmp_path / "shard_00000.npz")
    assert shard["jpeg"].tobytes() == first
    assert shard["targets"].shape == (6, len(PRETRAINING_TARGETS))
    image = Image.open(io.BytesIO(first[: shard["offsets"][1]]))
    assert max(image.size) <= 112


def test_clip_renders_the_same_twice(renderer):
    clip = scene.simulate("x", 12, [1])
    first = filming.render_clip(clip, "test")
    _shoot(renderer, 7, (0, 0))
    assert filming.render_clip(clip, "test") == first


def test_few_frames_of_a_clip_match_those_of_all(renderer):
    clip = scene.simulate("x", 12, [1])
    all_rows = {row.frame: row for row in filming.render_clip(clip, "test")}
    few = filming.render_clip(clip, "test", every=7)
    assert all((row.frame - clip.first_frame) % 7 == 0 for row in few)
    # Missed detections are drawn separately.
    both = [(row, all_rows[row.frame]) for row in few if row.frame in all_rows]
    assert len(both) >= sum((frame - clip.first_frame) % 7 == 0 for frame in all_rows) - 2 > 3
    for row, whole in both:
        assert (row.box, row.label, row.truth) == (whole.box, whole.label, whole.truth)


def test_gaze_moves_the_eyes_and_nothing_else(renderer):
    ahead, pose, tight = _shoot(renderer, 4, (0, 0))
    aside, _, _ = _shoot(renderer, 4, (15, 0))
    changed = np.abs(ahead - aside)[..., :3].max(2) > 0.06
    points, _ = renderer.landmarks(pose)
    extent = max(tight[2:] - tight[:2])
    centre = (tight[:2] + tight[2:]) / 2
    eyes = (points[:2, :2] - centre) / extent * [1, -1] * SIDE + SIDE / 2
    rows, columns = np.nonzero(changed)
    nearest = np.min([np.hypot(columns - x, rows - y) for x, y in eyes], axis=0)
    assert 20 < changed.sum() < 1500
    assert np.quantile(nearest, 0.95) < 0.1 * SIDE


def test_iris_goes_where_the_gaze_goes(renderer):
    """The dark iris moves to the right of the image for positive yaw."""

    def dark_column(yaw):
        pixels, pose, tight = _shoot(renderer, 21, (yaw, 0))
        points, _ = renderer.landmarks(pose)
        scale = SIDE / max(tight[2:] - tight[:2])
        x, y = (points[0, :2] - (tight[:2] + tight[2:]) / 2) * [1, -1] * scale + SIDE / 2
        patch = pixels[int(y) - 4 : int(y) + 5, int(x) - 11 : int(x) + 12, :3].mean(2)
        weight = np.clip(patch.mean() - patch, 0, None)
        return (weight.sum(0) * np.arange(weight.shape[1])).sum() / weight.sum()

    assert dark_column(20) > dark_column(0) + 1 > dark_column(-20) + 2


def test_blink_hides_the_white_of_the_eye(renderer):
    open_eyes, pose, tight = _shoot(renderer, 21, (0, 0))
    shut, _, _ = _shoot(renderer, 21, (0, 0), blink=1.0)
    points, _ = renderer.landmarks(pose)
    scale = SIDE / max(tight[2:] - tight[:2])
    x, y = (points[0, :2] - (tight[:2] + tight[2:]) / 2) * [1, -1] * scale + SIDE / 2
    window = slice(int(y) - 3, int(y) + 4), slice(int(x) - 9, int(x) + 10)
    assert open_eyes[window][..., :3].std() > 2 * shut[window][..., :3].std()


def _dark_column(patch):
    patch = patch.mean(2)
    weight = np.clip(patch.mean() - patch, 0, None)
    return (weight.sum(0) * np.arange(weight.shape[1])).sum() / weight.sum()


@pytest.mark.parametrize("leading", [0, 1])
def test_only_the_eye_that_does_not_lead_deviates(renderer, leading):
    straight = _shoot(renderer, 21, (0, 0), leading=leading, deviation=(0.0, 0.0))
    squint = _shoot(renderer, 21, (0, 0), leading=leading, deviation=(np.radians(15), 0.0))
    moved = [
        _dark_column(_eye(renderer, squint, k, (4, 11))) - _dark_column(_eye(renderer, straight, k, (4, 11)))
        for k in (0, 1)
    ]
    assert moved[leading] == 0
    assert moved[1 - leading] > 0.7  # to the right of the image


def test_pretraining_targets_have_the_angles_of_each_eye(renderer):
    """The eye that leads points at the target, turned inwards; the other one is off by its deviation."""
    who = replace(sample_identity(3, renderer.model.shape_labels), leading=1, deviation=(0.2, -0.05))
    pose = drawing.Pose(np.eye(3), direction(0.1, 0.02), vergence=0.03)
    left, right = drawing.eye_angles(pose, who, drawing.eye_in_head(pose))
    assert right == pytest.approx((0.13, 0.02))
    assert left == pytest.approx((0.1 - 0.03 + 0.2, 0.02 - 0.05))


def test_deviations_are_small_and_a_few_people_squint(renderer):
    yaw = np.degrees([sample_identity(k, renderer.model.shape_labels).deviation[0] for k in range(1000)])
    assert 10 < (abs(yaw) > 5).sum() < 50
    assert np.percentile(abs(yaw), 90) < 2


def test_pupils_are_smaller_in_stronger_light(renderer):
    who = sample_identity(8, renderer.model.shape_labels)  # light eyes
    renderer.set_identity(who)
    light = sample_light(np.random.default_rng(3))
    strong = drawing.Light(4 * light.sky, 4 * light.ground, [(d, 4 * c, k) for d, c, k in light.lamps])
    assert renderer.pupil(strong) < 0.8 * renderer.pupil(light)
    wide, narrow = (
        _eye(renderer, _shoot(renderer, 8, (0, 0), pupil=np.radians(size)), 0, (6, 8)).mean(2) for size in (15, 7)
    )
    assert (wide < 0.2).sum() > 1.5 * (narrow < 0.2).sum()


def test_lower_lid_follows_a_gaze_down(renderer, monkeypatch):
    """More of the eyes is seen than with a lower lid that stays."""
    seen = []
    for lid in (drawing.LID, 0.0):
        monkeypatch.setattr(drawing, "LID", lid)
        down = _shoot(renderer, 21, (0, -20))
        patches = [_eye(renderer, down, k, (12, 14)) for k in (0, 1)]
        # Skin is red; eyes are grey or dark.
        seen.append(sum(int((p[..., 0] - p[..., 2] < 0.1).sum()) for p in patches))
    assert seen[0] > 1.1 * seen[1]


def test_landmarks_are_written_in_the_order_of_priors(renderer):
    clip = scene.simulate("x", 12, [1])
    rows = [r for r in filming.render_clip(clip, "test", every=4) if r.landmarks and abs(r.truth["head_yaw"]) < 40]
    assert len(rows) > 5
    points = dict(zip(LANDMARKS, np.median([r.landmarks for r in rows], axis=0), strict=True))
    assert points["left_eye"][0] > points["right_eye"][0]  # the person's left is on the right of the image
    assert points["left_mouth"][0] > points["right_mouth"][0]
    assert max(points["left_eye"][1], points["right_eye"][1]) < points["nose"][1]
    assert points["nose"][1] < min(points["left_mouth"][1], points["right_mouth"][1])
    assert points["nose"][2] > points["left_eye"][2]  # nearer to the camera


def test_angles_survive_the_round_trip():
    rng = np.random.default_rng(0)
    for yaw, pitch, roll in rng.uniform(-1.2, 1.2, (20, 3)):
        found = angles_of(rotation(yaw, pitch, roll))
        assert found == pytest.approx((yaw, pitch, roll), abs=1e-9)


@pytest.mark.slow
def test_more_training_clips_show_other_people_and_leave_the_rest_unchanged(monkeypatch):
    monkeypatch.setattr(clips, "SPLITS", {"train": 20, "val": 4, "test": 4})
    once, thrice = clips.plan(5), clips.plan(5, times=3)
    assert [len(thrice[split]) for split in ("train", "val", "test")] == [60, 4, 4]
    for split in ("val", "test"):
        assert [clip.seed for clip in thrice[split]] == [clip.seed for clip in once[split]]
    people = [person.identity for clips in thrice.values() for clip in clips for person in clip.people]
    assert len(set(people)) == len(people)
    with pytest.raises(ValueError, match=r"times 99: must be 1\.\."):
        clips.plan(5, times=99)


def test_identities_of_splits_and_of_pretraining_renders_are_apart():
    """For all seeds: the most clips of a split, with three people each, and the people of the renders."""
    most = max(count * (clips.MOST_TIMES if split == "train" else 1) for split, count in clips.SPLITS.items())
    assert most * max(clips.PEOPLE) <= 10_000
    assert 89 * 100_000 + 3 * 10_000 < 10_000_000  # `pretraining_shard` counts from there


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Small splits, clips of one person and 40 frames, and a pool without processes, so that patches apply."""
    monkeypatch.setattr(clips, "SPLITS", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(clips, "looking_share", lambda clips: 0.15)  # skips the search for a share

    def of_the_first_person(clip, split, every):
        return filming.render_clip(replace(clip, people=clip.people[:1], camera=clip.camera[:40]), split, every)

    monkeypatch.setattr(dataset, "render_clip", of_the_first_person)
    monkeypatch.setattr(dataset.multiprocessing, "get_context", lambda kind: _Here)


def test_clips_are_written_as_a_folder_to_train_on(tmp_path, monkeypatch, here):
    from benchmarks.data.ego4d import read_split
    from tools.synthlam import __main__ as main

    out, work = tmp_path / "out", tmp_path / "work"
    options = ["--out", str(out), "--work", str(work), "--times", "2", "--every", "5"]
    monkeypatch.setattr("sys.argv", ["synthlam", "clips", *options])
    main.main()
    assert [read_split(out, split)["clip"].nunique() for split in ("train", "val")] == [2, 1]
    assert not (out / "videos_challenge").exists()
    rows = read_split(out, "train")
    crops = [image for image in rows.image if image]
    assert 4 <= len(crops) <= 16  # of 2 times 40 frames, every fifth
    assert all(Image.open(out / image).size for image in crops)


def test_finished_clips_are_not_rendered_again(tmp_path, monkeypatch, here):
    order = dataset.Order(1, tmp_path)
    first = dataset.make_files(order)
    kept = sorted(tmp_path.rglob("*.json"))
    assert len(kept) == 3

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "render_clip", interrupted)
    assert dataset.make_files(order) == first
    rows = json.loads(kept[0].read_text())
    picture = next(row["jpeg"] for row in rows if row["jpeg"])
    assert base64.b64decode(picture) in first.values()
    kept[0].unlink()
    with pytest.raises(KeyboardInterrupt):
        dataset.make_files(order)


@pytest.mark.slow
def test_changed_code_renders_all_clips_again(tmp_path, monkeypatch, here):
    dataset.make_files(dataset.Order(1, tmp_path))
    dataset.rendering_checksum.cache_clear()
    monkeypatch.setattr(dataset, "versions", lambda: {"anny": "another"})
    dataset.make_files(dataset.Order(1, tmp_path))
    dataset.rendering_checksum.cache_clear()
    assert len(list(tmp_path.iterdir())) == 2


class _Here:
    """A pool without processes, so that patches apply."""

    def __init__(self, workers):
        self.imap = map

    Pool = classmethod(lambda cls, workers: cls(workers))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None
