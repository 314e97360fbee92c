from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import TemplateError
from headstart.tasks.example import ANSWER_SLOT, Example
from headstart.tasks.verbalizer import default_template, label_words, parse_label_words

plain = st.text("abc XYZ019", min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(plain, plain, min_size=1))
def test_label_words_read_back(words: dict[str, str]) -> None:
    assert parse_label_words(",".join(f"{k}={v}" for k, v in words.items())) == words


@given(st.lists(plain, min_size=2, unique=True))
def test_given_words_come_in_the_labels_order(labels: list[str]) -> None:
    given_words = {label: f"w{i}" for i, label in enumerate(labels)}
    assert label_words(labels, given_words) == tuple(f"w{i}" for i in range(len(labels)))


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("shipping_delay", "shipping delay"),
        ("Sci/Tech", "sci/tech"),
        ("TECH", "tech"),
        ("CamelCase", "camel case"),
        ("HTTPError", "http error"),
        ("not-ok", "not ok"),
        ("0", "0"),
        ("-1", "-1"),
        ("2-3", "2-3"),
        ("très_bien", "très bien"),
    ],
)
def test_names_are_spelled_out(label: str, word: str) -> None:
    assert label_words([label]) == (word,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "not of the form label=word"),
        ("0=", "not of the form"),
        ("=great", "not of the form"),
        ("0=a,,1=b", "not of the form"),
        ("0=a,0=b", "comes twice"),
        ("", "empty"),
        ('"0=a', "cannot be read"),
    ],
)
def test_broken_label_words(text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        parse_label_words(text)


def test_commas_in_words() -> None:
    assert parse_label_words(r'0=no\, thanks, "1=yes, please",2=a=b') == {
        "0": "no, thanks",
        "1": "yes, please",
        "2": "a=b",
    }


@pytest.mark.parametrize(
    ("given_words", "words"),
    [
        ({"positive": "good"}, r"no word for the label\(s\) negative"),
        ({"positive": "good", "negativ": "bad"}, "did you mean 'negative'"),
        ({"positive": "good", "negative": "good"}, "share the word 'good'"),
        ({"positive": "good", "negative": " "}, r"no word for the label\(s\) negative"),
    ],
)
def test_words_that_do_not_fit(given_words: dict[str, str], words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        label_words(["positive", "negative"], given_words)


def test_names_that_spell_alike_are_refused() -> None:
    with pytest.raises(TemplateError, match="share the word 'not ok'"):
        label_words(["not_ok", "notOk"])


def test_default_templates() -> None:
    example = Example("a:1", {"text": "Lovely.", "title": "Hm"})
    one, two = default_template(["text"]), default_template(["title", "text"])
    assert one.fields == {"text"}
    assert two.fields == {"title", "text"}
    assert one.render(example, ["a", "b"]).source == f"Lovely.\nLabel:{ANSWER_SLOT}"
    expected = f"title: Hm\ntext: Lovely.\nAnswer:{ANSWER_SLOT}"
    assert two.render(example, ["a", "b"]).source == expected


@pytest.mark.parametrize("name", ["review body", "answer", "label", "not", "true", "range", "a-b"])
def test_field_names_that_cannot_stand_in_a_template(name: str) -> None:
    with pytest.raises(TemplateError, match="read it under another"):
        default_template([name])


def test_no_field_at_all() -> None:
    with pytest.raises(TemplateError, match="no field"):
        default_template([])
