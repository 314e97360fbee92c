"""``headstart``: the commands, and what becomes of an error: one line and an exit code.

Each command lives in its own file and imports torch and the models only when it runs, so that
``--help`` is instant.
"""

from __future__ import annotations

import shlex
import signal
import sys
import time
import warnings
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperCommand

from headstart.cli.demo import demo
from headstart.cli.doctor import doctor
from headstart.cli.evaluate import evaluate
from headstart.cli.inits import inits
from headstart.cli.output import Output, silence_libraries
from headstart.cli.predict import predict
from headstart.cli.run import run
from headstart.cli.tune import tune
from headstart.errors import HeadstartError

INTERRUPTED = 130
STOPS = ("SIGTERM", "SIGHUP")
GRACE = 5.0
"""Seconds for cleaning up in which further requests to stop are not heard: they often come twice."""


class _Stopped(BaseException):
    """A request to stop; no `except Exception` on the way up holds it back."""

    def __init__(self, number: int) -> None:
        self.line = f"stopped by {signal.Signals(number).name}; nothing was left half-written"
        self.exit_code = 128 + number


class Command(TyperCommand):
    """A command whose expected errors are one line on stderr, and one JSON object with ``--json``.

    Example:
        >>> from typer.testing import CliRunner
        >>> CliRunner().invoke(app, ["evaluate", "nowhere", "test.csv"]).exit_code
        1
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what was typed, so that a result can tell how it was made."""
        ctx.obj = shlex.join(["headstart", str(self.name), *args])
        typed = args[: args.index("--")] if "--" in args else list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # of typer's own click or of another: the class has many homes
            if "--json" in typed and hasattr(error, "format_message"):
                _as_json(error.format_message(), getattr(error, "exit_code", 2))
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        silence_libraries()
        try:
            return super().invoke(ctx)
        except HeadstartError as error:
            line, code = " ".join(str(error).split()), error.exit_code
        except KeyboardInterrupt:
            line, code = "interrupted; nothing was left half-written", INTERRUPTED
        except _Stopped as stop:
            line, code = stop.line, stop.exit_code
        with suppress(OSError):  # the terminal that hung up takes no more words
            print(f"error: {line}", file=sys.stderr, flush=True)
        if ctx.params.get("as_json"):
            _as_json(line, code)
        raise typer.Exit(code)


def _as_json(line: str, code: int) -> None:
    with suppress(OSError):
        Output(as_json=True).result({"error": line, "exit_code": code})
        sys.stdout.flush()


app = typer.Typer(
    name="headstart",
    help="Tune a small soft prompt on a frozen language model from a few labels, judge it, use it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (tune, evaluate, predict, inits, run, demo, doctor):
    app.command(cls=Command)(command)


@app.callback()
def headstart() -> None:
    """Tune a small soft prompt on a frozen language model from a few labels, judge it, use it."""


def main() -> None:
    """Run the command line; a request to stop cleans up as an error does."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    _listen_for_stops()
    try:
        app()
    except _Stopped as stop:  # before a command began, or after it ended
        sys.exit(stop.exit_code)


def _listen_for_stops() -> None:
    """Turn requests to stop into an exception; one that `nohup` silenced stays silent."""
    heard = -GRACE

    def stop(number: int, frame: object) -> None:
        nonlocal heard
        if time.monotonic() - heard < GRACE:
            return
        heard = time.monotonic()
        raise _Stopped(number)

    for name in STOPS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


if __name__ == "__main__":
    main()
