r"""Extract the features of all images in a folder, or of the images that recipes need, into a feature store.

example:
  python bench.py extract --images crops/ --backbone internvit_nano -o store/
  python bench.py extract --images crops/ --backbone internvit_6b --weights /data/InternViT-6B \
    --views original,flipped -o store/
  torchrun --nproc-per-node=8 bench.py extract --recipe internlstm,interngru_flip_tta --dataset ego4d \
    --root /data/ego4d --weights /data/InternViT-6B
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.commands import add_plugin_option

if TYPE_CHECKING:
    from benchmarks.features.extract import Extraction

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of .jpg, .jpeg and .png files, with all its subfolders"
    )
    what.add_argument(
        "--recipe", metavar="A[,B...]|all", help="extract the features that `run` needs for these recipes"
    )
    parser.add_argument(
        "--backbone", metavar="NAME", help="backbone, such as internvit_nano or timm:resnet18 (default: the recipe's)"
    )
    parser.add_argument("--weights", metavar="PATH", help="weights of the backbone")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of the backbone, such as pretrained=false; with --recipe any value of the recipe",
    )
    parser.add_argument(
        "--dataset", default="synthlam", metavar="NAME", help="dataset of the recipes (default: synthlam)"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the dataset; not needed for synthlam")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="STORE",
        help="folder of the feature store; with --recipe the folder of all runs (default: runs)",
    )
    parser.add_argument(
        "--views", metavar="V[,V]", help="original (default), flipped, or both; with --recipe the recipe decides"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images per forward pass (default: 16 on a CPU, the fastest size on a GPU)",
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: cuda if there is a GPU, else cpu)")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the computation (default: dtype of the weights)")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local (default): this process, or torchrun's processes; ray: the machines of a cluster",
    )
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave out images that cannot be decoded, and list them"
    )
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Extract the features, and print how many were computed and reused."""
    from benchmarks.config.recipe import Count
    from benchmarks.config.values import typed

    typed(args.batch_size, Count | None, "--batch-size")
    return _of_recipes(args) if args.images is None else _of_images(args)


def images_below(root: Path) -> Iterator[str]:
    """List all .jpg, .jpeg and .png files below a folder, relative to it. Links to folders are followed.

    Prints how many pictures with other endings there are.

    Raises:
        UserError: a subfolder cannot be read.
    """
    from benchmarks.data.formats import ENDINGS, OTHER_ENDINGS
    from benchmarks.system.progress import plural, say
    from registry import UserError

    others: Counter[str] = Counter()

    def fail(error: OSError) -> None:
        raise UserError(f"cannot read folder {error.filename}: {error.strerror}") from error

    above: dict[str, tuple[str, ...]] = {str(root): (os.path.realpath(root),)}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        ancestors = above.pop(folder)
        for name in list(folders):
            path = os.path.join(folder, name)  # noqa: PTH118 - a million of them
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(ancestors[-1], name)  # noqa: PTH114, PTH118
            if real in ancestors:  # a link to a parent folder
                folders.remove(name)
            above[path] = (*ancestors, real)
        prefix = "" if folder == str(root) else os.path.relpath(folder, root).replace(os.sep, "/") + "/"
        for name in files:
            if name.lower().endswith(ENDINGS):
                yield prefix + name
            elif (ending := os.path.splitext(name)[1].lower()) in OTHER_ENDINGS:  # noqa: PTH122 - a million of them
                others[ending] += 1
    if others:
        counts = ", ".join(f"{ending} {count:,}" for ending, count in sorted(others.items()))
        say(f"{root}: {plural(others.total(), 'picture')} with other endings left out: {counts}")


def _of_images(args: argparse.Namespace) -> int:
    from registry import BACKBONES, load_plugins
    from zoo.files.atomic import check_writable

    requested = _requested_images(args)
    check_writable(args.out)
    load_plugins(args.plugin)
    config = _backbone_config(args)
    BACKBONES.check(config)

    from benchmarks.features.extract import ExtractOptions, extract, fingerprint_of
    from benchmarks.features.ray import extract_with_ray, torchrun_share
    from benchmarks.features.store import FeatureStore

    options = ExtractOptions(
        batch_size=args.batch_size,
        device=_device(args),
        dtype=args.dtype,
        skip_damaged=args.skip_damaged,
        share=torchrun_share(),
        plugins=args.plugin,
    )
    backbone = BACKBONES.build(config)
    store = FeatureStore(args.out, fingerprint_of(backbone, args.dtype))
    if args.engine == "ray":
        done = extract_with_ray(config, args.images, requested, store, options)
    else:
        done = extract(backbone.to(options.device), args.images, requested, store, options)
    return _print(done, args.out, options.share)


def _requested_images(args: argparse.Namespace) -> dict[str, list[str]]:
    """The images below `--images` by view.

    Raises:
        UserError: an option is wrong, missing or only for recipes, or there are no images.
    """
    from benchmarks.config.recipe import VIEWS
    from registry import UserError

    views = (args.views or "original").split(",")
    if not set(views) <= set(VIEWS):
        raise UserError(f"--views is {args.views}; it must be one or both of {', '.join(VIEWS)}")
    if args.root is not None:
        raise UserError("--root goes with --recipe; --images names the folder itself")
    if not args.images.is_dir():
        raise UserError(f"--images {args.images} is not a folder")
    if args.backbone is None or args.out is None:
        raise UserError("--images needs --backbone NAME and -o STORE")
    images = sorted(images_below(args.images))
    if not images:
        raise UserError(f"no .jpg, .jpeg or .png in --images {args.images}")
    return dict.fromkeys(views, images)


def _backbone_config(args: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.config.settings import parse_setting

    config = {"type": args.backbone, **dict(parse_setting(setting) for setting in args.set)}
    if args.weights is not None:
        config["weights"] = args.weights
    return config


def _of_recipes(args: argparse.Namespace) -> int:
    from benchmarks.commands.run import chosen
    from registry import UserError, load_plugins

    if args.views is not None or args.dtype is not None:
        option = "--views" if args.views is not None else "--dtype"
        raise UserError(f"{option} goes with --images; with --recipe the recipe decides")
    load_plugins(args.plugin)
    recipes, dataset = chosen(args)

    from benchmarks.features.extract import ExtractOptions
    from benchmarks.features.ray import torchrun_share
    from benchmarks.pipeline.extract import extract_features
    from benchmarks.pipeline.session import Session

    options = ExtractOptions(batch_size=args.batch_size, share=torchrun_share())
    out = args.out or Path("runs")
    session = Session(dataset, out=out, device=_device(args), skip_damaged=args.skip_damaged, plugins=args.plugin)
    done = extract_features(recipes, session, options, args.engine)
    return _print(done, out, options.share)


def _device(args: argparse.Namespace) -> str:
    """The device for `--device`: of this process, or with Ray of the cluster's machines."""
    if args.engine == "ray":
        from benchmarks.features.ray import cluster_device

        return cluster_device(args.device)
    from benchmarks.system.device import take_device
    from benchmarks.system.launch import launch

    return take_device(args.device, launch())


def _print(done: Extraction, out: Path, share: tuple[int, int]) -> int:
    """Print the counts of the first process. Under torchrun, features computed by others count as reused."""
    from registry import printable

    if share[0] == 0:
        here, elsewhere = (" by this process", " from others or earlier") if share[1] > 1 else ("", "")
        print(f"{done.encoded} computed{here}, {done.reused} reused{elsewhere}, {len(done.damaged)} damaged, in {out}")
        for image in done.damaged[:20]:
            print(f"damaged: {printable(image)}", file=sys.stderr)
        if len(done.damaged) > 20:
            print(f"and {len(done.damaged) - 20} more, listed in the store's manifest.json", file=sys.stderr)
    return 0
