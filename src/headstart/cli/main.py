"""``headstart``: the commands, and what becomes of an error: one line and an exit code.

Each command lives in its own file and imports torch and the models only when it runs, so that
``--help`` is instant.
"""

from __future__ import annotations

import shlex
import signal
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperCommand

from headstart.cli.demo import demo
from headstart.cli.doctor import doctor
from headstart.cli.evaluate import evaluate
from headstart.cli.output import Output, silence_libraries
from headstart.cli.predict import predict
from headstart.cli.tune import tune
from headstart.errors import HeadstartError

INTERRUPTED = 130


class Command(TyperCommand):
    """A command whose expected errors are one line on stderr, and one JSON object with ``--json``.

    Example:
        >>> issubclass(Command, TyperCommand)
        True
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what was typed, so that a result can tell how it was made."""
        ctx.obj = shlex.join(["headstart", str(self.name), *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        silence_libraries()
        try:
            return super().invoke(ctx)
        except HeadstartError as error:
            line, code = " ".join(str(error).split()), error.exit_code
        except KeyboardInterrupt:
            line, code = "interrupted; nothing was left half-written", INTERRUPTED
        print(f"error: {line}", file=sys.stderr)
        Output(as_json=bool(ctx.params.get("as_json"))).result({"error": line, "exit_code": code})
        raise typer.Exit(code)


app = typer.Typer(
    name="headstart",
    help="Tune a small soft prompt on a frozen language model from a few labels, judge it, use it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (tune, evaluate, predict, demo, doctor):
    app.command(cls=Command)(command)


@app.callback()
def headstart() -> None:
    """Tune a small soft prompt on a frozen language model from a few labels, judge it, use it."""


def main() -> None:
    """Run the command line; a request to stop cleans up as an error does.

    Example:
        >>> main.__name__
        'main'
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app()


if __name__ == "__main__":
    main()
