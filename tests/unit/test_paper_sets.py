from __future__ import annotations

import gzip
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.errors import DataError, UsageError
from headstart.recipes.engine import data_hashes
from headstart.recipes.kinds import KINDS
from headstart.recipes.recipe import load_recipe
from headstart.recipes.stages import DataFile, marked
from headstart.tasks import readers, semeval
from headstart.tasks.example import Example
from headstart.tasks.paper_sets import PAPER_SETS, paper_set, read_paper_set
from headstart.tasks.readers import label_names, read_all, read_examples
from headstart.tasks.relabel import FIVE_TO_THREE, FIVE_TO_TWO, relabel

RESTAURANTS = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Reviews>
    <Review rid="r1">
        <sentences>
            <sentence id="r1:0">
                <text>Don&apos;t miss the caf\u00e9&#39;s sushi &amp; <![CDATA[<sake>]]>.</text>
                <Opinions>
                    <Opinion target="sushi" category="FOOD#QUALITY" polarity="positive" from="0" to="5"/>
                    <Opinion target="NULL" category="SERVICE#GENERAL" polarity="neutral" from="0" to="0"/>
                </Opinions>
            </sentence>
            <sentence id="r1:1" OutOfScope="TRUE">
                <text>MACS ARE AMAZING!!!</text>
            </sentence>
            <sentence id="r1:2">
                <text>We went for breakfast.</text>
                <Opinions/>
            </sentence>
            <sentence id="r1:3">
                <text>I will not go back.</text>
                <Opinions>
                    <Opinion target="NULL" category="RESTAURANT#GENERAL" polarity="negative"/>
                </Opinions>
            </sentence>
        </sentences>
    </Review>
</Reviews>
"""
LAPTOPS = RESTAURANTS.replace(' target="sushi"', "").replace(' target="NULL"', "")
SENTIHOOD: list[dict[str, Any]] = [
    {
        "opinions": [
            {"sentiment": "Positive", "aspect": "general", "target_entity": "LOCATION1"},
            {"sentiment": "Negative", "aspect": "price", "target_entity": "LOCATION1"},
        ],
        "id": 1979,
        "text": "  LOCATION1 is a lovely town, but parts of it can be very expensive",
    },
    {"opinions": [], "id": 2476, "text": "  I also live in LOCATION1"},
]
TREES = (
    "(4 (2 You) (4 (3 (2 (2 'll) (2 probably)) (4 (4 love) (2 it))) (2 .)))\n"
    "(2 (2 (1 -LRB-) (2 (2 co-writer\\/director) (3 -RRB-))) (2 \\*\\*\\*))\n"
    "(1 (2 1\u00a01\\/2) (1 hours))\n"
)


def write(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# SemEval


@pytest.mark.parametrize("name", ["a.xml", "a.xml.gold", "a.xml.gz"])
@pytest.mark.parametrize("chunk", [1, 7, 2**16])
def test_semeval(
    tmp_path: Path,
    name: str,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(semeval, "_CHUNK", chunk)
    caplog.set_level(logging.INFO, "headstart")
    text = "Don't miss the caf\u00e9's sushi & <sake>."
    path = write(tmp_path / name, RESTAURANTS)
    assert read_all(f"semeval16:{path}") == [
        Example(
            f"{name}:r1:0#1",
            {"text": text, "category": "FOOD#QUALITY", "target": "sushi"},
            "positive",
        ),
        Example(
            f"{name}:r1:0#2",
            {"text": text, "category": "SERVICE#GENERAL", "target": "NULL"},
            "neutral",
        ),
        Example(
            f"{name}:r1:3#1",
            {"text": "I will not go back.", "category": "RESTAURANT#GENERAL", "target": "NULL"},
            "negative",
        ),
    ]
    assert f"{name}: left out 2 sentences" in caplog.text


def test_semeval_laptops_name_no_target(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", LAPTOPS.replace("UTF-8", "UTF-16").encode("utf-16"))
    assert [set(row.fields) for row in read_all(f"semeval16:{path}")] == [{"text", "category"}] * 3


def test_semeval_ids_stay_apart_where_sentences_share_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", RESTAURANTS.replace("r1:3", "r1:0"))
    assert [row.id for row in read_all(f"semeval16:{path}")] == [
        f"a.xml:r1:0#{number}" for number in (1, 2, 3)
    ]


def test_semeval_is_streamed(tmp_path: Path) -> None:
    sentence = RESTAURANTS[RESTAURANTS.index("<sentence id") : RESTAURANTS.index("</sentences>")]
    many = RESTAURANTS.replace("</sentences>", sentence * 2000 + "</sentences>")
    rows = read_examples(f"semeval16:{write(tmp_path / 'a.xml', many[:-100])}")
    assert next(rows).label == "positive"
    with pytest.raises(DataError, match="is not valid XML"):
        list(rows)


def test_semeval_gives_back_the_shared_rows(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "semeval2016_restaurants"
    for source in ("test.jsonl", "train.jsonl.gz"):
        rows = read_all(folder / source, columns={n: n for n in ("text", "category", "target")})
        ids = read_all(folder / source, columns={"id": "id"})
        xml = ["<Reviews><Review><sentences>"]
        pairs = zip((row.fields["id"] for row in ids), rows, strict=True)
        for key, group in groupby(pairs, key=lambda pair: pair[0]):
            opinions = [row for _, row in group]
            xml += [
                f"<sentence id={quoteattr(key)}><text>{escape(opinions[0].fields['text'])}</text>"
            ]
            xml += [
                f"<Opinion category={quoteattr(row.fields['category'])} polarity='{row.label}' "
                f"target={quoteattr(row.fields['target'])}/>"
                for row in opinions
            ] + ["</sentence>"]
        path = write(tmp_path / "a.xml", "".join([*xml, "</sentences></Review></Reviews>"]))
        found = read_all(f"semeval16:{path}")
        assert len({row.id for row in found}) == len(found) in (859, 2507)
        assert [(dict(r.fields), r.label) for r in found] == [
            ({**r.fields, "text": r.fields["text"].strip()}, r.label) for r in rows
        ]


LAUGHS = (
    "<!DOCTYPE Reviews [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12))
    + "]>"
)


@pytest.mark.parametrize(
    "doctype",
    [
        LAUGHS,
        "<!DOCTYPE Reviews [<!ENTITY secret SYSTEM 'SECRET'>]>",
        "<!DOCTYPE Reviews SYSTEM 'SECRET'>",
        "<!DOCTYPE Reviews PUBLIC '-//x' 'http://127.0.0.1:9/x.dtd'>",
        "<!DOCTYPE Reviews [<!ENTITY % p SYSTEM 'SECRET'> %p;]>",
        "<!DOCTYPE Reviews>",
        "<!DOCTYPE Reviews [" + "x" * 100_000,
    ],
    ids=["laughs", "external", "dtd", "web", "parameter", "bare", "endless"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_dtd_is_refused_before_it_is_read(tmp_path: Path, doctype: str, encoding: str) -> None:
    secret = write(tmp_path / "secret.txt", "s3cr3t")
    text = RESTAURANTS.replace("UTF-8", encoding).replace("I will", "&a11;&secret; I will")
    text = text.replace("<Reviews>", doctype.replace("SECRET", secret.as_uri()) + "<Reviews>", 1)
    began = time.process_time()
    with pytest.raises(DataError, match=r"a\.xml line [12]: has a DTD .* remove it") as caught:
        read_all(f"semeval16:{write(tmp_path / 'a.xml', text.encode(encoding))}")
    assert time.process_time() - began < 1 and "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RESTAURANTS[:-20], r"line \d+: is not valid XML"),
        (RESTAURANTS.replace("</Opinions>", "", 1), "line 11: is not valid XML .mismatched tag"),
        (RESTAURANTS.replace("I will", "&secret;"), "line 20: is not valid XML .undefined entity"),
        ("", "line 1: is not valid XML .no element found"),
        ("sentence,label\nHm,1\n", "line 1: is not valid XML"),
        ("<html><body/></html>", "line 1: the root is <html>, not <Reviews>"),
        ("<sentences><sentence id='1'/></sentences>", "the root is <sentences>"),
        (RESTAURANTS.replace('"neutral"', '"conflict"'), "line 9: the polarity 'conflict' is not"),
        (RESTAURANTS.replace('"neutral"', '"Neutral"'), "did you mean 'neutral'"),
        (RESTAURANTS.replace(' polarity="negative"', ""), "line 22: the opinion has no polarity"),
        (RESTAURANTS.replace(' category="FOOD#QUALITY"', ""), "line 8: .* no category"),
        (RESTAURANTS.replace(' id="r1:0"', ""), "line 5: a <sentence> has no id"),
        (RESTAURANTS.replace("I will not go back.", ""), "line 22: the column 'text' is empty"),
        ("<Reviews><Review><Opinions><Opinion/></Opinions></Review></Reviews>", "subtask 1"),
        ("<Reviews/>", "has no rows"),
        (
            RESTAURANTS.replace("UTF-8", "utf-7"),
            "line 1: cannot be decoded .*save the file as UTF-8",
        ),
        (RESTAURANTS.replace("UTF-8", "no-such"), "line 1: cannot be decoded"),
        (RESTAURANTS.encode("cp1252"), "line 6: is not valid XML .not well-formed"),
    ],
)
def test_damaged_semeval(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path / "a.xml", content)
    with pytest.raises(DataError, match=message) as caught:
        read_all(f"semeval16:{path}")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_endless_markup_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semeval, "FIELD_LIMIT", 2**17)
    long = RESTAURANTS.replace("breakfast", "breakfast " * 100_000)
    assert len(read_all(f"semeval16:{write(tmp_path / 'a.xml', long)}")) == 3
    comment = RESTAURANTS.replace("<Review ", "<!--" + "x" * 2**20 + "--><Review ")
    with pytest.raises(DataError, match="markup of over 131,072 bytes"):
        read_all(f"semeval16:{write(tmp_path / 'a.xml', comment)}")


# SentiHood


def test_sentihood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headstart")
    path = write(tmp_path / "a.json", json.dumps(SENTIHOOD, indent=4))
    text = "LOCATION1 is a lovely town, but parts of it can be very expensive"
    fields = {"text": text, "target": "LOCATION1"}
    assert read_all(f"sentihood:{path}") == [
        Example("a.json:1979#1", {**fields, "aspect": "general"}, "positive"),
        Example("a.json:1979#2", {**fields, "aspect": "price"}, "negative"),
    ]
    assert "left out 1 of 2 sentences" in caplog.text


def spoilt(change: Callable[[Any], object]) -> str:
    items = json.loads(json.dumps(SENTIHOOD))
    change(items)
    return json.dumps(items, indent=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(SENTIHOOD[0]), "expected a JSON list of sentences, not dict"),
        ("null", "expected a JSON list of sentences, not NoneType"),
        (json.dumps(SENTIHOOD, indent=4)[:-9], "is not valid JSON .*line 21"),
        ("[" * 100_000, "is not valid JSON"),
        ("[" + "9" * 5000 + "]", "is not valid JSON"),
        ("[]", "has no rows"),
        ("[3]", r"item 1: the sentence is no object \{\.\.\.\}, but 3"),
        (spoilt(lambda items: items[1].pop("opinions")), "item 2: the sentence has no 'opinions'"),
        (
            spoilt(lambda items: items[0].update(text=None)),
            "item 1: the sentence's 'text' is 'None'",
        ),
        (spoilt(lambda items: items[0].update(opinions=[3])), "item 1: the opinion is no object"),
        (
            spoilt(lambda items: items[0]["opinions"][1].update(sentiment="Postive")),
            "item 1: the sentiment 'Postive' is not one of .*did you mean 'Positive'",
        ),
        (spoilt(lambda items: items[0]["opinions"][0].pop("aspect")), "has no 'aspect'"),
        (b"\xff", "line 1: is not UTF-8"),
    ],
)
def test_damaged_sentihood(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=message) as caught:
        read_all(f"sentihood:{path}")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# Zhang et al.


def zhang_line(*cells: str) -> str:
    return ",".join('"' + c.replace('"', '""').replace("\n", "\\n") + '"' for c in cells) + "\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 5).map(str),
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r\\"), min_size=1).filter(
                str.strip
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_zhang_wrote_is_read(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = write(tmp_path / "train.csv", "".join(zhang_line(*row) for row in rows))
    found = read_all(f"zhang:{path}")
    assert [(row.label, row.fields) for row in found] == [(y, {"text": t}) for y, t in rows]


def test_zhang_with_titles(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", '"3","Hm","Say \\""yes\\"".\\nTwice, C:\\temp"\n"1","Bad","No."\n'
    )
    assert read_all(f"zhang:{path}")[0] == Example(
        "a.csv:1", {"title": "Hm", "text": 'Say "yes".\nTwice, C:\\temp'}, "3"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,text\n1,Hm\n", "line 1: 'label' is no class number.* without 'zhang:'"),
        ("text,label\nHm,1\n", "line 1: 'text' is no class number"),
        ('"1"\n', "line 1: has 1 columns; expected class,text or class,title,text"),
        ('"1","a","b","c"\n', "line 1: has 4 columns; expected class,text"),
        ('"1","a"\n"1","a","b"\n', "line 2: has 3 columns; expected label,text"),
        ('"1","a"\n"x","a"\n', "line 2: 'x' is no class number"),
        ('"1","a\n', "line 1: cannot be read"),
        ('"1"," "\n', "line 1: the column 'text' is empty"),
        ("", "has no rows"),
    ],
)
def test_damaged_zhang(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_all(f"zhang:{write(tmp_path / 'a.csv', content)}")


# SST


def test_trees(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.txt", TREES)
    assert [(row.fields["text"], row.label) for row in read_all(f"trees:{path}")] == [
        ("You 'll probably love it .", "4"),
        ("( co-writer/director ) ***", "2"),
        ("1\u00a01/2 hours", "1"),
    ]


Tree = tuple[str, list[str], str]
leaves = st.tuples(st.integers(0, 4), st.text("ab'.,\u00e9\u00a0", min_size=1)).map(
    lambda leaf: (f"({leaf[0]} {leaf[1]})", [leaf[1]], str(leaf[0]))
)
trees = st.recursive(
    leaves,
    lambda kids: st.tuples(st.integers(0, 4), kids, kids).map(
        lambda node: (
            f"({node[0]} {node[1][0]} {node[2][0]})",
            node[1][1] + node[2][1],
            str(node[0]),
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(trees.filter(lambda tree: any(map(str.strip, tree[1]))), min_size=1, max_size=3))
def test_any_tree_gives_its_words_and_its_roots_label(tmp_path: Path, forest: list[Tree]) -> None:
    path = write(tmp_path / "a.txt", "".join(f"{text}\n" for text, _, _ in forest))
    found = [(row.fields["text"], row.label) for row in read_all(f"trees:{path}")]
    assert found == [(" ".join(words), label) for _, words, label in forest]


@pytest.mark.parametrize(
    "line",
    [
        "(3 (2 It) (4 works)",
        "(3 (2 It) (4 works)))",
        "(3 It) (2 works)",
        "(5 (2 It) (4 works))",
        "(3 )",
        "3 (2 It)",
        "It works .",
        "__label__3\tIt works .",
        "(3 (2 It works))",
        "(3 (It) (4 works))",
    ],
)
def test_damaged_trees(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.txt", f"(3 (2 It) (4 works))\n{line}\n")
    with pytest.raises(DataError, match=r"a\.txt line 2: is no sentiment tree"):
        read_all(f"trees:{path}")


def test_fasttext(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tsv", '__label__5\tIt \'s "great" .\n__label__very_bad  No , no .\n\n'
    )
    assert read_all(f"fasttext:{path}") == [
        Example("a.tsv:1", {"text": 'It \'s "great" .'}, "5"),
        Example("a.tsv:2", {"text": "No , no ."}, "very_bad"),
    ]
    for bad in ("It works .", "__label__5", "__label__ \t", "__label__5 __label__4 Hm", "5\tHm"):
        with pytest.raises(
            DataError, match=r"a\.tsv line 2: .*expected one, as in '__label__5 text'"
        ):
            read_all(f"fasttext:{write(tmp_path / 'a.tsv', f'__label__1 Hm{chr(10)}{bad}')}")


# Classes


def test_relabel_keeps_order_and_counts_what_it_leaves_out() -> None:
    rows = [Example(f"a:{i}", {"text": "x"}, str(i % 5)) for i in range(12)]
    tally: Counter[str] = Counter()
    two = list(relabel(rows, FIVE_TO_TWO, tally))
    assert [row.id for row in two] == [f"a:{i}" for i in range(12) if i % 5 != 2]
    assert tally == {"2": 2} and len(two) + tally.total() == len(rows)
    assert label_names(relabel(rows, FIVE_TO_THREE)) == ("negative", "neutral", "positive")
    assert list(relabel(rows, {str(k): str(k) for k in range(5)})) == rows


def test_relabel_refuses_what_it_cannot_map() -> None:
    rows = [Example("a:1", {}, "1"), Example("a:2", {}, "postive"), Example("a:3", {})]
    mapping = {"1": "1", "positive": None}
    moved = relabel(rows, mapping)
    assert next(moved).label == "1"
    with pytest.raises(DataError, match=r"a:2: the label 'postive' .* did you mean 'positive'"):
        next(moved)
    with pytest.raises(DataError, match="a:3: the row has no label"):
        list(relabel(rows[2:], mapping))


# The catalogue


FILES = {
    "yelp5": (
        "train.csv",
        zhang_line("1", "Terrible food.") + zhang_line("5", 'A "wow".\nReally.'),
    ),
    "sst5": ("train.txt", TREES),
    "sst2": ("train.txt.gz", TREES),
    "amazon5": (
        "train.csv",
        zhang_line("2", "Not good", "Firstly, no.") + zhang_line("5", "", "Ok."),
    ),
    "amazon2": ("train.csv", zhang_line("1", "Bad!", "No.") + zhang_line("2", "Good", "")),
    "sentihood": ("sentihood-train.json", json.dumps(SENTIHOOD)),
    "semeval_r": ("ABSA16_Restaurants_Train_SB1_v2.xml", RESTAURANTS),
    "semeval_l": ("ABSA16_Laptops_Train_SB1_v2.xml", LAPTOPS),
    "openwebtext": ("part-1.txt", "One document.\nAnother one.\n"),
}
FOUND = {
    "yelp5": [("Terrible food.", "0"), ('A "wow".\nReally.', "4")],
    "sst5": [("You 'll probably love it .", "4"), ("( co-writer/director ) ***", "2")],
    "sst2": [("You 'll probably love it .", "1"), ("1\u00a01/2 hours", "0")],
    "amazon5": [("Not good. Firstly, no.", "1"), ("Ok.", "4")],
    "amazon2": [("Bad! No.", "0"), ("Good", "1")],
    "sentihood": [(SENTIHOOD[0]["text"].strip(), y) for y in ("positive", "negative")],
    "semeval_r": [
        ("Don't miss the caf\u00e9's sushi & <sake>.", y) for y in ("positive", "neutral")
    ],
    "semeval_l": [
        ("Don't miss the caf\u00e9's sushi & <sake>.", y) for y in ("positive", "neutral")
    ],
    "openwebtext": [("One document.", None), ("Another one.", None)],
}


@pytest.mark.parametrize("name", PAPER_SETS)
def test_every_set_reads_from_its_files(tmp_path: Path, name: str) -> None:
    file, content = FILES[name]
    write(tmp_path / file, content)
    tally: Counter[str] = Counter()
    rows = list(read_paper_set(name, "train", tmp_path, tally))
    assert [(row.fields["text"], row.label) for row in rows[:2]] == FOUND[name]
    assert all(row.id.startswith(f"{file}:") for row in rows)
    assert tally == ({"2": 1} if name == "sst2" else {})
    if rows[0].label is not None:
        task = paper_set(name).task()
        assert {row.label for row in rows} <= set(task.labels)
        rendered = task.render(rows[0])
        assert rendered.candidates[rendered.target or 0] == task.words[rendered.target or 0]
        assert rendered.source.startswith(f"{rows[0].fields['text']} It was")


@pytest.mark.parametrize("name", PAPER_SETS)
def test_every_entry_is_whole(name: str) -> None:
    entry = PAPER_SETS[name]
    for place in filter(None, (entry.files, entry.hub)):
        assert {new for new in place.classes.values() if new is not None} == set(entry.words)
        assert "train" in place.splits and set(place.splits) <= {"train", "validation", "test"}
    assert entry.licence and len(entry.words) == {"5": 5, "2": 2}.get(name[-1], len(entry.words))
    if entry.words:
        assert entry.task().labels == tuple(entry.words)
    else:
        with pytest.raises(UsageError, match="OpenWebText has no labels"):
            entry.task()


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        write(tmp_path / f"part-{number}.jsonl", json.dumps({"text": f"Document {number}."}))
    write(tmp_path / "notes.txt", "not read, since there are JSON lines")
    assert [row.id for row in read_paper_set("openwebtext", folder=tmp_path)] == [
        f"part-{number}.jsonl:1" for number in (1, 2, 3)
    ]


HUB_ROWS: dict[str, tuple[dict[str, list[Any]], list[tuple[str, str | None]]]] = {
    "yelp5": (
        {"label": ["1 star", "2 star"], "text": ["A \\nB", '\\"C\\"']},
        [("A \nB", "0"), ('"C"', "1")],
    ),
    "sst2": ({"text": ["a", "b"], "label": [0, 1]}, [("a", "0"), ("b", "1")]),
    "amazon5": (
        {"class_index": [3, 5], "review_title": [None, "Wow"], "review_text": ["a", "b"]},
        [("a", "2"), ("Wow. b", "4")],
    ),
    "amazon2": (
        {"label": ["negative", "positive"], "title": ["A!", ""], "content": ["a", "b"]},
        [("A! a", "0"), ("b", "1")],
    ),
    "sentihood": (
        {key: [item[key] for item in SENTIHOOD] for key in ("id", "text", "opinions")},
        FOUND["sentihood"],
    ),
    "openwebtext": ({"text": ["One.", "Two."]}, [("One.", None), ("Two.", None)]),
}


@pytest.mark.parametrize("name", HUB_ROWS)
def test_a_set_reads_from_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(source: str, config: str | None, **how: Any) -> Any:
        asked.append((source, how["split"], how.get("revision")))
        return datasets.Dataset.from_dict(HUB_ROWS[name][0])

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(readers, "_hub_answers", lambda name: True)
    rows = list(read_paper_set(name))
    assert [(row.fields["text"], row.label) for row in rows] == HUB_ROWS[name][1]
    hub = PAPER_SETS[name].hub
    assert hub is not None
    source, _, revision = hub.source.partition("@")
    assert asked == [(source, "train", revision or None)]


def test_a_changed_layout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"sentence": ["a"], "label": [0]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: rows)
    monkeypatch.setattr(readers, "_hub_answers", lambda name: True)
    with pytest.raises(
        DataError, match=r"row 1: there is no column 'text' .columns: sentence, label"
    ):
        list(read_paper_set("sst2"))
    write(tmp_path / "train.csv", zhang_line("6", "a", "b"))
    with pytest.raises(DataError, match=r"train\.csv:1: the label '6' is not among"):
        list(read_paper_set("amazon5", folder=tmp_path))
    write(tmp_path / "train.csv", "")
    with pytest.raises(DataError, match=r"train\.csv has no rows"):
        list(read_paper_set("amazon5", folder=tmp_path))


def test_wrong_requests(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no set 'sst-5'.* did you mean 'sst5'"):
        list(read_paper_set("sst-5"))
    with pytest.raises(UsageError, match="Yelp-5 has no split 'validation'; it has train, test"):
        list(read_paper_set("yelp5", "validation", tmp_path))
    with pytest.raises(
        UsageError, match=r"name a folder with ABSA16_Rest.* or EN_REST.*_gold\.xml"
    ):
        list(read_paper_set("semeval_r"))
    with pytest.raises(DataError, match=r"holds no dev\.txt, a file of SST-5"):
        list(read_paper_set("sst5", "validation", tmp_path))
    with pytest.raises(DataError, match="is no folder"):
        list(read_paper_set("sst5", "train", tmp_path / "gone"))


PAPER_RECIPES = sorted((Path(__file__).parents[2] / "recipes/metapt/paper").glob("*.yaml"))


@pytest.mark.parametrize("path", PAPER_RECIPES, ids=lambda path: path.stem)
def test_the_paper_recipes_read_their_files(path: Path, tmp_path: Path) -> None:
    """SentiHood and SemEval are on the hub in no usable form: the recipes read the authors' files."""
    recipe = load_recipe(path, KINDS, data=tmp_path)
    files = {file for stage in recipe.stages for _, file in marked(stage.settings, DataFile)}
    local = [file for file in files if not file.is_on_hub]
    assert len(local) == 6
    for file in local:
        corpus, _, place = file.partition(":")
        content = {"semeval16": RESTAURANTS, "sentihood": json.dumps(SENTIHOOD)}[corpus]
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write(tmp_path / place, content)
    targets = recipe.stage("tuned").settings.targets
    for name in ("SentiHood", "SemEval-r", "SemEval-l"):
        rows = targets[name].read(recipe.source(targets[name].train))
        assert rows and {row.label for row in rows} <= set(targets[name].words)
    rivals = recipe.stage("rivals")
    assert all(
        value
        for file, value in data_hashes(recipe, [rivals]).items()
        if not DataFile(file).is_on_hub
    )
