"""The reference page of the command line says what `--help` says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "cli.md"


def generate(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "docs" / "generate.py", *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text("utf-8").count("\n## `headstart") >= 6
    checked = generate("--check")
    assert checked.returncode == 0, checked.stderr


def test_a_stale_page_is_found_and_mended(tmp_path: Path) -> None:
    page = tmp_path / "cli.md"
    stale = PAGE.read_text("utf-8").replace("--dry-run", "--dry")
    page.write_text(stale, "utf-8")
    checked = generate("--check", "--page", page)
    assert checked.returncode == 1 and "make docs" in checked.stderr
    assert page.read_text("utf-8") == stale
    assert generate("--page", page).returncode == 0
    assert page.read_text("utf-8") == PAGE.read_text("utf-8")


def test_a_wrong_flag_is_refused() -> None:
    assert generate("--chekc").returncode == 2
