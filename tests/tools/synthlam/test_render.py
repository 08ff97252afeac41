import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tools.synthlam import scene

for _name in ("anny", "pyvista", "cv2"):
    pytest.importorskip(_name)

from tools.synthlam import clips  # noqa: E402
from tools.synthlam import renderer as drawing  # noqa: E402
from tools.synthlam.camera import SIDE  # noqa: E402
from tools.synthlam.geometry import angles_of, direction, rotation  # noqa: E402
from tools.synthlam.identity import sample_identity  # noqa: E402
from tools.synthlam.light import sample_light  # noqa: E402
from tools.synthlam.pretraining import PRETRAINING_TARGETS, pretraining_shard  # noqa: E402


@pytest.fixture(scope="module")
def renderer():
    return drawing.process_renderer()


def _shoot(renderer, identity, gaze, blink=0.0, side=96):
    renderer.set_identity(sample_identity(identity, renderer.model.shape_labels))
    light = sample_light(np.random.default_rng(3))
    pose = drawing.Pose(np.eye(3), direction(*np.radians(gaze)), blink=blink)
    tight = renderer.box(pose)
    pixels = renderer.render(pose, light, (tight[:2] + tight[2:]) / 2, float(max(tight[2:] - tight[:2])), 2.0)
    return pixels, pose, tight


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
    first = clips.render_clip(clip, "test")
    _shoot(renderer, 7, (0, 0))
    assert clips.render_clip(clip, "test") == first


def test_few_frames_of_a_clip_match_those_of_all(renderer):
    clip = scene.simulate("x", 12, [1])
    all_rows = {row.frame: row for row in clips.render_clip(clip, "test")}
    few = clips.render_clip(clip, "test", every=7)
    assert all((row.frame - clip.first_frame) % 7 == 0 for row in few)
    # Missed detections are drawn separately.
    both = [(row, all_rows[row.frame]) for row in few if row.frame in all_rows]
    assert len(both) >= clip.frames // 7 - 2
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


def test_angles_survive_the_round_trip():
    rng = np.random.default_rng(0)
    for yaw, pitch, roll in rng.uniform(-1.2, 1.2, (20, 3)):
        found = angles_of(rotation(yaw, pitch, roll))
        assert found == pytest.approx((yaw, pitch, roll), abs=1e-9)


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


def test_clips_are_written_as_a_folder_to_train_on(tmp_path, monkeypatch):
    from benchmarks.data.ego4d import read_split
    from tools.synthlam import __main__ as main

    monkeypatch.setattr(clips, "SPLITS", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(clips, "looking_share", lambda clips: 0.15)  # skips the search for a share

    def of_the_first_person(job):
        clip, *how = job
        return clips.render_clip(replace(clip, people=clip.people[:1], camera=clip.camera[:20]), *how)

    monkeypatch.setattr(main, "render_job", of_the_first_person)
    monkeypatch.setattr(main.multiprocessing, "get_context", lambda kind: _Here)
    monkeypatch.setattr("sys.argv", ["make_synthlam", "clips", "--out", str(tmp_path), "--times", "2", "--every", "5"])
    main.main()
    assert [read_split(tmp_path, split)["clip"].nunique() for split in ("train", "val", "test")] == [2, 1, 1]
    rows = read_split(tmp_path, "train")
    crops = [image for image in rows.image if image]
    assert 2 <= len(crops) <= 8  # of 2 times 20 frames, every fifth
    assert all(Image.open(tmp_path / image).size for image in crops)


class _Here:
    """A pool without processes, so that patches apply."""

    def __init__(self, workers):
        self.imap = map

    Pool = classmethod(lambda cls, workers: cls(workers))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None
