"""From documents to pseudo-labels: cut, labelled in shares, killed and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError, StorageError, UsageError
from headstart.recipes.targets import stream_rows
from headstart.sources.corpus import PassageSettings, passages, sentences, text_of
from headstart.sources.encoders import load_classifier
from headstart.sources.labels_file import PseudoLabel, read_labels, write_labels
from headstart.sources.pseudo_label import (
    label_share,
    merge_shards,
    pseudo_label,
    shard_path,
)
from headstart.sources.teacher import Teacher, TeacherCard, TeacherSettings, save_teacher
from headstart.tasks.example import Example
from headstart.tasks.readers import read_all

LABELS = ("bad", "good")
PLAN = {"labels": LABELS, "chunk_rows": 4}


@pytest.mark.parametrize(
    ("paragraph", "parts"),
    [
        ("It rained. We left.", 2),
        ("Mr. Low met J. R. Smith of the U.S. Navy at 5 p.m. on Monday.", 1),
        ("See fig. 3 and No. 4. No. It is not.", 3),
        ('"Stop!" he said. "Why?" she asked.', 2),
        ("great place. will return!! loved it", 3),
        ("Well... maybe. Who knows?", 2),
        ("He paused . . . and went on .", 1),
        ("(It closed.) We left.", 2),
        ("It cost $3.50 at example.com today.", 1),
        ("", 0),
    ],
)
def test_sentences(paragraph: str, parts: int) -> None:
    found = sentences(paragraph)
    assert len(found) == parts, found
    assert " ".join(found) == paragraph


@settings(deadline=None)  # a busy machine is no fault
@given(st.text(max_size=200))
def test_splitting_loses_no_word(paragraph: str) -> None:
    assert " ".join(sentences(paragraph)).split() == paragraph.split()


def cut(text: str, **settings: int) -> list[str]:
    found = passages([Example("d", {"text": text})], PassageSettings(**settings))
    return [text_of(passage) for passage in found]


def test_passages_are_joined_up_to_the_length() -> None:
    text = "One two three. Four five six. Seven eight nine."
    assert cut(text, min_words=1, max_words=6) == [
        "One two three. Four five six.",
        "Seven eight nine.",
    ]
    assert cut(text, min_words=4, max_words=6) == ["One two three. Four five six."]
    assert cut(text, min_words=1, max_words=2) == []
    assert (
        len(cut(text.replace(". ", ".\n"), min_words=1, max_words=60)) == 3
    )  # a line, a paragraph


def test_what_is_no_prose_is_left_out_and_ends_a_passage() -> None:
    text = (
        "History\n* first item.\n| a | b |\nGoals: 3 41 7 22 1.\nSee www.example.org for it.\n"
        "<b>Bold.</b>\nThe sun rose. x = 3. The moon set."
    )
    assert cut(text, min_words=1, max_words=60) == ["The sun rose.", "The moon set."]


@settings(deadline=None)  # a busy machine is no fault
@given(st.text("ab .!?\n3|", max_size=120), st.integers(1, 4), st.integers(4, 9))
def test_every_passage_keeps_to_the_settings(text: str, least: int, most: int) -> None:
    for passage in cut(text, min_words=least, max_words=most):
        assert least <= len(passage.split()) <= most
        assert passage in " ".join(text.split())


def test_passages_are_read_lazily_and_named_after_their_document(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("It rained all day. We stayed in.\n\n" * 3)
    taken: list[str] = []

    def documents() -> Iterator[Example]:
        for document in stream_rows(str(path), "text", None):
            taken.append(document.id)
            yield document

    tally: Counter[str] = Counter()
    stream = passages(documents(), PassageSettings(min_words=3, max_words=4), tally)
    assert [next(stream).id, next(stream).id] == ["corpus.txt:1#1", "corpus.txt:1#2"]
    assert taken == ["corpus.txt:1"]
    assert len(list(stream)) == 4 and tally["documents"] == 3 and tally["passages"] == 6


def test_a_length_nothing_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="min_words=9 is over max_words=3"):
        PassageSettings(min_words=9, max_words=3)


class Counting:
    """A real tiny teacher that counts the texts it was shown."""

    def __init__(self) -> None:
        card = TeacherCard(labels=LABELS, settings=TeacherSettings(encoder="tiny", max_length=32))
        self.teacher = Teacher(*load_classifier("tiny", LABELS, seed=3), card)
        self.labels, self.mark, self.seen = LABELS, "tiny", 0

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        self.seen += len(texts)
        return self.teacher.probabilities(texts)


ROWS = [Example(f"d#{i}", {"text": "so" + " it goes" * (i * 5 % 7) + "\u2028é"}) for i in range(22)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    summary = pseudo_label(Counting(), ROWS, folder, chunk_rows=4)
    assert summary["rows"] == 22 and sum(x["rows"] for x in summary["per_label"].values()) == 22
    assert sorted(path.name for path in folder.iterdir()) == ["labels.json", "labels.jsonl"]
    return (folder / "labels.jsonl").read_bytes()


@pytest.mark.parametrize("processes", [2, 3, 9])
def test_shared_by_processes_the_file_is_the_same(
    tmp_path: Path, whole: bytes, processes: int
) -> None:
    for index in range(processes):
        share = shard_path(tmp_path, index, processes)
        label_share(Counting(), ROWS, share, index, processes, chunk_rows=4)
    merge_shards(tmp_path, processes, PLAN)
    assert (tmp_path / "labels.jsonl").read_bytes() == whole


def test_a_killed_run_ends_with_the_same_file(tmp_path: Path, whole: bytes) -> None:
    """Cut the file anywhere: what stands in whole chunks is not labelled again."""
    lines = whole.splitlines(keepends=True)
    for cut_at in {0, 1, *range(7, len(whole), len(whole) // 11), len(whole) - 1, len(whole)}:
        teacher, path = Counting(), tmp_path / "shard.jsonl"
        path.write_bytes(whole[:cut_at])
        kept = whole[:cut_at].count(b"\n") // 4 * 4
        done: list[int] = []
        label_share(teacher, ROWS, path, 0, 1, chunk_rows=4, progress=done.append)
        assert path.read_bytes() == whole
        assert teacher.seen == len(lines) - kept
        assert done[0] == (kept or 4) and done[-1] == 22


def test_a_second_writer_is_noticed(tmp_path: Path) -> None:
    def meddled() -> Iterator[Example]:
        yield from ROWS[:6]
        with (tmp_path / "shard.jsonl").open("ab") as file:
            file.write(b"{}\n")
        yield from ROWS[6:]

    with pytest.raises(StorageError, match="another process writes"):
        label_share(Counting(), meddled(), tmp_path / "shard.jsonl", 0, 1, chunk_rows=4)


def test_what_is_done_is_not_read_again(tmp_path: Path) -> None:
    def unread() -> Iterator[Example]:
        pytest.fail("the corpus was read again")
        yield

    first = pseudo_label(Counting(), ROWS, tmp_path, corpus={"file": "a"}, chunk_rows=4)
    assert pseudo_label(Counting(), unread(), tmp_path, corpus={"file": "a"}, chunk_rows=4) == first
    with pytest.raises(UsageError, match=r'corpus=\{"file": "a"\}, not \{"file": "b"\}'):
        pseudo_label(Counting(), ROWS, tmp_path, corpus={"file": "b"}, chunk_rows=4)


def test_a_begun_run_goes_on_only_as_it_was_begun(tmp_path: Path) -> None:
    def broken() -> Iterator[Example]:
        yield from ROWS[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pseudo_label(Counting(), broken(), tmp_path, chunk_rows=4)
    assert len(list(read_labels(shard_path(tmp_path, 0, 1)))) == 8
    other = Counting()
    other.mark = "another"
    with pytest.raises(UsageError, match=r'plan\.json: the run here has teacher="tiny"'):
        pseudo_label(other, ROWS, tmp_path, chunk_rows=4)
    with pytest.raises(DataError, match="holds 'd#7' where the stream has 'd#8'"):
        pseudo_label(Counting(), ROWS[1:], tmp_path, chunk_rows=4)
    with pytest.raises(DataError, match="where the stream has nothing"):
        pseudo_label(Counting(), ROWS[:4], tmp_path, chunk_rows=4)
    assert pseudo_label(Counting(), ROWS, tmp_path, chunk_rows=4)["rows"] == 22


def test_an_empty_stream_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no passage"):
        pseudo_label(Counting(), [], tmp_path)


def test_the_labels_are_the_teachers_and_every_reader_reads_them(
    tmp_path: Path, whole: bytes
) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(whole)
    teacher = Counting()
    for row, example in zip(read_labels(path), ROWS, strict=True):
        p_C = teacher.probabilities([row.text])[0]
        assert (row.id, row.text) == (example.id, example.fields["text"])
        assert np.allclose(row.probs, p_C, atol=1e-5)
        assert row.label == LABELS[int(p_C.argmax())] and row.confidence == max(row.probs)
    again = read_all(path, columns={"text": "text"}, id_column="id")
    assert [(e.id, e.label) for e in again] == [(r.id, r.label) for r in read_labels(path)]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    write_labels(path, [PseudoLabel("a", "t", "bad", 0.9, (0.9, 0.1))])
    path.write_bytes(path.read_bytes() + json.dumps({"id": "b"}).encode())
    with pytest.raises(DataError, match=r"labels\.jsonl line 2"):
        list(read_labels(path))


TWO = """
import sys
from pathlib import Path
from headstart.sources.pseudo_label import pseudo_label
from headstart.sources.teacher import Teacher
from headstart.tasks.readers import read_examples

teacher, rows, folder = sys.argv[1:]
pseudo_label(Teacher.load(teacher), read_examples(rows, label=None, id_column="id"), folder, chunk_rows=4)
"""


@pytest.mark.slow
def test_two_real_processes_give_the_file_of_one(tmp_path: Path, whole: bytes) -> None:
    counting = Counting()
    save_teacher(tmp_path / "teacher", *astuple(counting.teacher))
    rows = [json.dumps({"id": row.id, "text": row.fields["text"]}) + "\n" for row in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    (tmp_path / "two.py").write_text(TWO)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    inputs = [str(tmp_path / name) for name in ("two.py", "teacher", "rows.jsonl", "out")]
    subprocess.run([sys.executable, *launch, *inputs], check=True, timeout=240)
    assert (tmp_path / "out" / "labels.jsonl").read_bytes() == whole
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["rows"] == 22


def astuple(teacher: Teacher) -> tuple[object, object, TeacherCard]:
    return teacher.network, teacher.tokenizer, teacher.card
