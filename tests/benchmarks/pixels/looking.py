"""Simulated rows: clips, tracks, labels and scores that vary as those of the real table do, with the truth known."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtri

SHARE = 1.0, 5.2  # Beta distribution of a clip's share of looks: 16 % in the mean
TRACKS = 2  # per clip


@dataclass(frozen=True)
class Setting:
    """A test split and what varies on it.

    Attributes:
        clips: number.
        seeds: of a row.
        frames: key frames of a track.
        separation: of the two classes in a clip, logits.
        kept: key frames after which labels and noise of a track are new.
        seed_spread: standard deviation over seeds of the separation, relative.
        recipe_spread: standard deviation over clips of what all seeds of a recipe have in common there, logits.
    """

    clips: int
    seeds: int
    frames: int
    separation: float
    kept: tuple[float, float]
    seed_spread: float
    recipe_spread: float = 0.0


# Few clips, each dense: mAP is 0.79, its standard deviation over seeds 0.02, and over resampled clips 0.037.
SMALL = Setting(clips=29, seeds=5, frames=44, separation=2.85, kept=(6, 4), seed_spread=0.04)
# As InternLSTM* and InternLSTM on SynthLAM: mAP is 0.72, its standard deviation over seeds 0.012, and over resampled
# clips 0.016; with 20 seeds each, the interval of the difference of two recipes is 0.013 to each side.
SYNTHLAM = Setting(
    clips=390, seeds=20, frames=3, separation=2.25, kept=(0.6, 0.3), seed_spread=0.042, recipe_spread=0.34
)


def wandering(random, shape, frames):
    """Normal noise that keeps its value for about so many frames of a track; the last axis is time."""
    kept = np.exp(-1 / frames)
    noise = random.normal(size=shape) * np.sqrt(1 - kept**2)
    noise[..., 0] /= np.sqrt(1 - kept**2)
    return lfilter([1], [1, -kept], noise, axis=-1)


@dataclass
class Clips:
    """What every training meets: labels, and how hard each clip, track and frame is."""

    clip: np.ndarray
    labels: np.ndarray
    base: np.ndarray
    separation: np.ndarray
    random: np.random.Generator
    setting: Setting

    def train(self, seeds, gain=0.0):
        """Scores (S, N) of new trainings of a recipe whose looking frames lie `gain` logits above the usual.

        A training is better or worse everywhere, biased in each clip, and noisy along each track.
        """
        random = self.random
        base = self.base
        if self.setting.recipe_spread:
            base = base + self.setting.recipe_spread * random.normal(size=self.clip[-1] + 1)[self.clip]
        scores = []
        for _ in range(seeds):
            logits = base + self.labels * (self.separation * (1 + self.setting.seed_spread * random.normal()) + gain)
            logits += 0.5 * random.normal(size=self.clip[-1] + 1)[self.clip]
            frames = self.setting.frames
            logits += 0.4 * wandering(random, (len(logits) // frames, frames), self.setting.kept[1]).ravel()
            scores.append(1 / (1 + np.exp(2.5 - logits)))
        return np.stack(scores)


def draw_clips(seed, setting=SMALL):
    """New clips of new tracks."""
    random = np.random.default_rng(seed)
    clips, frames, (looks, noise) = setting.clips, setting.frames, setting.kept
    clip = np.repeat(np.arange(clips), TRACKS * frames)
    shape = clips * TRACKS, frames
    share = np.repeat(random.beta(*SHARE, size=clips), TRACKS)
    labels = (wandering(random, shape, looks) > ndtri(1 - np.clip(share, 1e-9, 1 - 1e-9))[:, None]).ravel().astype(int)
    base = random.normal(size=clips)[clip] + 0.6 * random.normal(size=shape[0]).repeat(frames)
    base += 1.3 * wandering(random, shape, noise).ravel()
    separation = setting.separation + 0.5 * random.normal(size=clips)[clip]
    return Clips(clip, labels, base, separation, random, setting)
