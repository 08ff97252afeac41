"""One module per command, with `add_arguments(parser)` and `run(args)`. Heavy imports belong inside `run`."""

import argparse


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--plugin`, for the commands that build parts."""
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE|MODULE", help="Python file or module with your own parts"
    )
