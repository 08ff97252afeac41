"""The registries of backbones, heads, datasets, priors and detectors; plug-in loading; `UserError`.

mmengine's ``Registry`` resolves an unknown name to any importable module of that name, is empty before the first
look-up, and imports torch through its log function. The subclass here does none of that.
"""

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, Any, Literal

import msgspec
from mmengine.registry import Registry as _MMEngineRegistry

ENTRY_POINT_GROUP = "lamzoo.plugins"
LONGEST_REASON = 400  # characters of a library's error message
_ANSI = re.compile(r"(\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)?|\x1b[ -/]*[0-~]")


class UserError(Exception):
    """Bad input, in one line: what is wrong, where, and what to do. The command line prints it and exits with 2."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """Return text as one line, for any terminal: without ANSI sequences, other unprintable characters escaped."""
    line = " ".join(_ANSI.sub("", text).split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def first_sentences(error: object) -> str:
    """Return a library's message as one line, cut after a sentence: torch's may fill pages."""
    text = printable(str(error))
    ends = [found.end() for found in re.finditer(r"[.;](?= )|$", text) if found.end() <= LONGEST_REASON]
    return text[: ends[-1]].rstrip(":;") if ends else f"{text[:LONGEST_REASON].rpartition(' ')[0]} …"


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the nearest of ``known``, or ``""`` if none is close."""
    by_lower = {entry.lower(): entry for entry in known if entry != name}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


class Registry(_MMEngineRegistry):
    """The parts of one kind, by name.

    The first look-up imports the built-in parts. A name may include a model after a colon: ``timm:resnet18`` is the
    part ``timm`` with the argument ``model="resnet18"``.

    Args:
        name: the kind of part, in the singular, for error messages.
        locations: modules that register the built-in parts; of a package, all its modules.
        base: ``"module:class"`` that every part must be an instance of.
    """

    def __init__(self, name: str, locations: list[str], base: str | None = None) -> None:
        super().__init__(name, scope="lamzoo", locations=locations)
        self.places: dict[str, tuple[str, dict]] = {}  # name -> ("file:line" of its registration, module namespace)
        self._imported = False
        self._importing = False
        self._base = base

    # -- names --------------------------------------------------------------------------------------------------

    def import_from_location(self) -> None:
        """Import the built-in parts, once. Errors are not caught: a missing built-in part is a broken installation."""
        if self._imported or self._importing:
            return
        self._importing = True
        try:
            for location in self._locations:
                package = importlib.import_module(location)
                for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                    importlib.import_module(f"{location}.{module.name}")
        finally:
            self._importing = False
        self._imported = True

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        self.import_from_location()
        return sorted(self._module_dict)

    @property
    def module_dict(self) -> dict[str, Callable]:
        """Name -> class, built-in parts included."""
        self.import_from_location()
        return self._module_dict

    def __len__(self) -> int:
        return len(self.names())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, key: object) -> bool:
        try:
            return isinstance(key, str) and key.partition(":")[0] in self.names() and bool(self._resolve(key))
        except UserError:
            return False

    def __repr__(self) -> str:
        return f"Registry({self.name}: {', '.join(self.names())})"

    def origin(self, key: str) -> str:
        """Return ``"file:line"`` where ``key`` was registered."""
        return self.places[self._resolve(key)[0]][0]

    # -- looking up and building ----------------------------------------------------------------------------------

    def _resolve(self, key: object) -> tuple[str, dict[str, str]]:
        """Split ``key`` into a registered name and the arguments it implies."""
        if not isinstance(key, str) or not key:
            raise UserError(f"the type of a {self.name} must be its name, got {key!r}")
        name, colon, model = key.partition(":")
        known = self.names()
        if name not in known:
            takers = [n for n in known if getattr(self._module_dict[n], "has_model", lambda _: False)(key)]
            hint = f"; did you mean '{takers[0]}:{key}'?" if takers else did_you_mean(name, known)
            raise UserError(f"unknown {self.name} '{key}'{hint} (known: {', '.join(known)})")
        if not colon:
            return name, {}
        if "model" not in inspect.signature(self._module_dict[name]).parameters:
            raise UserError(f"{self.name} '{name}' takes no model after a colon, got '{key}'")
        if not model:
            raise UserError(f"{self.name} '{key}' has no model after the colon")
        return name, {"model": model}

    def get(self, key: str) -> Callable:
        """Return the class registered as ``key``.

        Raises:
            UserError: the name is unknown; suggests the nearest and lists all.
        """
        return self._module_dict[self._resolve(key)[0]]

    def check(self, cfg: Mapping[str, Any]) -> tuple[Callable, dict[str, Any]]:
        """Check ``dict(type=name, **arguments)`` without building it; see `check_arguments`.

        Returns:
            The class and its keyword arguments, including a model after a colon.

        Raises:
            UserError: the name or an argument is unknown, or a value has the wrong type.
        """
        if not isinstance(cfg, Mapping) or "type" not in cfg:
            raise UserError(f"a {self.name} is configured as dict(type=NAME, ...), got {cfg!r}")
        name, implied = self._resolve(cfg["type"])
        kwargs = {key: value for key, value in cfg.items() if key != "type"}
        for key in implied.keys() & kwargs.keys():
            raise UserError(f"{self.name} '{cfg['type']}' already names its {key}; remove {key}={kwargs[key]!r}")
        cls = self._module_dict[name]
        return cls, check_arguments(cls, {**implied, **kwargs}, f"{self.name} {name}")

    def build(self, cfg: Mapping[str, Any]) -> Any:  # type: ignore[override]
        """Build ``dict(type=name, **arguments)``.

        Raises:
            UserError: as `check`; or a required argument is missing, or the constructor fails (gives the line).

        Example:
            >>> head = HEADS.build(dict(type="probe", feature_dim=192))
            >>> head.linear, head.window
            (Linear(in_features=192, out_features=2, bias=True), 7)
            >>> HEADS.build(dict(type="probe", feature_dim="192"))
            Traceback (most recent call last):
            registry.UserError: head probe: argument 'feature_dim' must be int, got '192' (str)
        """
        cls, kwargs = self.check(cfg)
        for key, parameter in _parameters(cls).items():
            if parameter.default is parameter.empty and key not in kwargs:
                raise UserError(f"{self.name} {cfg['type']} needs the argument '{key}'")
        try:
            part = cls(**kwargs)
        except UserError:
            raise
        except Exception as error:  # constructors of plug-ins and of torch raise anything
            place = _failing_line(error, str(getattr(cls, "__module__", "")), None)
            raise UserError(
                f"{self.name} {cfg['type']} cannot be built{' at ' + place if place else ''}: "
                f"{type(error).__name__}: {first_sentences(error)}"
            ) from error
        if self._base is not None:
            module, _, base = self._base.partition(":")
            if not isinstance(part, getattr(importlib.import_module(module), base)):
                raise UserError(
                    f"{self.name} {cfg['type']} at {self.origin(cfg['type'])} makes a {type(part).__name__}; it must "
                    f"be a subclass of {module}.{base}"
                )
        return part

    # -- registering ----------------------------------------------------------------------------------------------

    def register_module(self, name: str | None = None, *, module: Callable | None = None) -> Any:
        """Register a class under ``name`` (default: the name of the class), as a decorator or with ``module=``.

        Raises:
            UserError: the name is taken, ignoring case; shows both locations.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError(f"use the decorator with brackets: @{self.name.upper()}S.register_module(), got {name!r}")
        frame = sys._getframe(1)
        place = f"{frame.f_code.co_filename}:{frame.f_lineno}"

        def register(part: Callable) -> Callable:
            self._register(part, name or part.__name__, place, frame.f_globals)
            return part

        return register if module is None else register(module)

    def _register(self, part: Callable, name: str, place: str, namespace: dict) -> None:
        if not callable(part):
            raise TypeError(f"{self.name} '{name}' must be callable, got {part!r}")
        try:
            inspect.signature(part)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.name} '{name}' at {place} has no readable signature: {error}") from error
        if ":" in name or name.strip() != name:
            raise UserError(f"{self.name} name '{name}' at {place} has a colon, or a blank at one end; choose another")
        module_name = str(namespace.get("__name__"))
        if not any(module_name == location or module_name.startswith(f"{location}.") for location in self._locations):
            self.import_from_location()  # first, so that a clash is the plug-in's error
        for taken, (taken_place, taken_namespace) in self.places.items():
            if taken.lower() != name.lower():
                continue
            # A module whose import failed runs again in a new namespace; there the same line may register again.
            again = place == taken_place and namespace is not taken_namespace
            if again and getattr(sys.modules.get(module_name), "__dict__", None) is namespace:
                break
            raise UserError(
                f"{self.name} '{name}' at {place} is taken: '{taken}' is registered at {taken_place}; rename one"
            )
        self._module_dict[name] = part
        self.places[name] = (place, namespace)

    def _forget_failed(self, before: set[str]) -> None:
        """Remove names that are not in ``before`` and belong to modules whose import failed."""
        for name in set(self.places) - before:
            if self.places[name][1].get("__name__") not in sys.modules:
                del self.places[name], self._module_dict[name]


# -- arguments ----------------------------------------------------------------------------------------------------


def _parameters(cls: Callable) -> dict[str, inspect.Parameter]:
    """Return the named parameters of ``cls``, without ``*args`` and ``**kwargs``."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {key: value for key, value in inspect.signature(cls).parameters.items() if value.kind in kinds}


def check_arguments(cls: Callable, kwargs: Mapping[str, Any], what: str | None = None) -> dict[str, Any]:
    """Check names and types of keyword arguments against a signature. Missing arguments are not an error.

    Checked annotations: int, float (finite; accepts int), bool, str, tuple, list, dict, Literal, and unions of these.
    A bool is not a number. ``Annotated[int, msgspec.Meta(ge=1)]`` bounds a value. Other annotations accept any value.

    Args:
        cls: class or function.
        kwargs: arguments by name.
        what: name of ``cls`` in messages, such as ``"head lstm"``; default ``cls.__name__``.

    Returns:
        The arguments, with lists converted to tuples where the annotation is a tuple.

    Raises:
        UserError: an argument is unknown (suggests the nearest and lists all), or a value has the wrong type.
    """
    what = what or getattr(cls, "__name__", str(cls))
    parameters = _parameters(cls)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    try:
        hints = typing.get_type_hints(cls.__init__ if inspect.isclass(cls) else cls, include_extras=True)  # type: ignore[misc]
    except (NameError, TypeError):  # annotations for type checkers only
        hints = {}
    checked = {}
    for key, value in kwargs.items():
        if key not in parameters and not takes_any:
            known = list(parameters)
            accepted = f"it takes: {', '.join(known)}" if known else "it takes none"
            raise UserError(f"{what} has no argument '{key}'{did_you_mean(key, known)} ({accepted})")
        hint = hints.get(key, Any)
        if required := _requirement(value, hint):
            raise UserError(f"{what}: argument '{key}' must be {required}, got {value!r} ({type(value).__name__})")
        kinds = {typing.get_origin(alternative) or alternative for alternative in _alternatives(hint)}
        checked[key] = tuple(value) if isinstance(value, list) and tuple in kinds and list not in kinds else value
    return checked


def _requirement(value: Any, hint: Any) -> str:
    """What an annotation requires of a value that does not fit, such as ``int`` or ``>= 1``; "" if the value fits."""
    if not _is_checked(hint):
        return ""
    try:
        msgspec.convert(value, hint)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half a surrogate pair
        bound = re.search("` ([<>]=? [^ ]+)", str(error))
        return bound[1] if bound else " | ".join(map(_spelled, _alternatives(hint)))
    except TypeError:  # a union that msgspec does not support, such as `list | tuple`
        return ""
    values = value if isinstance(value, (list, tuple)) else [value]
    return "" if all(math.isfinite(each) for each in values if isinstance(each, float)) else "finite"


def _is_checked(hint: Any) -> bool:
    """Whether an annotation consists of plain types only."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (Annotated, typing.Union, types.UnionType, tuple, list, dict):
        inner = arguments[:1] if origin is Annotated else arguments
        return all(_is_checked(each) for each in inner if each is not Ellipsis)
    return origin in (int, float, bool, str, type(None), None, Literal)


def _alternatives(hint: Any) -> tuple:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _spelled(hint: Any) -> str:
    """Spell a type as in source code, without bounds."""
    if typing.get_origin(hint) is Annotated:
        return _spelled(typing.get_args(hint)[0])
    if typing.get_origin(hint) is tuple:
        return f"tuple[{', '.join('...' if a is Ellipsis else _spelled(a) for a in typing.get_args(hint))}]"
    spelled = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return spelled.replace("typing.", "").replace("NoneType", "None")


# -- the five registries ------------------------------------------------------------------------------------------

BACKBONES = Registry("backbone", locations=["backbones"], base="backbones.base:Backbone")
HEADS = Registry("head", locations=["heads"], base="heads.base:Head")
DATASETS = Registry("dataset", locations=["benchmarks.data.dataset"])
PRIORS = Registry("prior", locations=["benchmarks.priors"])
DETECTORS = Registry("detector", locations=["benchmarks.video.detectors"])
_REGISTRIES = (BACKBONES, HEADS, DATASETS, PRIORS, DETECTORS)


# -- plug-ins -----------------------------------------------------------------------------------------------------


def load_plugin(plugin: str | Path) -> None:
    """Import a plug-in, which registers its parts. Loading it again does nothing.

    Args:
        plugin: path of a Python file, or dotted name of an importable module.

    Raises:
        UserError: the file or module does not exist, importing it failed (gives the line), or a name is taken.
    """
    path = Path(plugin)
    named = path.exists() and not (path.is_dir() and _is_module(str(plugin)))
    is_file = path.suffix == ".py" or named or len(path.parts) > 1
    if is_file:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "does not exist"
            raise UserError(f"plug-in {plugin} {problem}; give a Python file or the dotted name of a module")
        path = path.resolve()
        # Unique per path, because files in different folders may share a name; equal in all processes.
        module_name = f"lamzoo_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    else:
        module_name = str(plugin)
    if module_name in sys.modules:
        return

    before = [set(registry.places) for registry in _REGISTRIES]
    try:
        _import_file(path, module_name) if is_file else importlib.import_module(module_name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and not is_file:
            missing = error.name or ""
            if module_name == missing or module_name.startswith(f"{missing}."):
                raise UserError(
                    f"plug-in {plugin}: no module '{missing}'; give a Python file, or a module on PYTHONPATH"
                ) from error
        place = _failing_line(error, module_name, path if is_file else None)
        raise UserError(
            f"plug-in {plugin} failed{' at ' + place if place else ''}: {type(error).__name__}: "
            f"{first_sentences(error)}"
        ) from error
    finally:
        if module_name not in sys.modules:
            for registry, names in zip(_REGISTRIES, before, strict=True):
                registry._forget_failed(names)


def _is_module(name: str) -> bool:
    """Whether a module of that name exists. A folder without ``__init__.py`` does not count."""
    try:
        return getattr(importlib.util.find_spec(name), "origin", None) is not None
    except (ImportError, ValueError):
        return False


def _import_file(path: Path, module_name: str) -> None:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it runs, as import does, because dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise


def _failing_line(error: BaseException, module_name: str, path: Path | None) -> str:
    """Return ``"file:line"`` of the deepest traceback entry inside the plug-in, or ``""`` if there is none."""
    package = module_name.split(".")[0]
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).split(".")[0] == package:
            place = f"{frame.f_code.co_filename}:{line}"
    if isinstance(error, SyntaxError) and error.filename and (path is None or Path(error.filename) == path):
        place = f"{error.filename}:{error.lineno}"
    return place


def load_entry_points() -> None:
    """Load the plug-ins of installed packages, in the entry-point group ``lamzoo.plugins``; errors name theirs."""
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            load_plugin(entry_point.module)
        except UserError as error:
            raise UserError(f"installed plug-in '{entry_point.name}': {error}") from error


def load_plugins(plugins: Iterable[str | Path]) -> None:
    """Load the plug-ins of installed packages, then ``plugins``; errors as in `load_plugin`."""
    load_entry_points()
    for plugin in plugins:
        load_plugin(plugin)
