"""The ten-second video that ships: two rendered people at a table, in whole frames instead of crops.

`python -m tools.synthlam sample` writes `sample.mp4` and `sample.json`: where the video comes from, and when each
person looks at the camera. People, behaviour, light and backdrop are drawn as for SynthLAM, of whose people none is in
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backbones.checksums import file_sha256
from tools.synthlam import scene
from tools.synthlam.camera import Defects, make_backdrop, sample_camera
from tools.synthlam.dataset import versions
from tools.synthlam.filming import Sight, see
from tools.synthlam.geometry import Array
from tools.synthlam.identity import sample_identity
from tools.synthlam.light import Light, sample_light
from tools.synthlam.renderer import Renderer, View, process_renderer
from zoo.files.atomic import replacing, write_json

SIZE = (640, 360)  # pixels: the middle of SynthLAM's frame, through the same lens
SECONDS = 10.0
SAMPLE_SEED = 44  # both stay in the picture, and look at the camera several times
FIRST_PERSON = 9_500_000  # above the numbers of all splits and below those of the pretraining renders
SHORTEST = 0.2  # seconds; shorter looks are not listed
FIGURE = (-0.34, -0.40, 0.34, 0.28)  # metres from the middle of the head, left, bottom, right, top: head and shoulders
HEAD = (-0.18, -0.16, 0.18, 0.20)  # rendered once more, because eyes need more pixels than shoulders
TABLE = -0.30  # metres from the middle of the head to the edge of the table, which hides where the shoulders end
WOOD = np.array([0.36, 0.27, 0.20])
CRF = 25  # of H.264


def write_sample(out: Path, seed: int = SAMPLE_SEED) -> None:
    """Render the video and write it with its record to a folder. Needs the extras `synth` and `video`."""
    clip = scene.simulate("sample", 990_000 + seed, [FIRST_PERSON + 2 * seed + k for k in range(2)], (SECONDS, SECONDS))
    video = out / "sample.mp4"
    with replacing(video) as temporary:
        encode_frames(temporary, pictures_of_clip(clip))
    write_json(out / "sample.json", record_of(clip, video, seed))


def record_of(clip: scene.Clip, video: Path, seed: int) -> dict[str, Any]:
    """Describe the video: its bytes, its origin, and the looks of each person, in seconds."""
    people = [{"looks": looks_of(person), "pixels": round(sizes_of(clip, person).mean())} for person in clip.people]
    return {
        "video": video.name,
        "sha256": file_sha256(video),
        "bytes": video.stat().st_size,
        "frames": clip.frames,
        "frames_per_second": scene.RATE,
        "people": people,
        "seed": seed,
        "made_with": versions(),
    }


def looks_of(person: scene.Person) -> list[list[float]]:
    """List start and end of the times in which a person's gaze meets the camera."""
    runs = scene.runs(person.gaze_angle < np.radians(scene.LOOKING_DEG))
    long = [(first, last + 1) for first, last in runs if (last + 1 - first) / scene.RATE >= SHORTEST]
    return [[round(first / scene.RATE, 3), round(end / scene.RATE, 3)] for first, end in long]


def sizes_of(clip: scene.Clip, person: scene.Person) -> Array:
    """Return the height of a person's head in pixels, frame by frame (F,)."""
    return scene.FOCAL * scene.HEAD / np.linalg.norm(clip.camera - person.position, axis=1)


def pictures_of_clip(clip: scene.Clip) -> Iterator[Array]:
    """Yield the frames of a clip, ``(H, W, 3)`` uint8 RGB."""
    rng = np.random.default_rng([clip.seed, 51])
    room, camera, backdrop = sample_light(rng), sample_camera(rng), make_backdrop(rng)
    renderer = process_renderer()
    figures = [_figures(renderer, clip, person, room) for person in clip.people]
    far_first = sorted(range(len(figures)), key=lambda k: -float(np.mean(_distances(clip, clip.people[k]))))
    for t in range(clip.frames):
        picture = _behind(clip, t, backdrop)
        edge = float(SIZE[1])
        for k in far_first:
            middle, scale, layer = next(figures[k])
            picture = picture * (1 - layer[..., 3:]) + layer[..., :3]
            edge = min(edge, middle[1] - TABLE * scale)
        yield _exposed(_with_table(picture, edge), camera, rng)


def _distances(clip: scene.Clip, person: scene.Person) -> Array:
    return np.linalg.norm(clip.camera - person.position, axis=1)


def _figures(
    renderer: Renderer, clip: scene.Clip, person: scene.Person, room: Light
) -> Iterator[tuple[Array, float, Array]]:
    """Yield, by frame, the middle of the head (2,), pixels per metre, and the picture (H, W, 4), premultiplied."""
    who = sample_identity(person.identity, renderer.model.shape_labels)
    for t in range(clip.frames):
        renderer.set_identity(who)
        sight = see(clip, person, t)
        light = Light(room.sky, room.ground, [(sight.ray.T @ d, c, k) for d, c, k in room.lamps])
        middle = sight.middle - (np.array(scene.FRAME_SIZE) - SIZE) / 2
        layer = np.zeros((SIZE[1], SIZE[0], 4), np.float32)
        for part in (FIGURE, HEAD):
            _draw_part(layer, renderer, sight, (middle, np.array(part)), light)
        yield middle, sight.scale, layer


def _draw_part(layer: Array, renderer: Renderer, sight: Sight, place: tuple[Array, Array], light: Light) -> None:
    """Render a part of a person, in metres around the middle of the head, in place of what the layer has there."""
    import cv2

    middle, part = place
    scale = sight.scale
    left, top = (int(v) for v in np.floor(middle + scale * part[[0, 3]] * [1, -1]))
    side = int(np.ceil(scale * (part[2] - part[0])))
    at = (np.array([left, top]) - middle) / scale
    box = np.array([at[0], -at[1] - side / scale, at[0] + side / scale, -at[1]])
    rgba = renderer.render(sight.pose, light, View(sight.roll, sight.distance, box, (side, side)))
    rgba = np.dstack([rgba[..., :3] * rgba[..., 3:], rgba[..., 3]])
    small = cv2.resize(rgba, (side, side), interpolation=cv2.INTER_AREA)
    lines = slice(max(top, 0), max(min(top + side, SIZE[1]), 0))
    columns = slice(max(left, 0), max(min(left + side, SIZE[0]), 0))
    layer[lines, columns] = small[lines.start - top : lines.stop - top, columns.start - left : columns.stop - left]


def _behind(clip: scene.Clip, t: int, backdrop: Array) -> Array:
    """Return the backdrop of a frame: it moves with the camera's turns."""
    import cv2

    turn = clip.camera_turn[t][:, 2]
    pan = scene.FOCAL * np.array([np.arctan2(-turn[0], turn[2]), np.arcsin(np.clip(turn[1], -1, 1))])
    high, wide = backdrop.shape[:2]
    centre = (np.array(scene.FRAME_SIZE) / 2 + pan) / 2 + [wide, 0]
    half = (SIZE[0] // 2, SIZE[1] // 2)
    cut = cv2.getRectSubPix(np.tile(backdrop, (1, 3, 1)), half, (float(centre[0]), float(centre[1])))
    return cv2.resize(cut, SIZE, interpolation=cv2.INTER_LINEAR)


def _with_table(picture: Array, edge: float) -> Array:
    """Draw a table from `edge` (pixels from the top) down to the wearer."""
    depth = np.arange(SIZE[1])[:, None, None] + 0.5 - edge
    grain = 1 + 0.04 * np.sin(np.arange(SIZE[0]) / 23.0)[None, :, None]
    wood = WOOD * grain * (0.85 + 0.15 * np.clip(depth / 90, 0, 1))
    solid = np.clip(depth + 0.5, 0, 1)
    return picture * (1 - solid) + wood * solid


def _exposed(picture: Array, camera: Defects, rng: np.random.Generator) -> Array:
    """Apply the camera's cast and a little noise; return uint8."""
    picture = np.clip(picture, 0, None) * camera.cast ** (1 / 2.2)
    noisy = picture * 255 + rng.normal(0, 0.8, (*picture.shape[:2], 1))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def encode_frames(path: Path, pictures: Iterator[Array]) -> None:
    """Write an MP4 that any player reads and that starts before it is whole. Needs PyAV."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=scene.RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "veryslow", "crf": str(CRF), "threads": "1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
