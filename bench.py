# PYTHON_ARGCOMPLETE_OK
"""lamzoo's command line: `python bench.py --recipe internlstm_flip_tta`. The commands are in benchmarks/commands/.

A command imports numpy, torch and the like only when it runs, so `--help` is instant.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import NoReturn

from benchmarks.system import interrupts

COMMANDS = {
    "run": "train and score recipes, and print the table",
    "list": "list recipes, backbones, heads, datasets, models",
    "show": "show one of these in full, or the diagnosis of a row",
    "table": "print the table: cited figures beside measured ones",
    "compare": "compare two rows: paired difference, interval, p",
    "report": "write an HTML report: table, curves, timelines, mistakes",
    "prepare": "turn Ego4D downloads into annotations and face crops",
    "index": "write the frame table of a split, key frames marked",
    "extract": "extract features of an image folder or of recipes",
    "score": "score a prediction file: mAP, AP per class, accuracy",
    "fuse": "average prediction files, joined by key",
    "smooth": "smooth the scores of a prediction file along each track",
    "submit": "check predictions and write the challenge's submission",
    "predict": "score your own video: who looked, when, for how long",
    "label": "write a page to mark faces of a finished predict",
    "calibrate": "fit a model to your marks, and say what it gains",
    "app": "open a page for videos, marks and the table",
    "import": "convert a published checkpoint to safetensors and a card",
    "export": "write a row or model as a folder to share or upload",
    "new-plugin": "write a small plug-in package with a test",
    "doctor": "check the installation and say how to fix each gap",
}

# Options of `run` and commands that other programs have, and what serves here.
OPTIONS_ELSEWHERE = {
    "--seed": "use --set training.seed={value}; --seeds N trains N of them",
    "--epochs": "use --set training.epochs={value}",
    "--lr": "use --set training.lr={value}",
    "--batch-size": "use --set training.batch_size={value}",
    "--resume": "run the same command again: it resumes",
    "--num-workers": "the cores that this process may use decide; taskset limits them",
}
COMMANDS_ELSEWHERE = {
    "train": "use run: python bench.py --recipe NAME trains and scores",
    **dict.fromkeys(
        ("evaluate", "eval", "test"),
        "use run: python bench.py --recipe NAME trains and scores; score is for prediction files",
    ),
}

HELP = """\
usage: python bench.py [COMMAND] [options]

lamzoo runs and compares Looking-At-Me models: who looks at the wearer of a
head-worn camera, frame by frame.

  python bench.py --recipe internlstm_flip_tta  run a recipe
  python bench.py --recipe all --seeds table    make the comparison table
  python bench.py --list                        list recipes, parts and models
  python bench.py --show internlstm_flip_tta    show one of them in full
  python bench.py --table                       print the comparison table

commands (options without a command belong to `run`):
{commands}

python bench.py COMMAND --help shows its options, with examples; --version the
versions of lamzoo, Python and torch.
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with one-line errors that suggest the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit 2."""
        unknown = message.rpartition("unrecognized arguments: ")[2].split() if "unrecognized" in message else []
        options = [option for action in self._actions for option in action.option_strings]
        option, _, value = unknown[0].partition("=") if unknown else ("", "", "")
        near = difflib.get_close_matches(option, options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if self.prog == "bench.py run" and option in OPTIONS_ELSEWHERE:
            value = value or next((word for word in unknown[1:2] if not word.startswith("-")), "N")
            message, hint = f"there is no {option}", f"; {OPTIONS_ELSEWHERE[option].format(value=value)}"
        refuse(f"{self.prog}: {message}{hint} (see {self.prog} --help)")
        raise SystemExit(2)


def command_of(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Split a command line into command and arguments. `--list`, `--show`, `--table` are commands; `run` is implied."""
    first = arguments[0]
    if first in ("--list", "--show", "--table"):
        return first.removeprefix("--"), arguments[1:]
    return ("run", arguments) if first.startswith("-") else (first, arguments[1:])


def refuse(line: str) -> None:
    """Print a line on stderr, if that can be written."""
    with suppress(OSError):
        print(line, file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Run one command, and report errors of the machine in one line.

    Returns:
        The exit status: 0 done, 1 partly done, 2 bad input, 130 interrupted, 141 output closed, 143 terminated.
    """
    try:
        try:
            return run_command(arguments)
        finally:
            sys.stdout.flush()  # here, because Python itself reports a failure in three lines
    except KeyboardInterrupt as stopped:
        return interrupts.exit_interrupted(stopped)
    except BrokenPipeError:  # `bench.py list | head`
        return 141
    except PermissionError as error:  # a folder's; readers report those of files
        refuse(f"{interrupts.command}: {error.filename}: {error.strerror}")
        return 2
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        from benchmarks.system.shortage import shortage_message

        line = shortage_message(error)
        if line is None:
            raise
        refuse(f"{interrupts.command}: {line}")
        return 1


def parser_of(name: str) -> tuple[ModuleType, Parser]:
    """Import a command; return its module and its parser."""
    command = importlib.import_module(f"benchmarks.commands.{name}")
    parser = Parser(
        prog=f"bench.py {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return command, parser


def run_command(arguments: Sequence[str]) -> int:
    """Find the command of a command line and run it; returns the exit status."""
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())), end="")
        return 0
    if first == "--version":
        from benchmarks.rows.provenance import version_line

        print(version_line())
        return 0
    name, rest = command_of(arguments)
    if name in COMMANDS_ELSEWHERE:
        refuse(f"bench.py: there is no command {name}; {COMMANDS_ELSEWHERE[name]}")
        return 2
    if name not in COMMANDS:
        near = difflib.get_close_matches(first, COMMANDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        refuse(f"bench.py: unknown command '{first}'{hint} (there are: {', '.join(COMMANDS)})")
        return 2

    interrupts.command = f"bench.py {name}"
    command, parser = parser_of(name)
    if "" in rest:  # most likely an unset shell variable; as a path it would mean this folder
        before = rest[rest.index("") - 1] if rest.index("") else name
        parser.error(f"the value after {before} is empty; give one, or leave it out")
    options = parser.parse_args(rest)
    if name == "doctor":  # must run without any package installed
        return command.run(options)
    from registry import UserError

    try:
        return command.run(options)
    except UserError as error:
        refuse(f"bench.py {name}: {error}")
        return 2


def open_closed_streams() -> None:
    """Connect closed standard streams to the null device; other files would take their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest free number, so in this order the right one
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def drop_unwritten() -> None:
    """Discard output that could not be written, so that Python does not fail with it once more when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # names from files may have letters that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
        from benchmarks.commands.completion import complete

        complete(COMMANDS, os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    interrupts.install_handlers()
    try:
        status = main(sys.argv[1:])
    finally:
        drop_unwritten()
    sys.exit(status)
