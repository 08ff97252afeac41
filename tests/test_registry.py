"""The registry resolves registered names only, suggests the nearest, and refuses duplicates."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

import registry
from registry import (
    BACKBONES,
    DATASETS,
    HEADS,
    PRIORS,
    Registry,
    UserError,
    check_arguments,
    did_you_mean,
    first_sentences,
    load_plugin,
)

HOME = Path(__file__).resolve().parent.parent


class Toy:
    def __init__(
        self, size: int, depth: int = 1, rate: float = 0.1, widths: tuple[int, ...] = (), name: str | None = None
    ) -> None:
        self.arguments = (size, depth, rate, widths, name)


@pytest.fixture
def toys() -> Registry:
    made = Registry("toy", locations=[])
    made.register_module(name="lstm", module=Toy)
    made.register_module(name="transformer", module=Toy)
    return made


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the registries after the test."""
    for each in (BACKBONES, HEADS):
        monkeypatch.setattr(each, "_module_dict", dict(each.module_dict))
        monkeypatch.setattr(each, "places", dict(each.places))


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "heads", "zoo", "registry", "torch", "backbones.base.Backbone"])
def test_modules_are_not_parts(name: str) -> None:
    assert name not in HEADS
    with pytest.raises(UserError, match=f"unknown head '{name}'"):
        HEADS.get(name)
    with pytest.raises(UserError):
        HEADS.build({"type": name})


class Talkative:
    def __init__(self) -> None:
        raise RuntimeError("missing keys: " + ", ".join(f"layer{number}" for number in range(1000)))


def test_long_errors_of_constructors_are_cut(toys: Registry) -> None:
    toys.register_module(name="talkative", module=Talkative)
    with pytest.raises(UserError, match="RuntimeError: missing keys: layer0, layer1") as caught:
        toys.build({"type": "talkative"})
    assert len(str(caught.value)) < 600
    assert str(caught.value).endswith("…")


def test_suggestions_do_not_repeat_the_name() -> None:
    assert did_you_mean("head", ["head"]) == ""
    assert did_you_mean("heat", ["head", "heat"]) == "; did you mean 'head'?"
    assert did_you_mean("HEAD", ["head"]) == "; did you mean 'head'?"


def test_models_of_a_part_are_suggested_with_the_part(toys: Registry) -> None:
    class Zoo(Toy):
        has_model = staticmethod(lambda name: name == "alexnet")

    toys.register_module(name="zoo", module=Zoo)
    with pytest.raises(UserError, match="unknown toy 'alexnet'; did you mean 'zoo:alexnet'?"):
        toys.get("alexnet")
    with pytest.raises(UserError, match=r"unknown toy 'alexne' \(known"):
        toys.get("alexne")


def test_a_membership_test_asks_no_part(toys: Registry) -> None:
    """timm takes two seconds to import."""

    class Slow(Toy):
        @staticmethod
        def has_model(name: str) -> bool:
            raise AssertionError("asked")

    toys.register_module(name="slow", module=Slow)
    assert "alexnet" not in toys and "slow" in toys and "slow:x" not in toys


def test_long_messages_end_with_a_sentence() -> None:
    assert first_sentences(ValueError("one.\n two \x1b[1mthree\x1b[0m")) == "one. two three"
    long = "Missing key(s): a, b. " * 40
    cut = first_sentences(long)
    assert cut == ("Missing key(s): a, b. " * 18).strip() and len(cut) <= registry.LONGEST_REASON
    assert first_sentences("word " * 100) == "word " * 80 + "…"
    assert first_sentences("") == "" and first_sentences("a: b;") == "a: b"


def test_unknown_name_suggests_the_nearest_and_lists_all(toys: Registry) -> None:
    with pytest.raises(UserError) as caught:
        toys.get("lsmt")
    assert str(caught.value) == "unknown toy 'lsmt'; did you mean 'lstm'? (known: lstm, transformer)"
    with pytest.raises(UserError, match="did you mean 'transformer'"):
        toys.get("Transformer")
    with pytest.raises(UserError, match=r"unknown toy 'xyz' \(known: lstm, transformer\)"):
        toys.get("xyz")


@pytest.mark.parametrize(
    ("number", "question"),
    list(
        enumerate(
            [
                lambda toys: len(toys) == 1,
                lambda toys: "built_in" in toys,
                lambda toys: toys.names() == ["built_in"],
                lambda toys: list(toys) == ["built_in"],
                lambda toys: repr(toys) == "Registry(toy: built_in)",
                lambda toys: "built_in" in toys.module_dict,
                lambda toys: toys.get("built_in") is not None,
                lambda toys: toys.build({"type": "built_in"}) is not None,
            ]
        )
    ),
)
def test_every_look_up_loads_the_built_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, question: Callable[[Registry], bool]
) -> None:
    made = Registry("toy", locations=[f"built_in_{number}"])
    monkeypatch.setattr(sys.modules[__name__], "FRESH", made)
    (tmp_path / f"built_in_{number}.py").write_text(
        f"from {__name__} import FRESH\n@FRESH.register_module(name='built_in')\nclass A:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert question(made)


def test_registry_datasets_and_priors_do_not_import_torch() -> None:
    code = (
        "import sys, registry; from registry import DATASETS, DETECTORS, PRIORS; DATASETS.names(); 'x' in DATASETS; "
        "[r.get(n) for r in (DATASETS, PRIORS, DETECTORS) for n in r]; assert not {'torch', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=HOME, check=True)


def test_the_built_in_parts() -> None:
    assert {"lstm", "gru", "transformer", "probe", "probe_sklearn"} <= set(HEADS.names())
    assert {"internvit", "internvit_nano", "internvit_6b", "internvit_300m", "timm"} <= set(BACKBONES.names())
    assert HEADS.origin("gru").startswith(str(HOME / "heads" / "recurrent.py") + ":")
    assert DATASETS.name == "dataset"
    assert {"file", "synthlam", "face_mesh"} <= set(PRIORS.names())


def test_a_model_after_a_colon(toys: Registry) -> None:
    assert "timm:resnet18" in BACKBONES
    assert BACKBONES.get("timm:resnet18") is BACKBONES.get("timm")
    assert BACKBONES.check({"type": "timm:resnet18", "pretrained": False})[1] == {
        "model": "resnet18",
        "pretrained": False,
    }
    with pytest.raises(UserError, match="takes no model after a colon"):
        toys.get("lstm:big")
    with pytest.raises(UserError, match="has no model after the colon"):
        BACKBONES.get("timm:")
    with pytest.raises(UserError, match="already names its model"):
        BACKBONES.build({"type": "timm:resnet18", "model": "resnet34"})
    with pytest.raises(UserError, match="unknown backbone 'tim:resnet18'; did you mean 'timm'"):
        BACKBONES.get("tim:resnet18")


@pytest.mark.parametrize("key", [None, 3, "", Toy])
def test_a_type_is_a_name(toys: Registry, key: object) -> None:
    assert key not in toys
    with pytest.raises(UserError, match="must be its name"):
        toys.get(key)  # type: ignore[arg-type]


# -- registering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lstm", "LSTM"])
def test_a_taken_name_is_an_error_with_both_locations(toys: Registry, name: str) -> None:
    first = toys.origin("lstm")
    assert first.startswith(f"{__file__}:")
    with pytest.raises(UserError) as caught:
        toys.register_module(name=name, module=Toy)
    assert first in str(caught.value)
    assert str(caught.value).count(__file__) == 2
    assert toys.names() == ["lstm", "transformer"]


def test_the_same_line_twice_is_a_duplicate_too() -> None:
    made = Registry("toy", locations=[])

    def register() -> None:
        made.register_module(name="again", module=Toy)

    register()
    with pytest.raises(UserError, match="is taken"):
        register()


def test_decorator_takes_the_class_name_and_returns_the_class(toys: Registry) -> None:
    @toys.register_module()
    class MyHead:
        pass

    assert toys.get("MyHead") is MyHead
    with pytest.raises(TypeError, match="brackets"):

        @toys.register_module
        class Forgot:
            pass

    with pytest.raises(TypeError, match="callable"):
        toys.register_module(name="five", module=5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has a colon"):
        toys.register_module(name="a:b", module=Toy)


# -- building ---------------------------------------------------------------------------------------------------------


def test_build(toys: Registry) -> None:
    assert toys.build({"type": "lstm", "size": 3, "widths": [4, 5]}).arguments == (3, 1, 0.1, (4, 5), None)
    assert toys.build({"type": "lstm", "size": 3, "rate": 1, "name": "x"}).arguments == (3, 1, 1, (), "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"siz": 3},
            "toy lstm has no argument 'siz'; did you mean 'size'? (it takes: size, depth, rate, widths, name)",
        ),
        ({"size": 3, "zzz": 3}, "toy lstm has no argument 'zzz' (it takes: size, depth, rate, widths, name)"),
        ({"depth": 3}, "toy lstm needs the argument 'size'"),
        ({"size": "3"}, "toy lstm: argument 'size' must be int, got '3' (str)"),
        ({"size": True}, "toy lstm: argument 'size' must be int, got True (bool)"),
        ({"size": 3.0}, "toy lstm: argument 'size' must be int, got 3.0 (float)"),
        ({"size": 3, "rate": "1e-3"}, "toy lstm: argument 'rate' must be float, got '1e-3' (str)"),
        ({"size": 3, "rate": False}, "toy lstm: argument 'rate' must be float, got False (bool)"),
        ({"size": 3, "widths": 4}, "toy lstm: argument 'widths' must be tuple[int, ...], got 4 (int)"),
        ({"size": 3, "widths": (4, "a")}, "toy lstm: argument 'widths' must be tuple[int, ...], got (4, 'a') (tuple)"),
        ({"size": 3, "name": 4}, "toy lstm: argument 'name' must be str | None, got 4 (int)"),
    ],
)
def test_wrong_arguments(toys: Registry, arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        toys.build({"type": "lstm", **arguments})
    assert str(caught.value) == message


def test_bounds_are_declared_beside_an_argument() -> None:
    def part(
        share: Annotated[float, Meta(ge=0, lt=1)] = 0.5,
        sizes: tuple[Annotated[int, Meta(ge=1)], ...] = (1,),
        rate: float | None = None,
    ) -> None: ...

    assert check_arguments(part, {"share": 0, "sizes": [2, 1]}) == {"share": 0, "sizes": (2, 1)}
    for arguments, message in (
        ({"share": 1.0}, "part: argument 'share' must be < 1.0, got 1.0 (float)"),
        ({"share": float("nan")}, "part: argument 'share' must be >= 0.0, got nan (float)"),
        ({"rate": float("-inf")}, "part: argument 'rate' must be finite, got -inf (float)"),
        ({"rate": "x"}, "part: argument 'rate' must be float | None, got 'x' (str)"),
        ({"share": "x"}, "part: argument 'share' must be float, got 'x' (str)"),
        ({"share": "\udcff"}, "part: argument 'share' must be float, got '\\udcff' (str)"),
        ({"sizes": [2, 0]}, "part: argument 'sizes' must be >= 1, got [2, 0] (list)"),
        ({"sizes": 2}, "part: argument 'sizes' must be tuple[int, ...], got 2 (int)"),
    ):
        with pytest.raises(UserError) as caught:
            check_arguments(part, arguments)
        assert str(caught.value) == message


@pytest.mark.parametrize("config", ["lstm", {}, {"size": 3}, None])
def test_a_part_is_configured_with_its_type(toys: Registry, config: object) -> None:
    with pytest.raises(UserError, match=r"configured as dict\(type=NAME"):
        toys.build(config)  # type: ignore[arg-type]


def test_check_arguments_alone() -> None:
    assert check_arguments(Toy, {"depth": 2}) == {"depth": 2}  # missing arguments are not an error
    with pytest.raises(UserError, match="Toy has no argument 'dept'"):
        check_arguments(Toy, {"dept": 2})

    def anything(first: "Unknown", **more: int) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    assert check_arguments(anything, {"first": 1, "second": "x"}) == {"first": 1, "second": "x"}
    with pytest.raises(UserError, match="it takes none"):
        check_arguments(lambda: None, {"x": 1})


# -- plug-ins ---------------------------------------------------------------------------------------------------------

GOOD = (
    "from registry import HEADS\nfrom heads.base import Head\n\n"
    "@HEADS.register_module(name='{name}')\nclass H(Head):\n    pass\n"
)


@pytest.mark.usefixtures("clean")
def test_plugin_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(GOOD.format(name="mine"))
    load_plugin(file)
    load_plugin(str(file))  # once is enough
    assert HEADS.origin("mine") == f"{file}:4"
    other = tmp_path / "other" / "mine.py"  # the same file name in another folder
    other.parent.mkdir()
    other.write_text(GOOD.format(name="mine2"))
    load_plugin(other)
    assert {"mine", "mine2"} <= set(HEADS)
    assert HEADS.get("mine").__module__ != HEADS.get("mine2").__module__
    assert sys.modules[HEADS.get("mine").__module__].H is HEADS.get("mine")


@pytest.mark.usefixtures("clean")
def test_plugin_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_lam_parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "good.py").write_text(GOOD.format(name="dotted"))
    (package / "bad.py").write_text("import json\n\njson.loads('x')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugin("my_lam_parts.good")
    assert "dotted" in HEADS
    with pytest.raises(UserError, match=r"my_lam_parts.bad failed at .*bad.py:3: JSONDecodeError"):
        load_plugin("my_lam_parts.bad")
    with pytest.raises(UserError, match="no module 'my_lam_parts.nope'"):
        load_plugin("my_lam_parts.nope")
    with pytest.raises(UserError, match="no module 'no_such_module'"):
        load_plugin("no_such_module")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = x.nothing\n", "broken.py:2: AttributeError: 'int' object has no attribute 'nothing'"),
        ("def f():\n    return 1 / 0\n\nf()\n", "broken.py:2: ZeroDivisionError: division by zero"),
        (
            "import json\nimport no_such_library\n",
            "broken.py:2: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("import json\njson.loads('{')\n", "broken.py:2: JSONDecodeError"),
        ("x = (\n", "broken.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "broken.py:2: SystemExit: 3"),
        ("raise ValueError('two\\nlines')\n", "broken.py:1: ValueError: two lines"),
    ],
)
def test_a_plugin_that_fails_says_where(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_plugin(file)
    assert f"plug-in {file} failed at {tmp_path}/{words}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_plugin(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plug-in .*nope.py does not exist"):
        load_plugin(tmp_path / "nope.py")
    with pytest.raises(UserError, match="nope.py does not exist"):
        load_plugin("nope.py")
    with pytest.raises(UserError, match="is a folder"):
        load_plugin(tmp_path)
    (tmp_path / "plugin.txt").write_text("")
    with pytest.raises(UserError, match="must end in .py"):
        load_plugin(tmp_path / "plugin.txt")


@pytest.mark.usefixtures("clean")
def test_a_plugin_that_takes_a_taken_name(tmp_path: Path) -> None:
    before = HEADS.get("gru")
    file = tmp_path / "clash.py"
    file.write_text(GOOD.format(name="gru"))
    with pytest.raises(UserError) as caught:
        load_plugin(file)
    assert f"{file}:4" in str(caught.value)
    assert HEADS.origin("gru") in str(caught.value)
    assert HEADS.get("gru") is before


def test_a_clash_blames_the_plugin_even_if_it_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "clash.py"
    file.write_text("from registry import BACKBONES\n@BACKBONES.register_module(name='timm')\nclass Mine:\n    pass\n")
    code = (
        f"from registry import BACKBONES, load_plugin, UserError\n"
        f"try: load_plugin({str(file)!r})\n"
        f"except UserError as error: assert '{file}:2' in str(error) and 'timm_models.py' in str(error), error\n"
        f"else: raise SystemExit('no error')\n"
        f"assert BACKBONES.get('timm').__module__ == 'backbones.timm_models'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=HOME, check=True)


@pytest.mark.usefixtures("clean")
def test_a_failed_plugin_leaves_nothing_and_can_be_loaded_once_fixed(tmp_path: Path) -> None:
    file = tmp_path / "halfway.py"
    file.write_text(GOOD.format(name="halfway") + "\n1 / 0\n")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load_plugin(file)
    assert "halfway" not in HEADS
    file.write_text("\n" + GOOD.format(name="halfway"))
    load_plugin(file)
    assert HEADS.origin("halfway") == f"{file}:5"


def test_a_built_in_package_that_failed_halfway_can_be_imported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "toy_parts"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"from {__name__} import HALF as TOYS\nimport os\n\n"
        "@TOYS.register_module()\nclass Early:\n    pass\n\n"
        "if 'TOY_PARTS' not in os.environ:\n    import no_such_library\n\n"
        "@TOYS.register_module()\nclass Late:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            HALF.names()
    monkeypatch.setenv("TOY_PARTS", "1")
    assert HALF.names() == ["Early", "Late"]


HALF = Registry("toy", locations=["toy_parts"])
FRESH = HALF


@pytest.mark.usefixtures("clean")
def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lam_extra.py").write_text(GOOD.format(name="extra"))
    (tmp_path / "lam_bad.py").write_text("1 / 0\n")
    info = tmp_path / "lam_extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lam-extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lamzoo.plugins]\nextra = lam_extra\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # The working directory contains a folder with the module's name: the checkout of the package.
    (tmp_path / "here" / "lam_extra").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    registry.load_entry_points()
    assert "extra" in HEADS
    (info / "entry_points.txt").write_text("[lamzoo.plugins]\nbad = lam_bad\n")
    with pytest.raises(UserError, match=r"installed plug-in 'bad': .*lam_bad.py:1: ZeroDivisionError"):
        registry.load_entry_points()
