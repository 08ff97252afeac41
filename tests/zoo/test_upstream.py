"""Published checkpoints are imported completely, wrong files give one-line errors, and nothing in them is executed."""

import hashlib
import importlib
import io
import json
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import bench
from backbones.foreign import read_checkpoint
from heads.base import Window
from registry import BACKBONES, HEADS, UserError
from tests.contracts import golden_tensor, uniform
from tests.zoo.test_golden_models import GOLDEN, assert_golden_logits, golden_state
from zoo.cards import load_card
from zoo.foreign import figures
from zoo.model import read_model
from zoo.published import PUBLISHED
from zoo.upstream import import_checkpoint
from zoo.weights import read_head, read_weights

# InternLSTM's head at a size of its own.
SIZES = {"projection": 5, "hidden": 4, "layers": 3, "mlp": (9, 8)}
SHAPES = {
    "fc1.weight": (5, 6),
    "fc1.bias": (5,),
    **{
        f"lstm.{kind}_l{layer}{way}": shape
        for layer in range(3)
        for way in ("", "_reverse")
        for kind, shape in (
            ("weight_ih", (16, 8 if layer else 5)),
            ("weight_hh", (16, 4)),
            ("bias_ih", (16,)),
            ("bias_hh", (16,)),
        )
    },
    "last_layer1.weight": (9, 8),
    "last_layer1.bias": (9,),
    "last_layer2.weight": (8, 9),
    "last_layer2.bias": (8,),
    "last_layer3.weight": (2, 8),
    "last_layer3.bias": (2,),
}
STATE = OrderedDict((name, golden_tensor(name, shape)) for name, shape in SHAPES.items())


def wrap(state: dict[str, Tensor], prefix: str = "module.") -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def save(folder: Path, content: object, name: str = "best.pth", **options: object) -> Path:
    torch.save(content, folder / name, **options)
    return folder / name


def refused(source: Path, kind: str = "internlstm") -> str:
    """Return the one-line error of an import, and check that nothing was written."""
    before = sorted(source.parent.iterdir()) if source.parent.is_dir() else None
    with pytest.raises(UserError) as caught:
        import_checkpoint(source, kind, source.parent / "out.safetensors")
    assert before is None or sorted(source.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    return str(caught.value)


def assert_is_state(path: Path) -> None:
    head, about = read_head(path)
    assert about["head"] == {
        **SIZES, "mlp": [9, 8], "type": "lstm", "feature_dim": 6, "window": 7, "dropout": 0.5,
    }  # fmt: skip
    assert head.state_dict().keys() == STATE.keys()
    assert all(torch.equal(head.state_dict()[name], tensor) for name, tensor in STATE.items())


# -- what comes over ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.module.", "backbone.", "net.head.fc1."])
@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("model",), ("net",), ("best", "weights")])
def test_any_prefix_in_any_wrapper(tmp_path: Path, prefix: str, wrapper: tuple[str, ...]) -> None:
    content: object = wrap(STATE, prefix)
    for key in reversed(wrapper):
        moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(5, 6)}}
        content = {"epoch": 7, key: content, "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3}]}}
    done = import_checkpoint(save(tmp_path, content), "internlstm", tmp_path / "x.safetensors")
    assert (done.prefix, done.tensors, done.converted, done.dropped) == (prefix, len(SHAPES), {}, [])
    assert_is_state(tmp_path / "x.safetensors")


@pytest.mark.parametrize("form", ["legacy", "safetensors", "views", "parameters"])
def test_any_form_of_file(tmp_path: Path, form: str) -> None:
    state = wrap(STATE)
    if form == "safetensors":
        source = tmp_path / "best.safetensors"
        save_file(dict(state), source)
    elif form == "legacy":
        source = save(tmp_path, {"state_dict": state}, _use_new_zipfile_serialization=False)
    elif form == "parameters":
        source = save(tmp_path, {"state_dict": {name: nn.Parameter(tensor) for name, tensor in state.items()}})
    else:  # as a GPU's LSTM has them: all in one storage; and one of them not contiguous
        flat = torch.cat([tensor.flatten() for tensor in state.values()])
        parts = flat.split([tensor.numel() for tensor in state.values()])
        views = {name: part.view(state[name].shape) for name, part in zip(state, parts, strict=True)}
        views["module.fc1.weight"] = state["module.fc1.weight"].T.contiguous().T
        source = save(tmp_path, {"state_dict": views})
    import_checkpoint(source, "internlstm", tmp_path / "x.safetensors")
    assert_is_state(tmp_path / "x.safetensors")


def test_internlstm_at_its_published_size(tmp_path: Path) -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden" / "internlstm_head.json").read_text())
    state = {name: golden_tensor(name, tuple(shape)) for name, shape in golden["parameters"].items()}
    import_checkpoint(save(tmp_path, {"state_dict": wrap(state)}), "internlstm", tmp_path / "x.safetensors")
    head, _ = read_head(tmp_path / "x.safetensors")
    features = torch.from_numpy(uniform(golden["input"]["name"], tuple(golden["input"]["shape"]))).float()
    with torch.no_grad():
        logits = head(Window(features, torch.ones(features.shape[:2], dtype=torch.bool)))
    torch.testing.assert_close(logits, torch.tensor(golden["logits"]), atol=1e-5, rtol=0)
    card = load_card(tmp_path / "x.json")
    assert card.backbone == {"type": "internvit_6b"}
    assert card.head == {
        "type": "lstm", "feature_dim": 3200, "window": 7, "projection": 1000, "hidden": 1000, "layers": 2,
        "mlp": [1024, 512, 512], "dropout": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("kind", GOLDEN)
def test_pixels_to_golden_logits(tmp_path: Path, kind: str) -> None:
    state = golden_state(kind)
    path = tmp_path / "x.safetensors"
    done = import_checkpoint(save(tmp_path, {"state_dict": wrap(state)}), kind, path)
    assert done.tensors == len(state) == len(load_file(path))
    model = read_model(path)
    assert not model.training
    assert_golden_logits(model, kind)
    trunk = BACKBONES.build({"type": "gaze_resnet18", "weights": str(path)})
    for name, tensor in trunk.network.state_dict().items():
        assert torch.equal(tensor, state[f"base_model.{name}"])
    assert trunk.weights_info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert trunk.weights_info.licence == "unknown: the repository has no licence"
    assert not trunk.weights_info.random_init


def gaze360_state() -> dict[str, Tensor]:
    state = {name: tensor for name, tensor in golden_state("gazelstm").items() if not name.startswith("last_layer")}
    return {**state, "last_layer.weight": torch.ones(3, 512), "last_layer.bias": torch.ones(3)}


def test_gaze360_keeps_trunk_and_lstm(tmp_path: Path) -> None:
    state, path = gaze360_state(), tmp_path / "x.safetensors"
    done = import_checkpoint(save(tmp_path, {"state_dict": wrap(state), "epoch": 21}), "gaze360", path)
    assert done.dropped == ["last_layer.bias", "last_layer.weight"]
    tensors, about = read_weights(path)
    assert "head" not in about
    for name, tensor in tensors.items():
        published = name.replace("backbone.network.", "base_model.").removeprefix("head.")
        assert torch.equal(tensor, state.pop(published))
    assert sorted(state) == done.dropped
    trunk = BACKBONES.build({"type": "gaze_resnet18", "weights": str(path)})
    assert torch.equal(trunk.network.fc2.bias, tensors["backbone.network.fc2.bias"])
    assert "research only" in trunk.weights_info.licence
    head = HEADS.build({"type": "gazelstm", "feature_dim": 256})
    lstm = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
    assert sorted(head.load_state_dict(lstm, strict=False).missing_keys) == [
        "last_layer1.bias", "last_layer1.weight", "last_layer2.bias", "last_layer2.weight",
    ]  # fmt: skip
    card = load_card(tmp_path / "x.json")
    assert card.head is None
    assert any("last_layer.weight" in limit for limit in card.limits)
    with pytest.raises(UserError, match="are not those of a backbone and its head"):
        read_model(path)


def test_half_and_double_become_single(tmp_path: Path) -> None:
    state = {
        name: tensor.half() if "weight_hh" in name else tensor.double() if "bias" in name else tensor
        for name, tensor in STATE.items()
    }
    done = import_checkpoint(save(tmp_path, state), "internlstm", tmp_path / "x.safetensors")
    assert done.converted == {"float16": 6, "float64": 2 + 12 + 2}
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].float())


def test_the_state_dict_that_fits_is_taken(tmp_path: Path) -> None:
    """Beside it are an exponential average and the state of another network."""
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    content = {"ema": wrap(other), "discriminator": {"conv.weight": torch.ones(3)}, "state_dict": wrap(STATE)}
    import_checkpoint(save(tmp_path, content), "internlstm", tmp_path / "x.safetensors")
    assert_is_state(tmp_path / "x.safetensors")


# -- the card -----------------------------------------------------------------------------------------------------


def test_card_and_bytes(tmp_path: Path) -> None:
    content = {
        "state_dict": wrap(STATE), "epoch": 12, "best_mAP": np.float64(0.7657), "acc": torch.tensor(0.875),
        "val_map_nan": float("nan"), "lr": 0.1, "map_name": "x", "is_map": True,
    }  # fmt: skip
    source = save(tmp_path, content)
    outputs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        import_checkpoint(source, "internlstm", tmp_path / name / "x.safetensors")
        import_checkpoint(source, "internlstm", tmp_path / name / "x.safetensors")  # over what is there
        outputs.append([file.read_bytes() for file in sorted((tmp_path / name).iterdir())])
    assert len(outputs[0]) == 2
    assert outputs[0] == outputs[1]
    card = load_card(tmp_path / "a" / "x.json")
    assert {figure.metric: figure.value for figure in card.figures} == {"acc": 0.875, "best_mAP": 0.7657, "epoch": 12}
    assert {(figure.split, figure.source) for figure in card.figures} == {("validation", "the checkpoint")}
    weights = card.weights[0]
    assert weights.sha256 == hashlib.sha256((tmp_path / "a" / "x.safetensors").read_bytes()).hexdigest()
    assert weights.origin == f"imported from best.pth, sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}"
    assert weights.licence == "unknown: the repository has no licence"
    assert HEADS.build(card.head).state_dict().keys() == STATE.keys()
    assert card.backbone is None  # features of six numbers are no InternViT's


def test_files_that_are_not_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "x.safetensors"
    save_file(dict(STATE), source)
    with pytest.raises(UserError, match="would overwrite the checkpoint;"):
        import_checkpoint(source, "internlstm", source)
    with pytest.raises(UserError, match="must end in .safetensors"):
        import_checkpoint(source, "internlstm", tmp_path / "y.pth")
    (tmp_path / "y.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match="y.json exists and is not a model card"):
        import_checkpoint(source, "internlstm", tmp_path / "y.safetensors")
    assert (tmp_path / "y.json").read_text() == '{"mine": 1}'
    assert not (tmp_path / "y.safetensors").exists()


# -- nothing is executed ------------------------------------------------------------------------------------------


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path, how: str) -> None:
        self.path, self.how = str(path), how

    def __reduce__(self) -> tuple:
        import os

        if self.how == "os.mkdir":
            return os.mkdir, (self.path,)
        return eval, (f"open({self.path!r}, 'w').close()",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 2", "pickle 4", "beside", "in the state dict"])
@pytest.mark.parametrize("how", ["os.mkdir", "eval"])
def test_a_payload_is_refused_and_does_not_run(tmp_path: Path, form: str, how: str) -> None:
    canary = tmp_path / "canary"
    payload = Canary(canary, how)
    content: object = {"state_dict": payload}
    if form == "beside":
        content = {"state_dict": wrap(STATE), "args": payload}
    elif form == "in the state dict":
        content = {"state_dict": {**STATE, "fc1.weight": payload}}
    if form.startswith("pickle"):
        source = tmp_path / "best.pth"
        source.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    else:
        source = save(tmp_path, content, _use_new_zipfile_serialization=form != "legacy")
    message = refused(source)
    assert "no code in it was run" in message
    if form != "pickle 4":
        assert {"os.mkdir": "posix.mkdir", "eval": "eval"}[how] in message
    assert not canary.exists()
    pickle.loads(pickle.dumps(payload))  # the canary does sing
    assert canary.exists()


@pytest.mark.parametrize("make", [lambda: nn.Linear(2, 2), lambda: {"a": np.ones(3)}, lambda: {"a": Path("x")}])
def test_objects_are_refused(tmp_path: Path, make) -> None:
    assert "holds a pickled" in refused(save(tmp_path, make()))


@pytest.mark.parametrize("number", [np.float64(0.7657), np.float32(0.5), np.int64(-3), np.float16(0.25), np.uint8(200)])
@pytest.mark.parametrize("legacy", [True, False])
def test_numpys_numbers_are_read(tmp_path: Path, number: np.number, legacy: bool) -> None:
    content = {"state_dict": wrap(STATE), "best_mAP": number}
    source = save(tmp_path, content, _use_new_zipfile_serialization=not legacy)
    assert figures(read_checkpoint(source)) == {"best_mAP": number.item()}
    import_checkpoint(source, "internlstm", tmp_path / "x.safetensors")


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpys_numbers_of_either_numpy(tmp_path: Path, module: bytes) -> None:
    """The module that a pickled scalar names differs between numpy 1 and numpy 2."""
    buffer = io.BytesIO()
    torch.save({"mAP": np.float64(0.25)}, buffer, _use_new_zipfile_serialization=False)
    renamed = buffer.getvalue()
    for name in (b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"):
        renamed = renamed.replace(b"c" + name, b"c" + module + b"\n")
    assert b"c" + module + b"\nscalar" in renamed
    (tmp_path / "x.pth").write_bytes(renamed)
    assert read_checkpoint(tmp_path / "x.pth") == {"mAP": 0.25}


def test_numpy_scalars_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    for value in (np.str_("x"), np.datetime64("2024-01-01")):
        assert "best.pth" in refused(save(tmp_path, {"state_dict": STATE, "value": value}))


# -- wrong files --------------------------------------------------------------------------------------------------


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    assert "does not exist" in refused(path)
    assert "is a folder" in refused(tmp_path)
    for content, words in (
        (b"", "is empty or filled with zeros"),
        (bytes(4000), "is empty or filled with zeros"),
        (b"mAP 76.57\n" * 99, "is a text file"),
        ("Genauigkeit für später\n".encode() * 99, "is a text file"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (bytes(range(256)) * 20, "is damaged or truncated"),
    ):
        path.write_bytes(content)
        message = refused(path)
        assert words in message
        assert "expected a file written by torch.save or safetensors" in message
    inner = tmp_path / "inner.txt"
    inner.write_text("x" * 600)
    with tarfile.open(path, "w") as archive:
        archive.add(inner)
    assert "is a tar archive: unpack it" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner)
    assert "is a zip archive that torch.save did not write" in refused(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path: Path, form: str) -> None:
    path = tmp_path / "best.pth"
    if form == "safetensors":
        save_file(dict(STATE), path)
    else:
        save(tmp_path, {"state_dict": STATE}, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert "is damaged or truncated" in refused(path)


def test_checkpoints_without_named_tensors(tmp_path: Path) -> None:
    assert "holds no named tensors (found: a list)" in refused(save(tmp_path, [torch.ones(2)]))
    assert "(found: a Tensor)" in refused(save(tmp_path, torch.ones(2)))
    assert "(found: nothing)" in refused(save(tmp_path, {}))
    assert "(found: 'epoch', 'optimizer')" in refused(save(tmp_path, {"epoch": 1, "optimizer": {"state": {}}}))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_that_do_not_fit(tmp_path: Path, prefix: str) -> None:
    def message(**changes: Tensor | None) -> str:
        state = {**STATE, **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
        kept = {name: tensor for name, tensor in state.items() if tensor is not None}
        return refused(save(tmp_path, {"state_dict": wrap(kept, prefix)}))

    text = message(fc1__bias=None)
    assert (
        "does not fit --as internlstm: expected 32 tensors (fc1, lstm, last_layer1, last_layer2, ...), found 31" in text
    )
    assert "it lacks 'fc1.bias' (5,)" in text
    assert "it has unknown 'odd.a' (2, 3), 'odd.b' (1,) and 1 more" in message(
        odd__a=torch.ones(2, 3), odd__b=torch.ones(1), odd__c=torch.ones(1)
    )
    assert "'lstm.bias_hh_l1' has shape (15,), expected (16,)" in message(lstm__bias_hh_l1=torch.ones(15))
    assert "'fc1.bias' has dtype int8, expected float32" in message(fc1__bias=torch.ones(5, dtype=torch.int8))
    assert "'fc1.bias' has dtype complex64" in message(fc1__bias=torch.ones(5, dtype=torch.complex64))
    assert "'fc1.bias' is not a plain tensor" in message(fc1__bias=torch.ones(5).to_sparse())
    assert "'fc1.bias' is not a plain tensor" in message(fc1__bias=torch.ones(5, device="meta"))
    not_finite = message(fc1__bias=torch.full((5,), float("nan")))
    assert f"tensor '{prefix}fc1.bias' has values that are not finite" in not_finite
    assert "not finite" in message(fc1__bias=torch.full((5,), 1e300, dtype=torch.float64))
    assert "found" in message(fc1__weight=torch.ones(3))  # sizes are read off it
    assert "it lacks" in message(**{name.replace(".", "__"): None for name in STATE if "last_layer" in name})


def test_tensors_outside_the_prefix(tmp_path: Path) -> None:
    assert "has unknown 'criterion.weight' (2,)" in refused(
        save(tmp_path, {**wrap(STATE), "criterion.weight": torch.ones(2)})
    )
    assert "has unknown 'fc1.bias without 'module.'' (5,)" in refused(
        save(tmp_path, {**wrap(STATE), "fc1.bias": torch.ones(5)})
    )


def test_a_checkpoint_of_another_model_names_it(tmp_path: Path) -> None:
    states = {"internlstm": STATE, "gaze360": gaze360_state(), **{name: golden_state(name) for name in GOLDEN}}
    for kind, state in states.items():
        source = save(tmp_path, {"state_dict": wrap(state)})
        for other in PUBLISHED:
            if other != kind:
                message = refused(source, other)
                assert message.startswith(f"checkpoint {source} does not fit --as {other}: expected ")
                assert message.endswith(f"it fits --as {kind}")
    resnet = {name.removeprefix("base_model."): tensor for name, tensor in states["gaze360"].items()}
    assert "looks like" not in refused(save(tmp_path, resnet), "gazelstm")


def test_sizes_that_no_head_can_have(tmp_path: Path) -> None:
    state = {**golden_state("gazepose"), "headpos_emeb": torch.ones(8, 20)}
    assert "its sizes do not fit gazepose: head gazepose: width 20 is not a multiple of its 8 heads" in refused(
        save(tmp_path, state), "gazepose"
    )


# -- the command --------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = {name: tensor.half() if name == "fc1.bias" else tensor for name, tensor in STATE.items()}
    source, out = save(tmp_path, {"state_dict": wrap(state)}), tmp_path / "new" / "x.safetensors"
    assert bench.main(["import", str(source), "--as", "internlstm", "-o", str(out)]) == 0
    printed = capsys.readouterr()
    numbers = sum(tensor.numel() for tensor in STATE.values())
    assert printed.out == (
        f"{out}: internlstm, 32 tensors of {numbers:,} numbers, prefix 'module.' stripped, "
        f"1 converted from float16; card {out.with_suffix('.json')}\n"
    )
    assert printed.err == ""
    assert bench.main(["import", str(source), "--as", "gazepose", "-o", str(tmp_path / "y.safetensors")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"bench.py import: checkpoint {source} does not fit --as gazepose: ")


def test_the_command_knows_every_kind() -> None:
    command = importlib.import_module("benchmarks.commands.import")
    parser = bench.Parser()
    command.add_arguments(parser)
    (choices,) = (action.choices for action in parser._actions if action.dest == "kind")
    assert sorted(choices) == sorted(PUBLISHED)
