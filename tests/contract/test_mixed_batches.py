"""The one idea, held: a row of a mixed batch is that row alone, on every kind of base model."""

from copy import deepcopy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    MistralConfig,
    MT5Config,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from headstart.models.base import Limits
from headstart.models.batches import score_all
from headstart.models.load import wrap
from headstart.models.tiny import byte_tokenizer, tiny_causal, tiny_seq2seq
from headstart.ops.scores import candidate_cross_entropy
from headstart.prompts.bank import NO_PROMPT, PromptBank
from headstart.tasks.example import ANSWER_SLOT, Rendered

LENGTHS = (5, 7, 20)
GROUPED = {
    "vocab_size": 260,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
T5_SHAPE = {
    "vocab_size": 260,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def from_config(config, encoder_decoder=False):
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    return auto.from_config(config).eval(), byte_tokenizer(encoder_decoder)


BUILDERS = {
    "tiny-causal": tiny_causal,
    "tiny-seq2seq": tiny_seq2seq,
    "qwen2": lambda: from_config(Qwen2Config(**GROUPED)),
    "qwen3": lambda: from_config(Qwen3Config(**GROUPED, head_dim=4)),
    "mistral": lambda: from_config(MistralConfig(**GROUPED, sliding_window=None)),
    "gpt2": lambda: from_config(
        GPT2Config(
            vocab_size=260, n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.3
        )
    ),
    "t5-v1.0": lambda: from_config(T5Config(**T5_SHAPE, feed_forward_proj="relu"), True),
    "mt5": lambda: from_config(MT5Config(**T5_SHAPE, feed_forward_proj="gated-gelu"), True),
}


@pytest.fixture(params=BUILDERS, scope="module")
def model(request):
    return wrap(*BUILDERS[request.param](), request.param, {})


@pytest.fixture(scope="module")
def prompts(model):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, model.hidden_size, generator=generator) for length in LENGTHS]


def rows_of(model, eos=False):
    """Rows of unlike lengths, with one-token and many-token answers, and unlike numbers of them."""
    asked = [
        ("I like it. It was", ("bad", "good as gold")),
        ("No", ("bad", "good", "neither")),
        ("Nothing to see here, move along, quite a long text it is", ("a", "b")),
        ("Hm", ("one", "two")),
    ]
    return model.encode(
        [
            Rendered(str(i), f"{text}{ANSWER_SLOT}", words, 1)
            for i, (text, words) in enumerate(asked)
        ],
        Limits(eos=eos),
    )


@pytest.mark.parametrize("eos", [False, True])
def test_a_mixed_batch_equals_each_row_alone(model, prompts, eos):
    rows = rows_of(model, eos)
    chosen = [0, NO_PROMPT, 2, 1]
    mixed, lengths = model.score(rows, PromptBank.stack(prompts), torch.tensor(chosen))
    for b, (row, n) in enumerate(zip(rows, chosen, strict=True)):
        bank = None if n == NO_PROMPT else PromptBank.stack([prompts[n]])
        alone, count = model.score([row], bank, torch.tensor([0]))
        width = len(row.candidates)
        assert lengths[b, :width].tolist() == count[0].tolist()
        # summed log-probabilities of up to 13 tokens: the tolerance is per token
        assert torch.allclose(mixed[b, :width] / lengths[b, :width], alone[0] / count[0], atol=1e-5)


def test_shared_source_equals_scoring_each_candidate_as_its_own_row(model, prompts):
    """The oracle is transformers itself: plain ids through the plain forward, one candidate a time."""
    rows = rows_of(model)
    scored, _ = model.score(rows, None, None)
    for b, row in enumerate(rows):
        for c, answer in enumerate(row.candidates):
            assert scored[b, c].item() == pytest.approx(
                plain_logprob(model, row, answer), abs=1e-5 * len(answer), rel=1e-5
            )


def plain_logprob(model, row, answer):
    source, answer_ids = torch.tensor([row.source]), torch.tensor(answer)
    if model.kind == "causal":
        whole = torch.cat([source, answer_ids[None]], dim=1)
        logits = model.network(input_ids=whole).logits[0, len(row.source) - 1 : -1]
    else:
        start = (model.network.config.decoder_start_token_id, *row.lead)
        decoder = torch.tensor([start + answer[:-1]])
        logits = model.network(input_ids=source, decoder_input_ids=decoder).logits[
            0, len(start) - 1 :
        ]
    return logits.log_softmax(-1).gather(1, answer_ids[:, None]).sum().item()


def test_a_prompt_made_of_a_texts_embeddings_equals_that_text(model):
    """A soft prompt stands where its text would: in place, position and distance."""
    prefix, text = "Once upon a time ", "there was. It was"
    head, tail = (
        model.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prefix, text)
    )
    row = rows_of(model)[0]
    long = type(row)("x", (*head, *tail), row.candidates, lead=row.lead)
    short = type(row)("x", tuple(tail), row.candidates, lead=row.lead)
    with_text, _ = model.score([long], None, None)
    with_prompt, _ = model.score(
        [short], PromptBank.stack([model.embed(prefix)]), torch.tensor([0])
    )
    assert torch.allclose(with_text, with_prompt, atol=1e-4)


def test_the_gradient_of_a_mixed_batch_is_each_prompts_own(model, prompts):
    rows = rows_of(model)
    chosen = [0, 1, 2, 1]

    def gradients(pick):
        leaves = [prompt.clone().requires_grad_() for prompt in prompts]
        logprob, length = model.score(
            [rows[i] for i in pick],
            PromptBank.stack(leaves),
            torch.tensor([chosen[i] for i in pick]),
        )
        scores = logprob.masked_fill(length == 0, -torch.inf)
        candidate_cross_entropy(scores, torch.ones(len(pick), dtype=torch.long)).sum().backward()
        return [leaf.grad for leaf in leaves]

    together = gradients(range(4))
    for n in range(len(prompts)):
        alone = gradients([i for i in range(4) if chosen[i] == n])[n]
        assert torch.allclose(together[n], alone, atol=1e-5 * max(1.0, alone.abs().max().item()))
        assert alone.abs().max() > 0


def test_score_all_returns_rows_in_order_whatever_the_groups(model, prompts, monkeypatch):
    rows = rows_of(model)
    bank = PromptBank.stack(prompts)
    whole, _ = score_all(model, rows, bank, [0, 1, 2, 0])
    monkeypatch.setattr("headstart.models.batches.by_length", lambda sizes: [[3], [1], [0], [2]])
    singles, _ = score_all(model, rows, bank, [0, 1, 2, 0])
    assert torch.allclose(whole, singles, atol=1e-3)


def test_prompts_run_once_score_as_prompts_run_with_every_row(model, prompts):
    """Prefilled, a prompt is keys and values for a causal model, and itself for an encoder-decoder."""
    rows, bank = rows_of(model), PromptBank.stack(prompts)
    shared = model.prefill(bank)
    assert list(shared.stacks) == ["deep" if model.kind == "causal" else "shallow"]
    assert model.prefill(shared) is shared
    other = deepcopy(model)
    other.__dict__.pop("places", None)  # as in a process that has run no prompt itself
    assert torch.equal(
        model.score(rows, shared, torch.tensor([0, 0, 2, 1]))[0],
        other.score(rows, shared, torch.tensor([0, 0, 2, 1]))[0],
    )
    chosen = torch.tensor([0, NO_PROMPT, 2, 1])
    expected, found = (model.score(rows, each, chosen)[0] for each in (bank, shared))
    assert torch.equal(expected, found)


def test_a_prefilled_row_equals_embeddings_in_front_of_its_text(model, prompts):
    """The oracle is one plain forward over prompt and text together."""
    if model.kind != "causal":
        pytest.skip("an encoder reads prompt and text together anyway")
    row, prompt_PH = rows_of(model)[1], prompts[0]
    embed = model.network.get_input_embeddings()
    for c, answer in enumerate(row.candidates):
        text_TH = embed(torch.tensor([*row.source, *answer]))
        logits = model.network(inputs_embeds=torch.cat([prompt_PH, text_TH])[None]).logits[0]
        logprobs = logits[-len(answer) - 1 : -1].log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(answer)[:, None]).sum()
        found, _ = model.score([row], PromptBank.stack([prompt_PH]), torch.tensor([0]))
        assert torch.allclose(found[0, c], expected, atol=1e-4)


def test_scoring_leaves_the_base_model_as_it_was(model, prompts):
    before = model.fingerprint()
    model.score(rows_of(model), PromptBank.stack(prompts), torch.tensor([0, 1, 2, 0]))
    assert model.fingerprint() == before
