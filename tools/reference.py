"""Write docs/commands.md, the reference of all commands, from their `--help`.

`python -m tools.reference` writes the page. A test compares it with the commands.
"""

from __future__ import annotations

import argparse
import re

from bench import COMMANDS, parser_of
from benchmarks.rows.provenance import HOME
from zoo.cards import in_markdown
from zoo.files.atomic import write_text

PAGE = HOME / "docs" / "commands.md"
INTRODUCTION = """\
# Commands

Every command is `python bench.py COMMAND [options]`. Options without a command belong to `run`:
`python bench.py --recipe probe`. `--list`, `--show` and `--table` also work for `list`, `show` and `table`.

The exit status is 0 if all is done, 1 if a part failed, 2 if an input is wrong, and 130 or 143 after Ctrl-C or SIGTERM.
An error is one line. The same command resumes an interrupted run.

This page is made from `--help` by `python -m tools.reference`.
"""


def render() -> str:
    """The page."""
    index = "\n".join(f"- [{name}](#{name}): {what}" for name, what in COMMANDS.items())
    return "\n\n".join([INTRODUCTION.strip(), index, *map(section, COMMANDS)]) + "\n"


def section(name: str) -> str:
    """A command: what it does, examples, options."""
    command, parser = parser_of(name)
    prose, _, examples = str(command.__doc__).strip().partition("\nexample:\n")
    parts = [f"## {name}", paragraphs(prose)]
    if examples:
        lines = re.sub(r"\\\n\s*", "", examples).strip().splitlines()
        parts.append("\n".join(["```console", *(f"$ {line.strip()}" for line in lines), "```"]))
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    if actions:
        rows = [f"| {option_of(action)} | {meaning_of(action, parser)} |" for action in actions]
        parts.append("\n".join(["| option | meaning |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


def paragraphs(prose: str) -> str:
    """The docstring in Markdown: lines joined to paragraphs, lists kept."""
    blocks = re.split(r"\n\s*\n", prose.strip())
    return "\n\n".join(
        block if re.match(r"\s*[-*|] ", block) else in_markdown(" ".join(block.split())) for block in blocks
    )


def option_of(action: argparse.Action) -> str:
    """Names of an option, and its value."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if isinstance(value, tuple):
        value = " ".join(value)
    if action.choices is not None and action.metavar is None:
        value = ", ".join(map(str, action.choices))
    cell = f"`{', '.join(action.option_strings)} {value}`".replace("` ", "`").replace(" `", "`").replace("|", "\\|")
    return cell + (", required" if action.required and action.option_strings else "")


def meaning_of(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Its help, with the default filled in."""
    return in_markdown(parser._get_formatter()._expand_help(action)) if action.help else ""


def main() -> None:
    """Run the command line."""
    argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__).parse_args()
    write_text(PAGE, render())
    print(PAGE.relative_to(HOME))


if __name__ == "__main__":
    main()
