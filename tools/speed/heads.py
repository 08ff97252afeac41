"""Heads on features: windows, training steps and test inference, on one CPU thread.

The plain way is that of the published programs: one file per frame, seven opened per window, all steps of both LSTM
layers.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, relu
from torch.utils.data import DataLoader, Dataset

from benchmarks.config.recipe import Training
from benchmarks.data.challenge import read_challenge
from benchmarks.data.windows import windows as windows_of
from benchmarks.features.store import FeatureStore
from benchmarks.features.windows import FeatureData
from benchmarks.scoring.predict import score_windows
from benchmarks.scoring.submission import write_submission
from benchmarks.training.job import TrainingJob
from benchmarks.training.loop import Loop
from heads.base import Head
from registry import HEADS
from tools.speed.harness import FEW, Work, seconds
from tools.speed.index import RADIUS, TRACK, make_challenge_tree, plain_test_index

WINDOW = 2 * RADIUS + 1
BATCH = 64
VIEWS = ("original", "flipped")
PUBLISHED: dict[str, Any] = dict(feature_dim=3200, projection=1000, hidden=1000, layers=2, mlp=(1024, 512, 512))
SMALL: dict[str, Any] = dict(feature_dim=64, projection=16, hidden=16, layers=2, mlp=(16, 16, 16))
WEIGHTS = torch.tensor([0.3, 0.7])  # of the classes
TRAINING = Training(epochs=0, batch_size=BATCH, lr=5e-4, weight_decay=0.0, class_weight="balanced", seed=1)


class PlainHead(nn.Module):
    """InternLSTM's head written with `torch.nn.LSTM`; parameter names match ours."""

    def __init__(self, feature_dim: int, projection: int, hidden: int, layers: int, mlp: tuple[int, int, int]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(feature_dim, projection)
        self.lstm = nn.LSTM(projection, hidden, layers, batch_first=True, bidirectional=True)
        self.last_layer1 = nn.Linear(2 * hidden, mlp[0])
        self.last_layer2 = nn.Linear(mlp[0], mlp[1])
        self.last_layer3 = nn.Linear(mlp[1], mlp[2])
        self.last_layer4 = nn.Linear(mlp[2], 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, 2) of windows (B, T, D)."""
        x = self.lstm(self.fc1(features))[0][:, features.shape[1] // 2]
        for layer in (self.last_layer1, self.last_layer2, self.last_layer3):
            x = dropout(relu(layer(x)), 0.5, self.training)
        return self.last_layer4(x)


class PlainWindows(Dataset):
    """Windows of features that are stored in one file per frame.

    Args:
        files: of each window, the files of its frames; None for absent frames.
        labels: of each window.
        width: D.
    """

    def __init__(self, files: Sequence[Sequence[Path | None]], labels: Sequence[int], width: int) -> None:
        self.files = files
        self.labels = labels
        self.width = width

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Return features (T, D) and the label."""
        frames = [torch.zeros(self.width) if file is None else torch.load(file).float() for file in self.files[number]]
        return torch.stack(frames), self.labels[number]


def make_features(count: int, width: int, seed: int = 0) -> Tensor:
    """Make random features (N, D) in bfloat16."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).bfloat16()


def write_plain(folder: Path, names: Sequence[str], features: Tensor) -> list[Path]:
    """Write one file per frame; return the paths."""
    files = [folder / f"{name}.pth" for name in names]
    for file, vector in zip(files, features, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vector.clone(), file)  # a view would be saved with its whole storage
    return files


def made_up_windows(frames: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make rows (M, 7) of windows in tracks of 1,000 frames, one frame in ten absent, and labels (M,)."""
    random = np.random.default_rng(seed)
    length = min(frames, TRACK)
    track, centre = random.integers(0, frames // length, count), random.integers(0, length, count)
    places = centre[:, None] + np.arange(-RADIUS, RADIUS + 1)
    absent = (places < 0) | (places >= length) | (random.random(places.shape) < 0.1)
    return np.where(absent, -1, track[:, None] * length + places), random.integers(0, 2, count)


def files_of(files: Sequence[Path], rows: np.ndarray) -> list[list[Path | None]]:
    """Return the files of each window."""
    return [[files[row] if row >= 0 else None for row in window] for window in rows.tolist()]


@contextmanager
def windows(quick: bool) -> Iterator[list[Work]]:
    """Windows in random order, in float32 batches of 64."""
    frames, count, width = (100, 128, 64) if quick else (2000, 1024, 3200)
    features = make_features(frames, width)
    rows, labels = made_up_windows(frames, count)
    data, narrow = (FeatureData(kind, rows, labels) for kind in (features.float(), features))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    batches = order.split(BATCH)

    def sample(batch: Tensor) -> Tensor:
        return batch[:, :, ::400].clone()  # enough to tell frames apart; a full copy would be timed too

    with tempfile.TemporaryDirectory() as folder, _one_thread():
        files = write_plain(Path(folder), [f"{number:05d}" for number in range(frames)], features)
        plain = DataLoader(PlainWindows(files_of(files, rows), labels.tolist(), width), BATCH, sampler=order.tolist())
        yield [
            Work(
                name="windows",
                what=f"{count:,} windows of 7 frames of {width:,} numbers to float32 batches, on one thread",
                against="a DataLoader that opens one file per frame, 7 per window",
                plain=lambda: [sample(batch) for batch, _ in plain],
                ours=lambda: [sample(data[batch][0].features) for batch in batches],
                differ=lambda plain, ours: far_apart(torch.cat(plain), torch.cat(ours), 0.0),
                must=50,
                aim=80,
                facts=lambda: {
                    f"windows_a_second_{name}": round(count / min(seconds(lambda: _all(of, batches)) for _ in range(5)))  # noqa: B023 - called at once
                    for name, of in (("float32", data), ("bfloat16", narrow))
                },
            )
        ]


def _all(data: FeatureData, batches: Sequence[Tensor]) -> None:
    for batch in batches:
        data[batch]


def far_apart(one: Tensor, other: Tensor, tolerance: float) -> str | None:
    """Describe the difference of numbers if it exceeds the tolerance."""
    if one.shape != other.shape:
        return f"{tuple(one.shape)} and {tuple(other.shape)} numbers"
    apart = (one - other).abs().max().item()
    return None if apart <= tolerance else f"by up to {apart:.2g}, more than {tolerance:g}"


class LoadedWindows:
    """Batches of windows of features in memory, as a short loop in plain PyTorch gathers them.

    Args:
        features: (N, D) float32.
        rows: (M, T) rows of each window; -1 for absent frames, which are zeros.
        labels: (M,).
        order: yields the windows of an epoch.
    """

    def __init__(self, features: Tensor, rows: np.ndarray, labels: np.ndarray, order: EpochOrder) -> None:
        self._features = torch.cat([features, features.new_zeros(1, features.shape[1])])  # row -1 is the last
        self._rows, self._labels, self._order = torch.from_numpy(rows), torch.from_numpy(labels), order

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.empty((), dtype=torch.int64).random_()  # a DataLoader's draw, so that dropout is that of the other ways
        for chosen in torch.tensor(list(self._order)).split(BATCH):
            yield self._features[self._rows[chosen]], self._labels[chosen]


class PlainTraining:
    """Training of the plain head, one epoch per call, with unfused Adam."""

    def __init__(self, head: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.head = head.train()
        self.batches = batches
        self.optimiser = torch.optim.Adam(head.parameters(), lr=TRAINING.lr, foreach=True)
        self.epoch = 0

    def __call__(self) -> Tensor:
        """Train one epoch and return the losses of its steps."""
        torch.manual_seed(TRAINING.seed * 100_003 + self.epoch)  # same dropout as in `Loop`
        losses = []
        for features, labels in self.batches:
            loss = cross_entropy(self.head(features), labels, WEIGHTS)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            losses.append(loss.detach())
        self.epoch += 1
        return torch.stack(losses)


class EpochOrder:
    """The order in which `Loop` takes windows, for the plain training: a new permutation per epoch."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._epoch = -1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        generator = torch.Generator().manual_seed(TRAINING.seed + self._epoch)
        return iter(torch.randperm(self._count, generator=generator).tolist())


@contextmanager
def head_step(quick: bool) -> Iterator[list[Work]]:
    """Training steps of InternLSTM's head at its published size, from windows to weights.

    All ways start from equal weights and train epoch after epoch; the losses of the first epoch are compared.
    """
    sizes, frames, steps = (SMALL, 100, 3) if quick else (PUBLISHED, 2000, 8)
    width, count = sizes["feature_dim"], steps * BATCH
    features = make_features(frames, width)
    rows, labels = made_up_windows(frames, count)
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        files = write_plain(Path(folder), [f"{number:05d}" for number in range(frames)], features)
        data = PlainWindows(files_of(files, rows), labels.tolist(), width)
        windows = FeatureData(features.float(), rows, labels)
        job = TrainingJob({}, None, TRAINING, windows, windows, WEIGHTS, {}, Path(folder), "cpu", "")

        def work(name: str, against: str, batches: Iterable[tuple[Tensor, Tensor]], must: float) -> Work:
            head, plain_head = _head(sizes), PlainHead(**sizes)
            plain_head.load_state_dict(head.state_dict())
            training, epochs = Loop(head, job, TRAINING.seed), itertools.count()
            return Work(
                name=name,
                what=f"{steps} training steps of a head of {_millions(head)}, batch 64, on one thread",
                against=f"nn.LSTM, foreach Adam, {against}",
                plain=PlainTraining(plain_head, batches),
                ours=lambda: training.train_epoch(next(epochs)),
                differ=lambda plain, ours: far_apart(plain, ours, 1e-4),
                must=must,
            )

        one_file_each = DataLoader(data, BATCH, sampler=EpochOrder(count))
        loaded = LoadedWindows(features.float(), rows, labels, EpochOrder(count))
        yield [
            work("head_step", "a DataLoader that opens one file per frame", one_file_each, 1.15),
            work("head_step_loaded", "windows gathered from features in memory", loaded, 0.95),
        ]


@contextmanager
def scoring(quick: bool) -> Iterator[list[Work]]:
    """Test inference with both views, from a tree of crops to a submission file."""
    sizes, tracks, frames = (SMALL, 2, 30) if quick else (PUBLISHED, 4, TRACK)
    head = _head(sizes).eval()
    plain_head = PlainHead(**sizes).eval()
    plain_head.load_state_dict(head.state_dict())
    with tempfile.TemporaryDirectory() as name, _one_thread():
        folder = Path(name)
        top = make_challenge_tree(folder / "tree", tracks, frames)
        images = read_challenge(top)["image"].tolist()
        store = FeatureStore(folder / "store", {"made": "up"})
        store.create(sizes["feature_dim"])
        features = {view: make_features(len(images), sizes["feature_dim"], seed) for seed, view in enumerate(VIEWS)}
        write_store(store, images, features)
        for view, vectors in features.items():
            write_plain(folder / view, [image.removesuffix(".jpg") for image in images], vectors)
        del features
        yield [
            Work(
                name="scoring",
                what=f"test inference, both views, {tracks} tracks of {frames:,} frames, from index to submission, "
                f"a head of {_millions(head)} on one thread",
                against="search file names for neighbours, one file per frame, nn.LSTM on batches of 64",
                plain=lambda: plain_scoring(plain_head, top, folder, sizes["feature_dim"]),
                ours=lambda: our_scoring(head, top, store, folder / "submission.json"),
                differ=differ_scores,
                must=2.5,
                pairs=FEW,
            )
        ]


def write_store(store: FeatureStore, images: Sequence[str], features: Mapping[str, Tensor]) -> None:
    """Write features of images sorted by video, one shard per video."""
    videos = [image.partition("/")[0] for image in images]
    for video in dict.fromkeys(videos):
        rows = [row for row, of in enumerate(videos) if of == video]
        shard = store.open(video)
        assert shard is not None
        shard.expect(len(rows) * len(features))
        shard.add({view: ([images[row] for row in rows], vectors[rows]) for view, vectors in features.items()}, {})


@torch.inference_mode()
def plain_scoring(head: nn.Module, top: Path, features: Path, width: int) -> dict[str, float]:
    """Index, score and submit like the published programs; return scores by unique id."""
    found = plain_test_index(top)
    total = np.zeros(len(found))
    for view in VIEWS:
        files = [[_feature_file(path, top, features / view) for path in window] for window in found]
        batches = DataLoader(PlainWindows(files, [0] * len(files), width), BATCH)
        total += np.concatenate([head(batch).double().softmax(1)[:, 1].numpy() for batch, _ in batches])
    results = []
    for paths, score in zip(found, (total / len(VIEWS)).tolist(), strict=True):
        video, track, image = str(paths[RADIUS]).removesuffix(".jpg").split("/")[-3:]
        unique_id = image.split("_")[1]
        results.append(dict(video_id=video, unique_id=unique_id, track_id=track, label=1, score=score))
    (features / "plain.json").write_text(json.dumps({"version": "1.0", "results": results}))
    return {result["unique_id"]: result["score"] for result in results}


def _feature_file(crop: str | None, top: Path, folder: Path) -> Path | None:
    return None if crop is None else folder / Path(crop).relative_to(top).with_suffix(".pth")


def our_scoring(head: Head, top: Path, store: FeatureStore, out: Path) -> dict[str, float]:
    """Index, score and submit our way; return scores by unique id."""
    frames = read_challenge(top)
    rows, labels = windows_of(frames, RADIUS), np.full(len(frames), -1)
    of_views = [
        score_windows(head, FeatureData(store.read(view, frames["image"].tolist()), rows, labels)) for view in VIEWS
    ]
    write_submission(out, frames.drop(columns="frame").assign(score=np.mean(of_views, axis=0)))
    return {result["unique_id"]: result["score"] for result in json.loads(out.read_text())["results"]}


def differ_scores(plain: Mapping[str, float], ours: Mapping[str, float]) -> str | None:
    """Describe how submissions differ frame by frame; None if they agree."""
    if plain.keys() != ours.keys():
        return f"{len(plain)} and {len(ours)} frames, {len(plain.keys() & ours.keys())} of them shared"
    return far_apart(torch.tensor(list(plain.values())), torch.tensor([ours[key] for key in plain]), 1e-6)


def _head(sizes: Mapping[str, Any]) -> Head:
    torch.manual_seed(0)
    return HEADS.build(dict(type="lstm", window=WINDOW, **sizes))


def _millions(head: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in head.parameters()) / 1e6:.3g} million parameters"


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: two inside an operation wait for each other and, on a busy machine, for its other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
