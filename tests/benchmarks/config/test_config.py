import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.config.ensemble import resolve_row
from benchmarks.config.files import DATASET_FILES, load_recipe, recipe_names
from benchmarks.config.resolve import resolve
from benchmarks.config.settings import parse_setting
from registry import HEADS, UserError

RECIPE = Path(__file__).resolve().parents[3] / "benchmarks" / "recipes"


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("dataset", ["synthlam", "ego4d"])
def test_every_recipe_resolves(name: str, dataset: str) -> None:
    recipe = resolve_row(name, dataset)
    assert (recipe.name, recipe.dataset, recipe.changes) == (name, dataset, ())


# Every value that determines a row on Ego4D, by recipe, as the authors published it: InternLSTM's report and program,
# Ego4D's social benchmark, GazePose's report and table. What is not known of the gaze models (batch size, first seed,
# and of gazelstm_gaze360 the schedule and the class weights) is that of the recipe they derive from.
LSTM = {"type": "lstm", "projection": 1000, "hidden": 1000, "layers": 2, "mlp": [1024, 512, 512], "dropout": 0.5}
ADAM = {"batch_size": 64, "weight_decay": 0.0, "seed": 3407, "precision": "float32"}
UNLOGGED = {"tensorboard": False, "wandb": False, "mlflow": False}
CONSTANT = {"schedule": "constant", "schedule_floor": 0.0, "schedule_unit": "step"}
COSINE = {"schedule": "cosine", "schedule_floor": 5e-6, "schedule_unit": "epoch"}
NEITHER = {"flip": 0.0, "crop": None}
TRUNK = {"type": "gaze_resnet18", "frozen": False}
PUBLISHED: dict[str, dict[str, Any]] = {
    "internlstm": {
        "method": "InternLSTM",
        "backbone": {"type": "internvit_6b"},
        "head": LSTM,
        "stride": {"train": 13, "val": 13, "test": 1},
        "training": {**ADAM, **CONSTANT, "epochs": 40, "lr": 5e-4, "class_weight": "balanced"},
        "temporal_dropout": False,
        "augment": NEITHER,
        "init": None,
    },
    "gazelstm": {
        "method": "GazeLSTM",
        "backbone": TRUNK,
        "head": {"type": "gazelstm"},
        "stride": {"train": 13, "val": 13, "test": 1},
        "training": {**ADAM, **CONSTANT, "epochs": 40, "lr": 5e-4, "class_weight": [0.136, 0.864]},
        "temporal_dropout": False,
        "augment": NEITHER,
        "init": "random",
    },
    "gazelstm_gaze360": {
        "method": "GazeLSTM + Gaze360",
        "backbone": TRUNK,
        "head": {"type": "gazelstm", "bottleneck": None},
        "stride": {"train": 3, "val": 13, "test": 1},
        "training": {**ADAM, **COSINE, "epochs": 10, "lr": 5e-5, "class_weight": "balanced_key_frames"},
        "temporal_dropout": True,
        "augment": {"flip": 0.5, "crop": 0.8},
        "init": "gaze360",
    },
    "gazepose": {
        "method": "GazePose",
        "backbone": TRUNK,
        "head": {"type": "gazepose", "width": 512, "feed_forward": 2048, "encoder_layers": 6, "decoder_layers": 6},
        "stride": {"train": 3, "val": 13, "test": 1},
        "training": {**ADAM, **COSINE, "epochs": 10, "lr": 1e-4, "class_weight": "balanced_key_frames"},
        "temporal_dropout": True,
        "augment": {"flip": 0.5, "crop": 0.8},
        "init": "gaze360",
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_field_is_as_published(name: str) -> None:
    wanted = PUBLISHED[name]
    found = resolve(name, "ego4d").as_dict()
    version = found.pop("version")
    assert version >= 1
    assert found == {
        "name": name,
        "recipe": name,
        "method": wanted["method"],
        "published": wanted["method"],
        "dataset": "ego4d",
        "backbone": wanted["backbone"],
        "stands_in_for": None,
        "head": wanted["head"],
        "windows": {"radius": 3, "stride": wanted["stride"]},
        "views": {"train": ["original"], "test": ["original"]},
        "training": {**UNLOGGED, **wanted["training"]},
        "smoothing": None,
        "priors": None,
        "temporal_dropout": wanted["temporal_dropout"],
        "augment": wanted["augment"],
        "init": wanted["init"],
        "published_faults": False,
        "checkpoint": None,
        "limit": None,
        "changes": [],
    }


def test_gazeposes_head_has_the_published_size() -> None:
    with torch.device("meta"):
        head = HEADS.build({**resolve("gazepose", "ego4d").head, "feature_dim": 256})
        baseline = HEADS.build({**resolve("gazelstm_gaze360", "ego4d").head, "feature_dim": 256})
    assert sum(parameter.numel() for parameter in head.parameters()) == pytest.approx(50.0e6, abs=0.05e6)
    shapes = {name: tuple(value.shape) for name, value in baseline.state_dict().items() if "lstm" not in name}
    assert shapes == {"last_layer.weight": (2, 512), "last_layer.bias": (2,)}


def test_what_each_star_adds_to_internlstm() -> None:
    plain, flip, tta = (resolve(name, "ego4d") for name in ("internlstm", "internlstm_flip", "internlstm_flip_tta"))
    assert [recipe.views.train for recipe in (plain, flip, tta)] == [("original",), *[("original", "flipped")] * 2]
    assert [recipe.views.test for recipe in (plain, flip, tta)] == [
        ("original",),
        ("original",),
        ("original", "flipped"),
    ]
    assert plain.training == flip.training == tta.training
    assert plain.head == flip.head == tta.head


def test_dataset_sets_the_scale_and_the_command_line_has_the_last_word() -> None:
    recipe = resolve("internlstm_flip_tta", "synthlam", settings=["training.epochs=3", "head.hidden=8"])
    assert recipe.backbone["type"] == "internvit_nano"
    assert recipe.stands_in_for == "internvit_6b"
    assert recipe.training.epochs == 3
    assert recipe.head["hidden"] == 8
    assert recipe.name == "internlstm_flip_tta+training.epochs=3+head.hidden=8"


def test_a_start_is_the_recipes_the_datasets_or_that_of_the_command_line() -> None:
    starts = {"gazelstm": "random", "gazelstm_gaze360": "renders", "gazepose": "renders", "gazepose_random": "random"}
    assert {name: resolve(name).init for name in starts} == starts
    named = dict(settings=["init=gaze360"], weights="x.safetensors")
    assert (resolve("gazepose", **named).init, resolve("gazepose", **named).backbone["weights"]) == (
        "gaze360",
        "x.safetensors",
    )
    for own in ("gazelstm", "gazepose_random"):
        started = resolve(own, settings=["init=renders"])
        assert (started.init, started.backbone["pretrained"]) == ("renders", "renders")
        assert started.name == f"{own}+init=renders"
    assert resolve("gazepose", "ego4d", settings=["init=imagenet"]).backbone["pretrained"] == "imagenet"
    assert "pretrained" not in resolve("gazepose", "ego4d").backbone
    # Another backbone starts as its own arguments say.
    assert resolve("gazelstm", "ego4d", backbone="timm:resnet18", settings=["backbone.frozen=false"]).init is None
    assert resolve("gazelstm", "ego4d", weights="x.safetensors", settings=["init=none"]).init is None


def test_a_dataset_names_what_stands_in_for_a_start(tmp_path: Path) -> None:
    text = (DATASET_FILES / "synthlam.py").read_text()
    own = tmp_path / "synthlam.py"
    own.write_text(re.sub(r"init=dict\(.*?\)", 'init=dict(gaze360="renders")', text))
    found = {name: resolve(name, str(own)) for name in ("gazelstm", "gazepose", "gazelstm_gaze360", "internlstm")}
    assert {name: recipe.init for name, recipe in found.items()} == {
        "gazelstm": "random",
        "gazepose": "renders",
        "gazelstm_gaze360": "renders",
        "internlstm": None,
    }
    assert found["gazepose"].backbone == {
        "type": "gaze_resnet18", "size": 48, "frozen": False, "pretrained": "renders",
    }  # fmt: skip
    assert "pretrained" not in found["gazelstm"].backbone
    with pytest.raises(UserError, match="init is renders, but the backbone has weights; add --set init=gaze360 if"):
        resolve("gazepose", str(own), weights="x.safetensors")
    for wrong, words in (
        ('init="renders"', "dataset .*: pixels.init is 'renders'; "),
        ('init=dict(gaze36="renders")', "pixels.init: unknown key 'gaze36'; did you mean 'gaze360'"),
        (
            'init=dict(gaze360="render")',
            "init is 'render'; expected random or imagenet or gaze360 or renders or none",
        ),
    ):
        own.write_text(re.sub(r"init=dict\(.*?\)", wrong, text))
        with pytest.raises(UserError, match=words):
            resolve("gazepose", str(own))


def test_priors_of_gazepose_are_named() -> None:
    pose = resolve("gazepose", "ego4d", settings=["priors=face_mesh"])
    assert pose.priors == {"type": "face_mesh"}
    assert pose.on_pixels and not resolve("internlstm").on_pixels


def test_scale_of_pixels_is_for_backbones_that_train() -> None:
    pose, frozen = resolve("gazepose"), resolve("internlstm", backbone="gaze_resnet18")
    assert (pose.backbone["size"], pose.training.batch_size, pose.priors) == (48, 16, {"type": "synthlam"})
    assert (frozen.training, frozen.priors) == (resolve("internlstm").training, None)
    assert frozen.training.batch_size == 64
    thawed = resolve("internlstm", backbone="gaze_resnet18", settings=["backbone.frozen=false"])
    assert thawed.backbone == {"type": "gaze_resnet18", "size": 48, "frozen": False}
    assert thawed.training.batch_size == 16
    assert resolve("gazepose", settings=["backbone.size=96"]).backbone["size"] == 96


def test_a_dataset_has_arguments_of_frozen_backbones_unless_weights_are_named() -> None:
    own = {"type": "gaze_resnet18", "size": 48}
    assert resolve("internlstm", backbone="gaze_resnet18").backbone == {**own, "pretrained": "renders"}
    for changes in (dict(weights="x.safetensors"), dict(settings=["backbone.weights=x.safetensors"])):
        named = resolve("internlstm", backbone="gaze_resnet18", **changes)
        assert named.backbone == {**own, "weights": "x.safetensors"}
    assert resolve("internlstm", "ego4d", backbone="gaze_resnet18").backbone == {"type": "gaze_resnet18"}


def test_priors_are_named_and_have_arguments() -> None:
    assert resolve("gazepose", settings=["priors.type=face_mesh"]).priors == {"type": "face_mesh"}
    row = resolve("gazepose", "ego4d", settings=["priors=file", "priors.head_pose=a.json", "priors.landmarks=b.json"])
    assert row.priors == {"type": "file", "head_pose": "a.json", "landmarks": "b.json"}
    assert resolve("gazepose").priors == {"type": "synthlam"}  # the other recipe is unchanged
    assert resolve("gazelstm").priors is None


def test_backbone_and_head_replace_arguments_too() -> None:
    recipe = resolve(
        "internlstm_flip_tta", backbone="timm:resnet18", settings=["backbone.pretrained=false"], head="probe"
    )
    assert recipe.backbone == {"type": "timm:resnet18", "pretrained": False}
    assert recipe.head == {"type": "probe"}
    assert recipe.stands_in_for is None
    assert recipe.name == "internlstm_flip_tta+backbone=timm:resnet18+head=probe+backbone.pretrained=False"


def test_falsy_values_survive() -> None:
    recipe = resolve(
        "internlstm_flip_tta", settings=["head.dropout=0", "windows.radius=0", "training.class_weight=none"]
    )
    assert recipe.head["dropout"] == 0
    assert recipe.windows.radius == 0
    assert recipe.training.class_weight is None


def test_a_setting_that_changes_nothing_is_no_change() -> None:
    assert resolve("internlstm", "ego4d", settings=["training.epochs=40"]).name == "internlstm"


def test_smoothing_can_be_switched_on() -> None:
    recipe = resolve("internlstm", settings=["smoothing.filter=gaussian", "smoothing.window=7"])
    assert recipe.smoothing is not None
    assert (recipe.smoothing.filter, recipe.smoothing.window) == ("gaussian", 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(recipe="internlstm_flip_tat"),
            "unknown recipe 'internlstm_flip_tat'; did you mean 'internlstm_flip_tta'?",
        ),
        (dict(recipe="nowhere.py"), "recipe file nowhere.py does not exist"),
        (dict(recipe="internlstm", dataset="sinthlam"), "unknown dataset 'sinthlam'; did you mean 'synthlam'?"),
        (dict(recipe="internlstm", head="lsmt"), "unknown head 'lsmt'; did you mean 'lstm'?"),
        (dict(recipe="internlstm", backbone="internvit_nan"), "did you mean 'internvit_nano'?"),
        (
            dict(recipe="internlstm", settings=["trian.lr=1e-3"]),
            "--set trian.lr: unknown key 'trian.lr'; did you mean 'training.lr'?",
        ),
        (dict(recipe="internlstm", settings=["training.lrr=1e-3"]), "did you mean 'training.lr'?"),
        (dict(recipe="internlstm", settings=["head.hiden=3"]), "did you mean 'hidden'?"),
        (dict(recipe="internlstm", settings=["head.hidden=three"]), "'hidden' must be int"),
        (dict(recipe="internlstm", settings=["head.type=gru"]), "use --head gru"),
        (dict(recipe="internlstm", settings=["head.feature_dim=3"]), "head.feature_dim follows from the backbone"),
        (
            dict(recipe="internlstm", settings=["training.lr=fast"]),
            "training.lr is 'fast'; expected float, got str",
        ),
        (
            dict(recipe="internlstm", settings=["training.epochs=1.5"]),
            "training.epochs is 1.5; expected int, got float",
        ),
        (
            dict(recipe="internlstm", settings=["training.epochs=true"]),
            "training.epochs is True; expected int, got bool",
        ),
        (dict(recipe="internlstm", settings=["training.epochs=0"]), "training.epochs is 0; expected int >= 1"),
        (dict(recipe="internlstm", settings=["training.lr=-1"]), "training.lr is -1; expected float > 0.0"),
        (dict(recipe="internlstm", settings=["views.test=['upside_down']"]), "views.test is ['upside_down']"),
        (
            dict(recipe="internlstm", settings=["smoothing.window=4"]),
            "smoothing.window is 4; it must be an odd number",
        ),
        (dict(recipe="internlstm", settings=["training"]), "expected key=value"),
        (dict(recipe="gazelstm", settings=["training.schedule=cosin"]), "'cosin'; expected constant or cosine"),
        (dict(recipe="gazelstm", settings=["training.precision=float16"]), "expected float32 or bfloat16"),
        (
            dict(recipe="gazelstm", settings=["temporal_dropout=1"]),
            "temporal_dropout is 1; expected bool, got int",
        ),
        (dict(recipe="gazelstm", settings=["temporal_dropuot=true"]), "did you mean 'temporal_dropout'?"),
        (dict(recipe="internlstm", settings=["temporal_dropout=true"]), "temporal_dropout needs a trainable backbone"),
        (dict(recipe="internlstm", settings=["priors=face_mesh"]), "priors are set, but head lstm takes none"),
        (dict(recipe="gazepose", settings=["priors=facemesh"]), "unknown prior 'facemesh'; did you mean 'face_mesh'?"),
        (dict(recipe="gazepose", settings=["priors.root=/x"]), "priors.root follows from --root"),
        (dict(recipe="gazepose", settings=["priors.head_pos=x"]), "prior synthlam has no argument 'head_pos'"),
        (
            dict(recipe="gazepose", dataset="ego4d", settings=["priors.head_pose=x"]),
            "no prior is named; put --set priors=NAME before it",
        ),
        (dict(recipe="internlstm", limit=0), "--limit is 0; expected int >= 1"),
        (dict(recipe="internlstm", limit=10**20), "--limit is 100000000000000000000; expected int <= 1000000"),
        *(
            (dict(recipe=recipe, settings=[f"{key}={value}"]), f"{key} is {value}; expected {kind} {bound}")
            for recipe, key, value, kind, bound in (
                ("internlstm", "training.seed", 1 << 32, "int", f"<= {(1 << 32) - 1}"),
                ("internlstm", "training.seed", -1, "int", ">= 0"),
                ("internlstm", "training.epochs", 10**20, "int", "<= 1000000"),
                ("internlstm", "training.weight_decay", -0.5, "float", ">= 0.0"),
                ("internlstm", "windows.radius", 100_000, "int", "<= 500"),
                ("internlstm", "windows.stride.test", 0, "int", ">= 1"),
                ("internlstm_flip_tta_smooth", "smoothing.window", 1001, "int", "<= 999"),
            )
        ),
        (dict(recipe="internlstm", settings=["training.lr=1e400"]), "training.lr is inf; expected float <= 1000.0"),
        (
            dict(recipe="internlstm", settings=["training.class_weight=2"]),
            "expected balanced or balanced_key_frames or 2 numbers or none",
        ),
        (dict(recipe="internlstm", settings=["head.dropout=1"]), "head lstm: argument 'dropout' must be < 1.0, got 1"),
        (dict(recipe="internlstm", settings=["head.mlp=[8,0]"]), "head lstm: argument 'mlp' must be >= 1, got [8, 0]"),
        (dict(recipe="internlstm", settings=["head.hidden=1000000000"]), "argument 'hidden' must be <= 65536"),
        (dict(recipe="gazepose", settings=["head.grid=1"]), "head gazepose: argument 'grid' must be >= 2, got 1"),
        (
            dict(recipe="interntransformer_flip_tta", settings=["head.depth=0"]),
            "head transformer: argument 'depth' must be >= 1, got 0",
        ),
        (
            dict(recipe="gazelstm", settings=["backbone.seed=4294967296"]),
            "argument 'seed' must be <= 4294967295, got 4294967296",
        ),
    ],
    ids=str,
)
def test_mistakes_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_type_that_changes_while_old_arguments_stay_is_an_error(tmp_path: Path) -> None:
    """mmengine would hand the LSTM's sizes to the GRU in silence."""
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = [{str(RECIPE / 'internlstm.py')!r}]\nhead = dict(type='gru')\n")
    with pytest.raises(
        UserError, match=r"mine.py: head.type changes from lstm to gru while projection, .* would stay.*_delete_=True"
    ):
        load_recipe(str(path))
    path.write_text(f"_base_ = [{str(RECIPE / 'internlstm.py')!r}]\nhead = dict(_delete_=True, type='gru')\n")
    assert load_recipe(str(path))["head"] == {"type": "gru"}


def test_a_recipe_with_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = [{str(RECIPE / 'internlstm.py')!r}]\ntrainign = dict(lr=1)\n")
    with pytest.raises(UserError, match="unknown key 'trainign'; did you mean 'training'?"):
        load_recipe(str(path))


def test_a_recipe_that_does_not_run_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("version = 1 +\n")
    with pytest.raises(UserError, match="cannot read .*mine.py"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a=1", ("a", 1)),
        ("a=1e-3", ("a", 1e-3)),
        ("a=false", ("a", False)),
        ("a=None", ("a", None)),
        ("a=timm:x", ("a", "timm:x")),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a=", ("a", "")),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_parse_setting(setting: str, expected: tuple) -> None:
    assert parse_setting(setting) == expected


def test_an_argument_that_is_not_utf8_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"training has text that is not Unicode: '\\udcff'"):
        resolve("internlstm", settings=["training.lr=\udcff"])


@pytest.mark.parametrize(
    "line",
    [
        "backbone = 'x'",
        "head = 3",
        "head = dict(_delete_=True)",
        "windows = 2.5",
        "augment = {1: 2}",
        "init = dict(a=1)",
        "init = 'mine'",
    ],
)
def test_a_recipe_file_with_a_part_of_the_wrong_type_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = [{str(RECIPE / 'gazelstm.py')!r}]\n{line}\n")
    with pytest.raises(UserError, match=line.partition(" ")[0]):
        resolve(str(path), "synthlam")


def test_a_reference_row_with_windows_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = [{str(RECIPE / 'chance.py')!r}]\nwindows = 2.5\n")
    with pytest.raises(UserError, match="windows is 2.5"):
        resolve_row(str(path), "synthlam")


@pytest.mark.parametrize("line", ["windows = 3", "heads = 'x'", "pixels = [1]", "stand_in = None", "backbones = 1"])
def test_a_dataset_file_with_a_section_of_the_wrong_type_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"type = 'synthlam'\n{line}\n")
    with pytest.raises(UserError, match=f"dataset mine.py: {line.partition(' ')[0]} is .*; it must be a dict"):
        resolve("internlstm", str(path))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("heads = dict(lstm=3)", "heads.lstm"),
        ("backbones = dict(internvit_nano=3)", "backbones.internvit_nano"),
        ("stand_in = dict(internvit_6b=3)", "stand_in.internvit_6b"),
        ("pixels = dict(backbones=3)", "pixels.backbones"),
        ("pixels = dict(backbones=dict(gaze_resnet18=3))", "pixels.backbones.gaze_resnet18"),
        ("pixels = dict(training=3)", "pixels.training"),
    ],
)
def test_a_part_of_a_dataset_file_that_is_no_dict_is_named(tmp_path: Path, line: str, name: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"type = 'synthlam'\n{line}\n")
    with pytest.raises(UserError, match=f"dataset mine.py: {name} is 3; it must be a dict"):
        resolve("internlstm", str(path))
