"""The commands, one a module: `add_arguments(parser)` and `run(args)`, quick to import; and what they share."""

import argparse


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--plugin`, as every command that names parts has it."""
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE|MODULE", help="Python that registers parts of your own"
    )
