"""The four data sets of the few-shot table: files, templates, label words, and the fixed test rows.

Every method of the table reads its rows from here, so that all see the same 40 labels a seed and
the same 400 test rows. Rows come from the data folder beside the repository, or ``--data``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.tasks.example import Example
from headstart.tasks.fewshot import draw_shots
from headstart.tasks.readers import read_all
from headstart.tasks.task import Task
from headstart.tasks.template import Template

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SEEDS = (1, 2, 3, 4, 5)
NUM_SHOTS = 40
NUM_TEST = 400


@dataclass(frozen=True)
class Source:
    train: str
    test: str
    template: str
    words: dict[str, str]

    @property
    def task(self) -> Task:
        return Task(Template(self.template), tuple(self.words), tuple(self.words.values()))


IT_WAS = "{{ text }} It was {{ answer }}"
SOURCES = {
    "sst2": Source(
        "sst2/train.jsonl.gz", "sst2/test.jsonl", IT_WAS, {"0": "terrible", "1": "great"}
    ),
    "sst5": Source(
        "sst5/train.jsonl.gz",
        "sst5/test.jsonl",
        IT_WAS,
        {"0": "terrible", "1": "bad", "2": "okay", "3": "good", "4": "great"},
    ),
    "semeval_r": Source(
        "semeval2016_restaurants/train.jsonl.gz",
        "semeval2016_restaurants/test.jsonl",
        IT_WAS,
        {"negative": "terrible", "neutral": "okay", "positive": "great"},
    ),
    "ag_news": Source(
        "ag_news_10k/train.jsonl.gz",
        "ag_news_10k/official_test.jsonl.gz",
        "{{ text }}\nTopic: {{ answer }}",
        {"0": "world", "1": "sports", "2": "business", "3": "technology"},
    ),
}


def shots(name: str, seed: int, data: Path = DATA) -> list[Example]:
    """The 40 labelled rows of one seed, drawn plainly at random."""
    rows = read_all(data / SOURCES[name].train, columns={"text": "text"})
    drawn = draw_shots([row.label or "" for row in rows], NUM_SHOTS, seed)
    return [rows[i] for i in drawn.train]


def test_rows(name: str, data: Path = DATA) -> list[Example]:
    """The 400 fixed test rows, the same for every method and seed."""
    rows = read_all(data / SOURCES[name].test, columns={"text": "text"})
    chosen = np.random.default_rng(0).permutation(len(rows))[:NUM_TEST]
    return [rows[i] for i in sorted(chosen)]
