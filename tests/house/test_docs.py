"""The pages tell the truth: links lead somewhere, and marked Python blocks run."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.house.source import ROOT

MOST_LINES_IN_README = 200
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"^ *(```+|~~~+)[^\n]*\n.*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"", re.M
)
RUNS = re.compile(r"^<!-- runs -->\n+```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^\s*<!-- runs -->", re.MULTILINE)


def relative_links(text: str) -> list[str]:
    """Targets inside the repository, without their #anchor; code is not looked at."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    targets = ["".join(groups) for groups in LINK.findall(text)]
    targets = [t for t in targets if not re.match(r"[a-z][a-z+.-]*:|//", t, re.IGNORECASE)]
    return [t for t in (unquote(t.split("#")[0]) for t in targets) if t]


def broken_links(page: Path, root: Path) -> list[str]:
    """Links of a page that lead nowhere, or out of the repository."""

    def leads_nowhere(link: str) -> bool:
        target = (page.parent / link).resolve()
        return link.startswith("/") or not target.is_relative_to(root) or not target.exists()

    return [link for link in relative_links(page.read_text("utf-8")) if leads_nowhere(link)]


def run_blocks(page: Path) -> int:
    """Run a page's marked blocks in order, as its reader would: one namespace for the page."""
    text = page.read_text("utf-8")
    namespace: dict[str, object] = {"__name__": "__docs__"}
    blocks = list(RUNS.finditer(text))
    assert len(blocks) == len(MARK.findall(text)), f"{page.name}: a mark without a block below it"
    for block in blocks:
        lines_above = text[: block.start(1)].count("\n")
        code = compile("\n" * lines_above + block[1], str(page), "exec")
        exec(code, namespace)
    return len(blocks)


def test_readme_is_short() -> None:
    lines = len((ROOT / "README.md").read_text("utf-8").splitlines())
    assert lines < MOST_LINES_IN_README, f"README.md has {lines} lines; move some to docs/"


def test_links_lead_somewhere() -> None:
    assert any(relative_links(p.read_text("utf-8")) for p in PAGES), "found no link at all"
    broken = [f"{p.relative_to(ROOT)}: {link}" for p in PAGES for link in broken_links(p, ROOT)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if MARK.search(page.read_text("utf-8"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_marked_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_blocks(page) >= 1


def test_each_rule_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[a](page.md#top) ![b](gone.png) [c](https://example.org/x) `[d](code.md)` [e](../out.md)\n"
        "[f]: lost.md\n```\n[g](fenced.md)\n```\n"
    )
    assert broken_links(page, tmp_path) == ["gone.png", "../out.md", "lost.md"]

    page.write_text(
        "<!-- runs -->\n```python\nx = 1\n```\n\n<!-- runs -->\n```python\nx += 1\n```\n"
    )
    assert run_blocks(page) == 2
    page.write_text("```python\nnot run\n```\n")
    assert run_blocks(page) == 0
    page.write_text("<!-- runs -->\n```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        run_blocks(page)
    page.write_text("<!-- runs -->\nno block\n")
    with pytest.raises(AssertionError, match="without a block"):
        run_blocks(page)
