"""Commands, flags and defaults are frozen: people's scripts stand on them."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from tests.house import freeze


def test_command_line_is_frozen() -> None:
    fault = freeze.fault("cli_surface.txt")
    assert not fault, fault


RUNS = Path.home() / "runs"


class Method(enum.Enum):
    maml = "maml"
    reptile = "reptile"


def test_the_walk_sees_commands_flags_and_defaults() -> None:
    app, below = typer.Typer(), typer.Typer()
    app.add_typer(below, name="prompt")

    @app.command()
    def tune(
        data: str,
        shots: Annotated[int, typer.Option("--shots", "-k", min=1)] = 16,
        method: Method = Method.maml,
        fast: bool = False,
        out: Path = RUNS,
    ) -> None: ...

    @below.command()
    def show() -> None: ...

    lines = list(freeze.commands(typer.main.get_command(app), "headstart"))
    below_prompt = lines.index("headstart prompt")
    assert lines[below_prompt + 1] == "headstart prompt show"
    assert lines[lines.index("headstart tune") + 1 :] == [
        "    argument data str default=None required",
        "    option --fast/--no-fast bool default=False",
        "    option --method maml|reptile default='maml'",
        "    option --out pathlib.Path default=~/runs",
        "    option --shots/-k int default=16 min=1",
    ]
