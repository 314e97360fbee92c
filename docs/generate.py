"""Write the pages that are made from the code: docs/reference/cli.md. Run it with `make docs`."""

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """# Command line

<!-- Made by docs/generate.py from `--help`; run `make docs`, do not edit. -->
"""


def command_paths() -> list[list[str]]:
    """Every visible command, in the order `--help` lists them: `[]`, `["tune"]`, ..."""
    import typer

    from headstart.cli.main import app

    found: list[list[str]] = []

    def walk(command: object, path: list[str]) -> None:
        found.append(path)
        for name, below in getattr(command, "commands", {}).items():
            if not below.hidden:
                walk(below, [*path, name])

    walk(typer.main.get_command(app), [])
    return found


def help_text(path: list[str]) -> str:
    """What a person sees, at 80 columns and without colour."""
    env = {**os.environ, "COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "TERM": "dumb"}
    code = "from headstart.cli.main import app; app(prog_name='headstart')"
    command = [sys.executable, "-c", code, *path, "--help"]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in shown.strip("\n").splitlines())


def main() -> None:
    """Write the page."""
    paths = command_paths()
    parts = [
        f"\n## `{' '.join(['headstart', *p])}`\n\n```text\n{help_text(p)}\n```\n" for p in paths
    ]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(HEAD + "".join(parts), "utf-8")
    print(f"docs/reference/cli.md: {len(paths)} commands")


if __name__ == "__main__":
    main()
