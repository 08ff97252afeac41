"""torchrun's environment variables, set wrongly; processes that fail alone or wait for others."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench
from benchmarks.system.launch import Launch, launch, own_gpu, rendezvous_address
from registry import UserError
from tests.conftest import check_refused

HOME = Path(__file__).resolve().parents[3]
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PAIR = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return lambda values: [monkeypatch.setenv(*item) for item in values.items()]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Launch(0, 1, None, 1)),
        ({"RANK": "many", "LOCAL_RANK": "-1"}, Launch(0, 1, None, 1)),  # of another program
        ({"WORLD_SIZE": "", "RANK": ""}, Launch(0, 1, None, 1)),
        ({"WORLD_SIZE": "1"}, Launch(0, 1, None, 1)),
        (PAIR, Launch(1, 2, 1, 2)),
        ({"WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}, Launch(9, 16, 1, 8)),
        ({"WORLD_SIZE": "4", "RANK": "3"}, Launch(3, 4, None, 4)),  # without torchrun; it shares the cores with three
    ],
)
def test_right_ones(values: dict[str, str], expected: Launch, variables) -> None:
    variables(values)
    assert launch() == expected


WRONG = [
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a whole number"),
    ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2', not a whole number"),
    ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
    ({**PAIR, "RANK": "-1"}, "RANK is '-1', not a whole number"),
    ({**PAIR, "RANK": "1.0"}, "RANK is '1.0', not a whole number"),
    ({**PAIR, "RANK": "٣"}, "RANK is '٣', not a whole number"),
    ({**PAIR, "RANK": "9" * 400}, "not a whole number"),
    ({**PAIR, "RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
    ({"WORLD_SIZE": "1", "RANK": "1"}, "RANK is 1, but WORLD_SIZE is 1"),
    ({**PAIR, "LOCAL_RANK": "2"}, "LOCAL_RANK is 2, but LOCAL_WORLD_SIZE is 2"),
    ({**PAIR, "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
    ({**PAIR, "LOCAL_WORLD_SIZE": "x"}, "LOCAL_WORLD_SIZE is 'x'"),
]
UNREACHABLE = [
    (PAIR, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
    ({**PAIR, "MASTER_ADDR": "localhost"}, "WORLD_SIZE is 2, but MASTER_PORT is not set"),
    ({**PAIR, "MASTER_ADDR": "localhost", "MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
    ({**PAIR, "MASTER_ADDR": "localhost", "MASTER_PORT": "70000"}, "MASTER_PORT is 70000; a port is from 1 to 65535"),
]


@pytest.mark.parametrize(("values", "words"), WRONG + UNREACHABLE)
def test_run_refuses_wrong_ones(values, words, variables, tmp_path, capsys) -> None:
    variables(values)
    check_refused(["--recipe", "gazelstm", "--device", "cpu", "--out", str(tmp_path)], words, capsys)


@pytest.mark.parametrize(("values", "words"), WRONG)
def test_extract_refuses_wrong_ones(values, words, variables, tmp_path, capsys) -> None:
    variables(values)
    check_refused(["extract", "--recipe", "probe", "--device", "cpu", "-o", str(tmp_path)], words, capsys)


def test_other_commands_do_not_care(variables, capsys) -> None:
    variables({"WORLD_SIZE": "two", "RANK": "x"})
    assert bench.main(["list"]) == 0


def test_each_process_has_its_own_gpu() -> None:
    assert own_gpu(Launch(9, 16, 1, 8), gpus=8) == "cuda:1"
    with pytest.raises(UserError, match="LOCAL_RANK is 1, but this machine has 1 GPU; start at most one process per"):
        own_gpu(Launch(1, 2, 1, 2), gpus=1)
    with pytest.raises(UserError, match="WORLD_SIZE is 2, but LOCAL_RANK is not set"):
        own_gpu(Launch(1, 2), gpus=2)


def test_the_address_of_the_first_process(variables) -> None:
    variables({**PAIR, "MASTER_ADDR": "node1", "MASTER_PORT": "29500"})
    assert rendezvous_address() == "node1:29500"


def test_a_signal_ends_a_process_that_waits_for_the_others() -> None:
    """In torch's C++ code, which does not return to Python's handlers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        code = (
            "from benchmarks.system import interrupts, processes\n"
            "interrupts.install_handlers()\nprint('joining', flush=True)\nprocesses.join('cpu')"
        )
        port = str(unused.getsockname()[1])
        env = {**os.environ, **PAIR, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=HOME, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "joining\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM and "Traceback" not in errors


EARLY = "import os\nif os.environ['RANK'] == '1':\n    raise ValueError('not here')\n"
LATE = """
import os
from heads.gazelstm import GazeLSTM
from registry import HEADS, UserError

@HEADS.register_module(name="fails_in_one")
class FailsInOne(GazeLSTM):
    def __init__(self, feature_dim: int, window: int = 7) -> None:
        if os.environ["RANK"] == "1":
            raise UserError("not here either")
        super().__init__(feature_dim, window)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugin", "options", "line"),
    [
        (EARLY, [], "plug-in .* failed at .*: ValueError: not here"),
        (LATE, ["--head", "fails_in_one"], "bench.py run: not here either"),
    ],
    ids=["before they meet", "in training"],
)
def test_one_process_that_fails_ends_the_others(plugin, options, line, lam_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(plugin)
    command = [
        "torchrun", "--nproc-per-node", "2", "bench.py", "--recipe", "gazelstm", "--dataset", "ego4d", "--root",
        str(lam_tree), "--out", str(tmp_path / "runs"), "--device", "cpu", "--backbone", "tiny_trunk",
        "--plugin", "tests/parts/tiny_trunk.py", "--plugin", str(tmp_path / "mine.py"), *options,
        "--set=backbone.frozen=false", "--set=training.epochs=2", "--set=training.batch_size=16",
        "--set=windows.stride.train=2", "--set=windows.stride.val=2",
    ]  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0 and time.monotonic() - started < 200
    own = done.stderr.partition("Traceback")[0].splitlines()  # before torchrun's own
    ours = [each for each in own if each.startswith("bench.py run: ")]
    assert len(ours) <= 2 and len([each for each in ours if re.search(line, each)]) == 1
    stopped = ("lost the connection to another process", "interrupted; finished work is kept")  # torchrun sends SIGTERM
    assert all(any(words in each for words in stopped) for each in ours if not re.search(line, each))
