r"""Features of every image below a folder, for each view, into a feature store; what it has is not computed again.

example:
  python bench.py extract --images crops/ --backbone internvit_nano -o store/
  python bench.py extract --images crops/ --backbone internvit_6b --weights /data/InternViT-6B \\
    --views original,flipped -o store/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import add_plugin_option, load_plugins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="searched for .jpg, .jpeg and .png, all depths"
    )
    parser.add_argument("--backbone", required=True, metavar="NAME", help="such as internvit_nano or timm:resnet18")
    parser.add_argument("--weights", metavar="PATH", help="the backbone's weights")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="arguments of the backbone: pretrained=false"
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="STORE", help="folder of the feature store")
    parser.add_argument("--views", default="original", metavar="V[,V]", help="original (default), flipped, or both")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images a forward pass (default 16 on a CPU, else 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: cuda where there is one, else cpu)")
    parser.add_argument(
        "--skip-damaged", action="store_true", help="count images that cannot be decoded and leave them out"
    )
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Extract, and print what was done."""
    from benchmarks.config import VIEWS, parse_setting
    from registry import BACKBONES, UserError
    from zoo.files import check_writable

    views = args.views.split(",")
    if not set(views) <= set(VIEWS):
        raise UserError(f"--views is {args.views}; it has to be one or both of {', '.join(VIEWS)}")
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size is {args.batch_size}; it has to be at least 1")
    if not args.images.is_dir():
        raise UserError(f"--images {args.images} is no folder")
    found = (path for path in args.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = sorted(path.relative_to(args.images).as_posix() for path in found)
    if not images:
        raise UserError(f"--images {args.images} has no .jpg, .jpeg or .png below it")
    check_writable(args.out)
    load_plugins(args.plugin)
    part = {"type": args.backbone, **dict(parse_setting(setting) for setting in args.set)}
    if args.weights is not None:
        part["weights"] = args.weights
    BACKBONES.check(part)

    from benchmarks.commands.run import default_device
    from benchmarks.features import FeatureStore, extract, fingerprint_of

    device = default_device(args.device)
    backbone = BACKBONES.build(part).to(device)
    store = FeatureStore(args.out, fingerprint_of(backbone))
    done = extract(
        backbone,
        args.images,
        dict.fromkeys(views, images),
        store,
        batch_size=args.batch_size,
        device=device,
        skip_damaged=args.skip_damaged,
    )
    print(f"{done.encoded} computed, {done.reused} reused, {len(done.damaged)} damaged, in {args.out}")
    return 0
