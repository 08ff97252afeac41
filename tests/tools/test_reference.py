"""docs/commands.md is what `--help` says."""

import argparse

import bench
from tools import reference


def test_the_page_is_that_of_the_commands() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.render()


def test_every_option_of_every_command_is_there() -> None:
    for name in bench.COMMANDS:
        _, parser = bench.parser_of(name)
        text = reference.section(name)
        for action in parser._actions:
            for option in set(action.option_strings) - {"-h", "--help"}:
                assert option in text, (name, option)


def test_names_values_choices_and_defaults_are_shown() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=["a", "b"], required=True, help="one of two")
    parser.add_argument("-n", "--number", type=int, default=3, help="how many | often (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="each")
    parser.add_argument("file", nargs="+", metavar="FILE", help="to read")
    _, kind, number, everything, file = parser._actions
    shown = [reference.option_of(action) for action in (kind, number, everything, file)]
    assert shown == ["`--kind a, b`, required", "`-n, --number NUMBER`", "`--all`", "`FILE`"]
    assert reference.meaning_of(number, parser) == "how many \\| often (default: 3)"
