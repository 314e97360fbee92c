"""Where the answer goes, what is cut, and what is refused, for both kinds of model."""

import pytest

from headstart.errors import DataError, TemplateError
from headstart.models.base import Limits
from headstart.models.load import load_model
from headstart.tasks.example import ANSWER_SLOT, Example, Rendered
from headstart.tasks.template import Template


@pytest.fixture(scope="module")
def causal():
    return load_model("tiny-causal")


@pytest.fixture(scope="module")
def seq2seq():
    return load_model("tiny-seq2seq")


def words(model, tokens):
    return model.tokenizer.decode(tokens)


def test_a_causal_answer_follows_a_space_unless_one_is_there(causal):
    spaced, broken = causal.encode(
        [
            Rendered("a", f"It was{ANSWER_SLOT}", ("bad", "so good")),
            Rendered("b", f"It was\n{ANSWER_SLOT}", ("bad",)),
        ],
        Limits(),
    )
    assert [words(causal, answer) for answer in spaced.candidates] == [" bad", " so good"]
    assert words(causal, broken.candidates[0]) == "bad"


def test_source_and_answer_tokens_are_those_of_the_whole_text(causal):
    (row,) = causal.encode([Rendered("a", f"It was{ANSWER_SLOT}", ("so good",))], Limits())
    whole = causal.tokenizer("It was so good")["input_ids"]
    assert [*row.source, *row.candidates[0]] == whole


def test_a_slot_becomes_t5s_sentinel_and_opens_the_decoder(seq2seq):
    slot, plain = seq2seq.encode(
        [
            Rendered("a", f"It was{ANSWER_SLOT}, she said", ("bad",)),
            Rendered("b", "Good?", ("bad",)),
        ],
        Limits(),
    )
    sentinel = seq2seq.tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert sentinel in slot.source and slot.lead == (sentinel,)
    assert sentinel not in plain.source and plain.lead == ()
    assert slot.source[-1] == plain.source[-1] == seq2seq.tokenizer.eos_token_id


def test_eos_is_scored_when_asked_for(causal, seq2seq):
    for model in (causal, seq2seq):
        (row,) = model.encode([Rendered("a", f"It{ANSWER_SLOT}", ("bad",))], Limits(eos=True))
        assert row.candidates[0][-1] == model.tokenizer.eos_token_id


def test_words_after_the_slot_are_refused_for_a_causal_model(causal):
    with pytest.raises(TemplateError, match="goes on after the answer"):
        causal.encode([Rendered("a", f"It was{ANSWER_SLOT} to me", ("bad",))], Limits())


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_truncation_takes_the_field_and_never_the_template(name):
    model = load_model(name)
    template = Template("Review: {{ text }} It was {{ answer }}")
    rendered = template.render(Example("a", {"text": "very " * 50}), ["bad"])
    (row,) = model.encode([rendered], Limits(max_length=60, reserve=5))
    read = words(model, row.source)
    assert read.startswith("Review: very very")
    assert "It was" in read
    assert len(row.source) + 5 <= 60
    assert row.truncated > 0


def test_a_text_longer_than_the_model_is_an_error_with_a_way_out(causal):
    with pytest.raises(DataError, match=r"a:3: .* tokens .*--max-length") as caught:
        causal.encode([Rendered("a:3", "x" * 600 + ANSWER_SLOT, ("bad",))], Limits(reserve=20))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
@pytest.mark.parametrize("limit, line", [(8, "prompt and answers alone"), (30, "no room for text")])
def test_a_limit_that_leaves_no_room_is_an_error(name, limit, line):
    rendered = Template("A long question about {{ text }} is {{ answer }}").render(
        Example("a", {"text": "hello"}), ["bad"]
    )
    with pytest.raises(DataError, match=line) as caught:
        load_model(name).encode([rendered], Limits(max_length=limit, reserve=20))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_several_fields_share_the_cut_and_the_question_stays(name):
    model = load_model(name)
    template = Template("{{ premise }} Q {{ hypothesis }} true or false? {{ answer }}")
    example = Example("a", {"premise": "p" * 40, "hypothesis": "h" * 35})
    (row,) = model.encode([template.render(example, ["yes"])], Limits(max_length=45))
    read = words(model, row.source)
    assert len(row.source) <= 45
    assert " Q h" in read and "true or false?" in read and read.startswith("ppp")
    assert abs(read.count("p") - read.count("h")) <= 1
    if model.kind == "seq2seq":
        assert "<extra_id_0>" in read
        assert row.source[-1] == model.tokenizer.eos_token_id


def test_a_template_that_changes_its_field_is_cut_before_the_slot(seq2seq):
    rendered = Template("{{ text | upper }} {{ answer }}").render(
        Example("a", {"text": "long " * 20}), ["yes"]
    )
    (row,) = seq2seq.encode([rendered], Limits(max_length=20))
    assert len(row.source) == 20
    assert words(seq2seq, row.source).startswith("LONG LONG")
    assert "<extra_id_0>" in words(seq2seq, row.source)


def test_a_label_word_without_letters_is_refused(causal, seq2seq):
    for model in (causal, seq2seq):
        with pytest.raises(TemplateError, match="no tokens"):
            model.encode([Rendered("a", "hello" + ANSWER_SLOT, (" ",))], Limits())
