"""The command `converter`: arguments in, exit status out.

Each subcommand imports what it needs when it is called, so that `converter --help` does not wait for a web server.
Invariant: what is wrong with arguments or settings is said in one line each on standard error, with exit status 2.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from converter import __version__

_STATUSES = """\
exit status:
  0 done   2 wrong usage   3 the workflow or an input is at fault   4 refused: busy, not ready or not allowed
  5 a node or the engine failed, or the job was canceled   6 too late   7 no converter there, or connection lost
  1 the outputs could not be written   130 interrupted

Ctrl-C closes the connection, which cancels the job."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without a screen of usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand. `declare` adds its arguments; `run` gets them, and returns the exit status.

    `lenient`: arguments that were not declared are no end, `run` gets them as `unknown`.
    """

    name: str
    meaning: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    lenient: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Raises SystemExit for --help and wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(
        prog="converter",
        description="Synchronous, stateless HTTP in front of one asynchronous diffusion engine such as ComfyUI.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"converter {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    commands = {command.name: command for command in _COMMANDS}
    for command in _COMMANDS:
        sub = subparsers.add_parser(
            command.name,
            help=command.meaning,
            description=command.meaning + ".",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if words[:1] == [command.name]:  # the others' arguments would take long to declare
            command.declare(sub)
    known, unknown = parser.parse_known_args(words)
    command = commands[known.command]
    if unknown and not command.lenient:
        return _refuse(command.name, [f"{word}: no such argument" for word in unknown])
    del known.command
    if command.lenient:
        known.unknown = unknown
    try:
        return command.run(known)
    except KeyboardInterrupt:
        return 130


def _declare_serve(parser: argparse.ArgumentParser) -> None:
    from converter.settings import declarations

    parser.usage = "%(prog)s [FLAG ...]"
    parser.epilog = "Each setting is a flag and an environment variable; a flag wins."
    for declaration in declarations():
        unit = f" {declaration.unit}" if declaration.unit and declaration.default[-1:].isdigit() else ""
        default = f"default: {declaration.default}{unit}; " if declaration.default else ""
        meaning = f"{declaration.meaning} ({default}{declaration.variable})".replace("%", "%%")
        if declaration.switch:
            action = argparse.BooleanOptionalAction
            parser.add_argument(declaration.flag, action=action, default=argparse.SUPPRESS, help=meaning)
        else:
            choices = declaration.type.replace(" | ", "|")
            metavar = choices if "|" in choices else (declaration.unit or declaration.type).upper()
            parser.add_argument(declaration.flag, metavar=metavar, default=argparse.SUPPRESS, help=meaning)


def _serve(arguments: argparse.Namespace) -> int:
    from converter.declarations import SettingsError
    from converter.settings import load

    flags = vars(arguments)
    unknown = flags.pop("unknown")
    stray = [f"{word}: no such argument" for word in unknown if not word.startswith("--")]
    flags |= {word[2:].split("=")[0].replace("-", "_"): word for word in unknown if word.startswith("--")}
    try:
        settings = load(flags, os.environ)
    except SettingsError as error:
        return _refuse("serve", error.lines)
    if stray:
        return _refuse("serve", stray)

    import asyncio
    import gc

    from converter.app import serve
    from converter.errors import CannotStart
    from converter.telemetry import configure_logging

    configure_logging(settings.log_level, settings.log_format)
    gc.freeze()  # what is imported stays until the end: no collection needs to look at it
    gc.set_threshold(20_000, 20, 20)  # requests leave few cycles behind: looking for them rarely costs less
    try:
        asyncio.run(serve(settings, os.environ))
    except (CannotStart, OSError) as error:
        return _refuse("serve", [str(error)])
    return 0


def _declare_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown")


def _settings(arguments: argparse.Namespace) -> int:
    from converter.settings import declarations

    columns = ("Variable", "Type", "Unit", "Default", "Meaning")
    rows = [(d.variable, d.type, d.unit, d.default, d.meaning) for d in declarations()]
    if arguments.markdown:
        _print_markdown(columns, rows)
    elif sys.stdout.isatty():
        _print_table(columns, rows)
    else:
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _print_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    quoted = [(f"`{variable}`", *(cell.replace("|", "\\|") for cell in cells)) for variable, *cells in rows]
    for row in (columns, ["---"] * len(columns), *quoted):
        print(f"| {' | '.join(row)} |")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column(columns[0], no_wrap=True), *columns[1:], box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _declare_run(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _STATUSES
    add = parser.add_argument
    add(
        "work",
        metavar="WORK",
        help="name of a template that the converter has, or file with a workflow in API format; - for standard input",
    )
    add(
        "-s",
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input of the template, or NODE.INPUT=VALUE of the workflow; @FILE sends a file where one can go; "
        "may be given several times",
    )
    add("--json", action="store_true", help="print the result, or what went wrong, as JSON in place of paths")
    add(
        "-o",
        "--output",
        metavar="PATH",
        help="file for the output, which is replaced if it exists (several outputs: numbered names), or a folder; "
        "default: the outputs' own names in the current folder",
    )
    add("--url", default="http://127.0.0.1:3000", help="address of the converter (default: %(default)s)")
    add("--timeout", type=_parse_seconds, metavar="SECONDS", help="time for the whole run (default: the converter's)")
    add("--priority", type=int, metavar="INTEGER", help="higher first (default: 0)")
    add("--id", help="name of the job (default: a new one)")
    add(
        "--wait",
        type=_parse_seconds,
        default=0.0,
        metavar="SECONDS",
        help="try again for so long if refused, or if the engine or the connection fails (default: not at all)",
    )
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--api-key", metavar="SECRET", help="API key, where the converter wants one (default: CONVERTER_API_KEY)"
    )
    key.add_argument(
        "--api-key-file", metavar="PATH", help="file with the API key: unlike a flag, nobody else reads it"
    )


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}")
    return seconds


def _run(arguments: argparse.Namespace) -> int:
    from converter.caller.call import Call, run
    from converter.core.terminals import find_protocol

    if arguments.api_key_file is None:
        arguments.api_key = arguments.api_key or os.environ.get("CONVERTER_API_KEY") or None
    return run(Call(**vars(arguments), protocol=find_protocol(os.environ)))


def _declare_template(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit status: 0 done   1 something is wrong with a template   2 wrong usage, or no engine there"
    deeds = parser.add_subparsers(title="what to do", metavar="new|check", dest="deed", required=True)
    add = deeds.add_parser("new", help="draft a declaration for a workflow", allow_abbrev=False).add_argument
    add("workflow", metavar="WORKFLOW", help="file with a workflow in API format, NAME.json")
    add("-o", "--output", metavar="FILE", help="file to write, - for standard output (default: NAME.toml beside it)")
    add("--url", help="address of the engine, which tells types, limits and choices of inputs")
    add = deeds.add_parser("check", help="say what is wrong with templates", allow_abbrev=False).add_argument
    add("paths", metavar="PATH", nargs="+", help="a template's file, or a folder of templates")
    add("--url", help="address of an engine that should have all that they need")


def _template(arguments: argparse.Namespace) -> int:
    from converter.authoring import examine, new

    if arguments.deed == "new":
        return new(arguments.workflow, arguments.output, arguments.url)
    return examine(arguments.paths, arguments.url)


def _version(arguments: argparse.Namespace) -> int:
    print(f"converter {__version__}")
    return 0


def _refuse(command: str, lines: Sequence[str]) -> int:
    for line in lines:
        print(f"converter {command}: {line}", file=sys.stderr)
    return 2


_COMMANDS = (
    Command("serve", "Serve HTTP in front of an engine", _declare_serve, _serve, lenient=True),
    Command("run", "Run a template or a workflow on a converter that serves", _declare_run, _run),
    Command("template", "Draft and check templates", _declare_template, _template),
    Command("settings", "Print every setting", _declare_settings, _settings),
    Command("version", "Print the version", lambda parser: None, _version),
)

if __name__ == "__main__":
    sys.exit(main())
