"""The `labelstore` command: its subcommands, and how errors reach the user."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from typing import Any, TextIO

import click

from labelstore.cli.escaping import escape_streams
from labelstore.cli.signals import Signals
from labelstore.errors import LabelStoreError, OptionError, UnlockedStoreWarning
from labelstore.version import __version__

EXIT_ERROR, EXIT_USAGE = 1, 2
_COMMANDS = {
    "annotate": "Make the label maps of all images below a folder.",
    "info": "Sum a store up: rows, size, annotator, versions.",
    "inspect": "Show an image's label map and soft labels.",
    "view": "Look at images, maps and soft labels in a browser; HTTP API.",
    "evaluate": "Hold labels against multi-labels, and a classifier against either.",
    "report": "Report what the maps say of the data set: one HTML file, one list.",
    "verify": "Check every byte of a store, and every value.",
    "repair": "Set what is damaged back to pending, for annotate to make again.",
    "import": "Make a store of label maps that others have made.",
    "export": "Write a store's maps in other formats.",
    "merge": "Put the rows of stores together in a new one.",
    "subset": "Put some rows of a store into a new one.",
    "convert": "Make a store of another encoding.",
    "models": "List the annotators by name: input size, classes, map size.",
}
_MODULES = {"import": "importing", "export": "exporting"}
"""Of commands whose names are no modules' names."""


class Commands(click.Group):
    """Loads a subcommand's module when it is asked for: `--help` and `info` need no torch and no Dask."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands' names."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"labelstore.cli.{_MODULES.get(cmd_name, cmd_name)}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand; what labelstore raises on purpose becomes one line, never a traceback."""
        try:
            return super().invoke(ctx)
        except OptionError as error:
            raise click.UsageError(str(error)) from error
        except LabelStoreError as error:
            raise click.ClickException(str(error)) from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="labelstore")
def cli() -> None:
    """Soft labels for image training, made once, read at the speed of the loop.

    \b
    Make label maps of the images below a folder:  labelstore annotate photos/
    Look at one of them:                           labelstore inspect cats/1.jpg
    Sum up the store:                              labelstore info
    """


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning that is meant for users in a line of its own, and others as Python does."""
    if issubclass(category, UnlockedStoreWarning):
        click.echo(f"Warning: {message}", err=True)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def main() -> None:
    """Run the command line. Exit code 0: done; 1: an error; 2: wrong usage; 130: interrupted; 143: terminated."""
    signals = Signals()
    try:
        for stream in (sys.stdout, sys.stderr):  # names that a terminal's encoding lacks must not end the command
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        escape_streams()
        with signals.heeded(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = cli.main(prog_name="labelstore", standalone_mode=False)
        sys.exit(code or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_ERROR)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"{signals.name}. What is committed is kept; the same command goes on from there.", err=True)
        sys.exit(signals.exit_code)
    except BrokenPipeError:  # `labelstore inspect ... | head`
        sys.stderr.close()
        sys.exit(EXIT_ERROR)
