"""The loop of the pretrainings: resumed as if it had not been interrupted."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tools.pretraining.loop import Training, run, update_card
from tools.pretraining.processes import Processes
from tools.pretraining.renders import Renders
from tools.pretraining.steps import Schedule


class Line(Training):
    """Fits a line to brightness."""

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        return (self.network(images.float().mean((1, 2))) - targets).square().mean()


def line(minutes: float = 1e9) -> Line:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    return Line(network, network.parameters(), Schedule(minutes, 0.1, warm_up=0), Processes())


GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 2, (32, 2, 2, 3), generator=GENERATOR, dtype=torch.uint8)
TARGETS = IMAGES.float().mean((1, 2)) @ torch.tensor([[1.0], [2.0], [3.0]])


def test_a_resumed_training_goes_on_with_the_same_steps(tmp_path: Path) -> None:
    whole, first = line(), line()
    losses = [whole.step(IMAGES, TARGETS) for _ in range(60)]
    assert losses[-1] < losses[0] / 10
    again = [first.step(IMAGES, TARGETS) for _ in range(30)]
    first.save(tmp_path / "training.pt")
    second = line()
    second.resume(tmp_path / "training.pt")
    assert (second.seen, second.average.steps) == (30 * 32, 30)
    assert second.spent == first.spent
    again += [second.step(IMAGES, TARGETS) for _ in range(30)]
    assert again == losses
    for name, tensor in whole.average.state.items():
        assert torch.equal(tensor, second.average.state[name])
    assert second.spent > first.spent


def test_run_resumes_and_leaves_no_state_at_the_end(tmp_path: Path) -> None:
    crops, written = Renders(IMAGES, TARGETS), []

    def write(facts: dict) -> str:
        written.append(facts)
        return ""

    stopped = line()
    stopped.step(IMAGES, TARGETS)
    stopped.spent = 0.5
    stopped.save(tmp_path / "training.pt")
    run(line(minutes=0.5), crops, lambda: None, tmp_path, write)  # its half minute is over
    assert written == [{"minutes": 0.5, "steps": 1, "crops": 32, "distinct": 32}]
    assert not list(tmp_path.iterdir())


def test_new_crops_are_read_between_epochs(tmp_path: Path) -> None:
    written, added = [], [Renders(IMAGES, TARGETS), None]

    def more() -> Renders | None:
        return added.pop(0) if added else None

    def write(facts: dict) -> str:
        written.append(facts)
        return ""

    run(line(minutes=0.001), Renders(IMAGES, TARGETS), more, tmp_path, write)
    assert written[-1]["distinct"] == 64


@pytest.mark.parametrize("name", ["gaze_nano", "internvit_nano"])
def test_a_cards_text_stays(tmp_path: Path, name: str) -> None:
    card = tmp_path / f"{name}.json"
    card.write_text(json.dumps({"title": "t", "weights": [{"file": "f", "sha256": "old"}], "figures": [1]}))
    update_card(card, {"sha256": "new"}, [("mAP", 0.5, "test")])
    source = f"zoo/weights/{name}/pretraining.json"
    assert json.loads(card.read_text()) == {
        "title": "t",
        "weights": [{"file": "f", "sha256": "new"}],
        "figures": [{"metric": "mAP", "value": 0.5, "split": "test", "source": source}],
    }
