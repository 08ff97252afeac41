# PYTHON_ARGCOMPLETE_OK
"""lamzoo's command line: `python bench.py --recipe internlstm_flip_tta`. Each command lives in benchmarks/commands/.

Nothing heavy is imported before it is known which command it is, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from benchmarks.system import interrupts

COMMANDS = {
    "run": "train and score recipes, and print the table",
    "list": "backbones, heads, datasets, recipes, models",
    "show": "one of them in full",
    "table": "published figures beside measured ones",
    "compare": "whether two rows differ: paired difference, interval, p",
    "report": "one HTML file: table, curves, timelines with crops, mistakes, provenance",
    "prepare": "Ego4D downloads -> json_original, result_LAM, face_imgs",
    "index": "the frame table of a split, with its key frames",
    "extract": "features of any tree of images",
    "score": "mAP, AP of both classes and accuracy of a prediction file",
    "fuse": "average prediction files, joined by key",
    "smooth": "smooth the scores of a prediction file along each track",
    "submit": "the challenge's submission file, checked",
    "predict": "a video of your own -> who looked, when, for how long",
    "import": "a published checkpoint -> the zoo's format, with a card",
    "export": "a trained row, or a model of the zoo -> a folder that travels; to the hub if asked",
    "new-plugin": "a small package for a part of your own, with the project's checks as its test",
    "doctor": "versions, devices, caches, weights and data: found or missing, and the command for each gap",
}

HELP = """\
usage: python bench.py [COMMAND] [options]

lamzoo runs Looking-At-Me models and compares them: who looks at the wearer of a head-worn camera, frame by frame.

  python bench.py --recipe internlstm_flip_tta       run a recipe, from images to a row of the table
  python bench.py --recipe all --seeds 3             run them all, three seeds each
  python bench.py --list                             what there is
  python bench.py --show internlstm_flip_tta         one of it in full
  python bench.py --table                            the comparison table

commands (options without a command belong to `run`):
{commands}

python bench.py COMMAND --help tells more, with an example.
"""


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, and with the nearest option where one is misspelt."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit 2."""
        unknown = message.rpartition("unrecognized arguments: ")[2].split() if "unrecognized" in message else []
        options = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"{self.prog}: {message}{hint} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def command_of(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command's name and its own arguments: shorthands spelt out, and `run` where none is named."""
    first = arguments[0]
    if first in ("--list", "--show", "--table"):
        return first.removeprefix("--"), arguments[1:]
    return ("run", arguments) if first.startswith("-") else (first, arguments[1:])


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 not all of it done, 2 bad input, 130 interrupted, 143 told to end (SIGTERM).
    """
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())), end="")
        return 0
    name, rest = command_of(arguments)
    if name not in COMMANDS:
        near = difflib.get_close_matches(first, COMMANDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        print(f"bench.py: unknown command '{first}'{hint} (there are: {', '.join(COMMANDS)})", file=sys.stderr)
        return 2

    interrupts.command = f"bench.py {name}"
    command = importlib.import_module(f"benchmarks.commands.{name}")
    parser = Parser(
        prog=f"bench.py {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    if "" in rest:  # a variable of the shell without a value, most likely; as a path it would be this folder
        before = rest[rest.index("") - 1] if rest.index("") else name
        parser.error(f"what follows {before} is empty; give it a value, or leave it out")
    options = parser.parse_args(rest)
    if name == "doctor":  # it runs where nothing is installed
        return command.run(options)
    from registry import UserError

    try:
        return command.run(options)
    except UserError as error:
        print(f"bench.py {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        return interrupts.exit_interrupted(stopped)
    except BrokenPipeError:  # `bench.py list | head`
        sys.stderr.close()
        return 141
    except PermissionError as error:  # of a folder that is looked into; of files their readers tell
        print(f"bench.py {name}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except (MemoryError, OSError, RuntimeError) as error:
        from benchmarks.system.shortage import shortage_message

        line = shortage_message(error)
        if line is None:
            raise
        print(f"bench.py {name}: {line}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # a name from a file that the terminal's encoding lacks is no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what can stand at the cursor
        from benchmarks.commands.completion import complete

        complete(COMMANDS, os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    interrupts.install_handlers()
    sys.exit(main(sys.argv[1:]))
