from __future__ import annotations

import csv
import gzip
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.tasks import readers
from headstart.tasks.example import Example
from headstart.tasks.readers import file_of, label_names, read_all, read_examples

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0")).filter(str.strip)
rows_of_text = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def table(rows: list[tuple[str, str]], delimiter: str) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows([("text", "label"), *rows])
    return out.getvalue()


@shared_folder
@given(rows_of_text, st.sampled_from(["csv", "tsv", "csv.gz", "jsonl", "ndjson.gz", "parquet"]))
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, str]], kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        columns = [list(column) for column in zip(*rows, strict=True)]
        pytest.importorskip("pyarrow.parquet").write_table(
            pa.table(columns, names=["text", "label"]), path
        )
    elif "sv" in kind:
        write(path, table(rows, "\t" if kind == "tsv" else ","))
    else:
        write(path, "\n".join(json.dumps({"text": t, "label": y}) for t, y in rows))
    examples = read_all(path)
    assert [(e.fields, e.label) for e in examples] == [({"text": t}, y) for t, y in rows]
    assert [e.id for e in examples] == [f"{path.name}:{i}" for i in range(1, len(rows) + 1)]


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\nbroken')
    rows = read_examples(path)
    assert next(rows).label == "1"
    with pytest.raises(DataError, match="line 2"):
        next(rows)


def test_columns_and_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,body,stars,junk\nx,Lovely,1,\ny,Hm,0,\n")
    examples = read_all(path, label="stars", columns={"text": "body"}, id_column="id")
    assert examples[0] == Example("x", {"text": "Lovely"}, "1")
    unlabelled = read_all(path, label=None, columns={"text": "body", "n": "stars"})
    assert unlabelled[1] == Example("a.csv:2", {"text": "Hm", "n": "0"})


@pytest.mark.parametrize(
    ("value", "label"),
    [("a", "a"), (0, "0"), (-3, "-3"), (True, "true"), (False, "false"), (1.0, "1")],
)
def test_labels_become_text(tmp_path: Path, value: object, label: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "a", "label": value}))
    assert read_all(path)[0].label == label


def test_a_byte_order_mark_and_long_fields_are_fine(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    path = write(tmp_path / "a.csv", f"\ufefftext,label\n{long},1\n\n\n")
    assert read_all(path)[0].fields == {"text": long}


GOOD = '{"text": "a", "label": 1}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", GOOD + "{", "a.jsonl line 2: is not valid JSON"),
        ("a.jsonl", GOOD + "[1]", r"line 2: expected a JSON object .* not \[1\]"),
        ("a.jsonl", GOOD + '{"text": NaN, "label": 1}', "line 2: .*NaN is no JSON value"),
        ("a.jsonl", "[" * 100_000, "line 1: is not valid JSON"),
        ("a.jsonl", GOOD + "\n" + GOOD, "line 2: is blank, but rows follow"),
        ("a.jsonl", GOOD + '{"text": "a"}', "line 2: there is no label column 'label'"),
        ("a.jsonl", GOOD + '{"label": 1}', "line 2: there is no column 'text'"),
        ("a.jsonl", GOOD + '{"text": "a", "label": 1, "b": 1}', "line 2: the column 'b' is not in"),
        ("a.jsonl", GOOD + '{"text": null, "label": 1}', "line 2: the column 'text' is null"),
        ("a.jsonl", GOOD + '{"text": " ", "label": 1}', "line 2: the column 'text' is empty"),
        ("a.jsonl", GOOD + '{"text": "a", "label": null}', "line 2: the label column .* is null"),
        ("a.jsonl", GOOD + '{"text": "a", "label": ""}', "line 2: the label ''"),
        ("a.jsonl", GOOD + '{"text": "a", "label": 1.5}', "line 2: the label 1.5"),
        ("a.jsonl", GOOD + '{"text": "a", "label": [1]}', r"line 2: the label \[1\]"),
        ("a.jsonl", '{"text": "a", "lable": 1}', "did you mean 'lable'.*label=None"),
        ("a.jsonl", '{"label": 1}', "no column besides the label"),
        ("a.jsonl", "", "has no rows"),
        ("a.jsonl", "\n\n", "has no rows"),
        ("a.jsonl", GOOD.encode() + b"\xff", "line 2: is not UTF-8"),
        ("a.jsonl", GOOD.encode("utf-16"), "line 1: is not UTF-8"),
        ("a.jsonl", GOOD + "\0", "line 2: holds a NUL byte"),
        ("a.csv", "", "has no rows"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.csv", "text,label\na,1\nb,1,2\n", "line 3: has 3 columns where the header has 2"),
        ("a.csv", 'text,label\n"a\nb",1\nb\n', "line 4: has 1 columns"),
        ("a.csv", "text,label\na,1\n\nb,1\n", "line 3: is blank"),
        ("a.csv", 'text,label\n"a,1\n', "line 2: cannot be read"),
        ("a.csv", "text,text\na,1\n", "line 1: the column name 'text' in the header occurs twice"),
        ("a.csv", "text,\na,1\n", "line 1: the column name '' in the header is empty"),
        ("a.csv", "text,label\n\0,1\n", "line 2: holds a NUL byte"),
        ("a.csv", f"text,label\n{'x' * 11 * 2**20},1\n", "line 2: .*field limit"),
        ("a.tsv", "text\tlabel\na\n", "line 2: has 1 columns"),
        ("a.parquet", "nonsense", "cannot be read"),
        ("a.csv", '"5","' + "Great food. " * 20 + '"\n', "line 1: 'Great food.*zhang:FILE"),
        ("a.csv", "5,Great food.\n4,Good.\n", r"no label column 'label' \(columns: 5, Great food"),
        ("a.txt", "One.\n", r"line 1: there is no label column .*label=None"),
        ("a.txt", "\n \n", "has no rows"),
        ("a.xlsx", "nonsense", r"known are \.csv, \.tsv, \.jsonl.* zhang:FILE, trees:FILE"),
        ("a.xml", "<Reviews/>", "semeval16:FILE"),
        ("a.json", "[]", "sentihood:FILE"),
        ("a.parquet.gz", "nonsense", "known are"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["news.txt", "news.text", "news.txt.gz"])
def test_plain_text_is_one_document_a_line(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\ufeffFirst, one.\n\n \n  __label__1 <b>\u2028Second.\r\n")
    assert read_all(path, label=None) == [
        Example(f"{name}:1", {"text": "First, one."}),
        Example(f"{name}:4", {"text": "__label__1 <b>\u2028Second."}),
    ]


def test_plain_text_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt line 2: is not UTF-8"):
        read_all(write(tmp_path / "a.txt", b"One.\n\xff"), label=None)


def test_a_form_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "dev.txt", "(3 (2 It) (4 works))\n")
    assert read_all(f"trees:{tmp_path}/dev.txt") == [
        Example("dev.txt:1", {"text": "It works"}, "3")
    ]
    assert read_all(tmp_path / "dev.txt", label=None)[0].fields["text"].startswith("(3")
    with pytest.raises(DataError, match=r"no such file; did you mean 'dev\.txt'"):
        read_all(f"trees:{tmp_path}/devv.txt")
    with pytest.raises(DataError, match="no such file"):
        read_all("trees:dev")  # and not a data set on the Hub
    with pytest.raises(DataError, match="has no split 'test'"):
        read_all(f"trees:{tmp_path}/dev.txt", split="test")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "trees:odd.txt", "One.\n")
    assert file_of("trees:odd.txt") == (Path("trees:odd.txt"), None)
    assert file_of("trees:dev.txt") == (Path("dev.txt"), "trees")


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD.encode() * 1000)
    for content in (whole[:-20], b"nonsense", whole[:30] + b"\0" * 20 + whole[50:]):
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.jsonl\.gz"):
            read_all(path)


def test_ids_must_differ(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,text\n1,a\n1,b\n")
    with pytest.raises(DataError, match="line 3: the id '1' in column 'id' occurs twice"):
        read_all(path, label=None, id_column="id")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,1\n")
    for source in (tmp_path / "trian.csv", str(tmp_path / "trian.csv")):
        with pytest.raises(DataError, match=r"no such file; did you mean 'train\.csv'"):
            read_all(source)
    with pytest.raises(DataError, match="no such file"):
        read_all("train.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        read_all(tmp_path)
    with pytest.raises(DataError, match="a file has no split 'test'"):
        read_all(tmp_path / "train.csv", split="test")


@pytest.mark.parametrize("source", ["sst2", "SetFit/sst2", "hub:glue:sst2", "glue:sst2@v1"])
def test_the_hub_offline_fails_at_once(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets  # noqa: F401 - so that the clock measures the refusal and not the import

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(DataError, match=r"no copy is cached.*datasets\.load_dataset\("):
        read_all(source)
    assert time.monotonic() - began < 3


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls: list[Any] = []

    def load(name: str, config: str | None, **how: Any) -> Any:
        calls.append((name, config, how))
        features = datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"])
        )
        rows = {"text": ["a", "b", "c"], "label": [0, 1, -1]}
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(readers, "_hub_answers", lambda name: True)
    rows: Iterator[Example] = read_examples("hub:owner/name:config", split="test")
    first = Example("owner/name:config:1", {"text": "a"}, "neg")
    assert [next(rows), next(rows).label] == [first, "pos"]
    with pytest.raises(DataError, match="row 3: the label column 'label' is null"):
        next(rows)
    assert calls == [("owner/name", "config", {"split": "test", "streaming": True})]
    assert next(read_examples("owner/name@refs/convert/parquet")).label == "neg"
    assert calls[1] == (
        "owner/name",
        None,
        {"split": "train", "streaming": True, "revision": "refs/convert/parquet"},
    )


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "9"], ("9", "10")),
        (["b", "a"], ("a", "b")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1", "-1"], ("-1", "1")),
    ],
)
def test_label_names(labels: list[str], names: tuple[str, ...]) -> None:
    assert label_names(Example("a:1", {}, label) for label in labels) == names


@pytest.mark.parametrize(
    ("labels", "message"),
    [([], "no labels"), (["a", "a"], "only the label 'a'"), (["a", None], "a:1: the row has no")],
)
def test_too_few_labels(labels: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        label_names(Example(f"a:{i}", {}, label) for i, label in enumerate(labels))


def test_every_shared_task_reads(shared_data: Path) -> None:
    counts = {"rte": 277, "cb": 56, "copa": 100, "wic": 638, "wsc": 104, "winogrande": 1267}
    for name, count in counts.items():
        examples = read_all(shared_data / name / "validation.jsonl")
        assert len(examples) == count
        assert len(label_names(examples)) in (2, 3)
