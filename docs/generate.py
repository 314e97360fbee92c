"""Write the pages that are made from the code: docs/reference/cli.md. Run it with `make docs`.

python docs/generate.py            write the page
python docs/generate.py --check    write nothing; exit 1 where the page is stale
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


def page_text(paths: list[list[str]]) -> str:
    """The whole page."""
    with ThreadPoolExecutor(2) as pool:  # each waits for a process
        shown = list(pool.map(help_text, paths))
    parts = [
        f"\n## `{' '.join(['headstart', *path])}`\n\n```text\n{text}\n```\n"
        for path, text in zip(paths, shown, strict=True)
    ]
    return HEAD + "".join(parts)


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description="Write the pages that are made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    given = parser.parse_args()
    paths = command_paths()
    text = page_text(paths)
    if given.check:
        if given.page.is_file() and given.page.read_text("utf-8") == text:
            return 0
        print(f"{given.page} is not what `--help` says; run `make docs`", file=sys.stderr)
        return 1
    given.page.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(text, "utf-8")
    print(f"{given.page}: {len(paths)} commands")
    return 0


if __name__ == "__main__":
    sys.exit(main())
