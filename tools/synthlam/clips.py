"""The clips of the data set: which there are in each split."""

from __future__ import annotations

import numpy as np

from tools.synthlam import scene

SPLITS = {"train": 140, "val": 70, "test": 390}  # clips
MOST_TIMES = 999 // SPLITS["train"]
PEOPLE = (2, 1, 3, 2)  # per clip, repeating


def plan(seed: int, times: int = 1) -> dict[str, list[scene.Clip]]:
    """Plan the clips of the three splits, with no person in two splits; `times` multiplies the training clips.

    A clip without a look is drawn again, because Ego4D lists only clips with at least one. If the share of looking
    frames of a split is outside 14.5 to 15.7 %, its clips are redrawn one by one, keeping each that brings it nearer.

    Raises:
        ValueError: seed or times is out of range.
    """
    if not 0 <= seed < 90:
        raise ValueError(f"seed {seed}: must be 0..89, or identities overlap with those of the pretraining renders")
    if not 1 <= times <= MOST_TIMES:
        raise ValueError(f"times {times}: must be 1..{MOST_TIMES}, because clip numbers have three digits")
    out = {}
    for number, (split, count) in enumerate(SPLITS.items()):
        count *= times if split == "train" else 1

        def draw(k: int, attempt: int, split: str = split, number: int = number) -> scene.Clip:
            people = PEOPLE[k % len(PEOPLE)]
            first = seed * 100_000 + number * 10_000 + k * max(PEOPLE)
            for again in range(100):
                key = (((seed * 10 + number) * 1000 + attempt) * 1000 + k) * 100 + again
                clip = scene.simulate(f"{split}_{k:03d}", key, list(range(first, first + people)))
                if any(p.segments for p in clip.people):
                    break
            return clip

        clips = [draw(k, 0) for k in range(count)]
        attempt = 0
        while not 0.145 <= (rate := looking_share(clips)) <= 0.157:
            attempt += 1
            other = [*clips]
            other[attempt % count] = draw(attempt % count, attempt)
            if abs(looking_share(other) - 0.151) < abs(rate - 0.151):
                clips = other
        out[split] = clips
    return out


def looking_share(clips: list[scene.Clip]) -> float:
    """Return the share of frames labelled as looking."""
    return float(np.concatenate([p.labels for c in clips for p in c.people]).mean())
