"""Three real stages, small enough to be run often: lines of a file, how often each word, a table."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

from headstart.config import Settings
from headstart.recipes.stages import Context, DataFile, StageKind, StageRef, of_kind, table_of
from headstart.seeds import derive_seed

DATA = "the cat sat\non the mat\nthe cat ran\naway\nfrom the mat\n"
RECIPE = """\
name: tiny
description: Counts words.
base_model: tiny-causal
seed: 3
data: data
x-lines: &lines
  kind: lines
  source: text.txt
stages:
  lines:
    <<: *lines
  slow:
    <<: *lines
    pause: 0.001
  words: {kind: words, lines: lines, limits: {at_least: 2}}
  table: {kind: table, counts: [words], title: Words}
"""


class LinesSettings(Settings):
    source: DataFile
    repeat: int = 1
    pause: float = 0.0


def write_lines(context: Context[LinesSettings]) -> None:
    """Append one record a line; continue after the last whole one."""
    settings, target = context.settings, context.folder / "lines.jsonl"
    lines = Path(context.data[settings.source]).read_text().splitlines() * settings.repeat
    whole = target.read_bytes().rpartition(b"\n")[0] if target.exists() else b""
    done = len(whole.splitlines())
    with target.open("r+b" if target.exists() else "wb") as sink:
        sink.truncate(len(whole) + 1 if whole else 0)
        sink.seek(0, 2)
        for n, line in enumerate(lines[done:], done):
            row = {"n": n, "line": line, "mark": derive_seed(context.seed, n) % 97}
            sink.write(json.dumps(row).encode() + b"\n")
            sink.flush()
            context.progress("writing", n + 1, len(lines))
            time.sleep(settings.pause)


class Limits(Settings):
    at_least: int = 1
    at_most: int = 1000


class WordsSettings(Settings):
    lines: Annotated[StageRef, of_kind("lines")]
    limits: Limits = Limits()


def count_words(context: Context[WordsSettings]) -> None:
    counts: dict[str, int] = {}
    folder = context.inputs[context.settings.lines]
    for row in map(json.loads, (folder / "lines.jsonl").read_text().splitlines()):
        for word in row["line"].split():
            counts[word] = counts.get(word, 0) + 1
    limits = context.settings.limits
    kept = {w: n for w, n in counts.items() if limits.at_least <= n <= limits.at_most}
    (context.folder / "parts").mkdir(exist_ok=True)
    (context.folder / "parts" / "counts.json").write_text(json.dumps(kept, sort_keys=True))


class TableSettings(Settings):
    counts: tuple[StageRef, ...]
    title: str = "Table"


def write_table(context: Context[TableSettings]) -> None:
    lines = [f"{context.settings.title} with {context.base_model}"]
    for ref in context.settings.counts:
        counts: dict[str, Any] = json.loads(
            (context.inputs[ref] / "parts" / "counts.json").read_text()
        )
        lines += [f"{ref}: {word} {n}" for word, n in sorted(counts.items())]
    (context.folder / "table.md").write_text("\n".join(lines) + "\n")


KINDS = table_of(
    StageKind("lines", 1, LinesSettings, write_lines, uses_model=False),
    StageKind("words", 1, WordsSettings, count_words, uses_model=False),
    StageKind("table", 1, TableSettings, write_table),
)


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """Put the recipe and its data into a folder."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "text.txt").write_text(DATA)
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"
