"""A prompt on disk round-trips bit for bit, and a file that lies is refused with a reason."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import save_file

from headstart.errors import PromptFileError, StorageError
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import (
    TENSOR,
    Fingerprint,
    PromptCard,
    load_prompt,
    save_prompt,
    write_whole,
)
from headstart.prompts.prompt import SoftPrompt

MARK = Fingerprint(model_type="llama", hidden_size=4, weights="w" * 8, tokenizer="t" * 8)


def saved(folder, vectors=None):
    prompt = SoftPrompt.of(torch.arange(12.0).reshape(3, 4) if vectors is None else vectors)
    card = PromptCard(
        base_model="m",
        fingerprint=MARK,
        length=prompt.spec.length,
        hidden_size=prompt.spec.hidden_size,
    )
    return prompt, save_prompt(folder, prompt, card)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays("float32", st.tuples(st.integers(1, 6), st.just(4)), elements=FINITE))
@settings(max_examples=25, deadline=None)
def test_a_prompt_round_trips_bit_for_bit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("prompt")
    prompt, card = saved(folder, torch.from_numpy(values))
    again, card_again = load_prompt(folder, MARK)
    assert torch.equal(prompt.vectors_PH, again.vectors_PH)
    assert card == card_again


def test_the_folder_holds_two_files_and_no_scratch(tmp_path):
    saved(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "prompt.safetensors"]


def edit(folder, **changes):
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_a_bit(folder):
    path = folder / "prompt.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def with_nan(folder):
    vectors = torch.zeros(3, 4)
    vectors[1, 2] = torch.nan
    save_file({TENSOR: vectors}, folder / "prompt.safetensors")


LIES = {
    "no vectors": (lambda f: (f / "prompt.safetensors").unlink(), "missing"),
    "flipped bit": (flip_a_bit, "hash"),
    "NaN": (with_nan, "NaN or infinite"),
    "not safetensors": (
        lambda f: (f / "prompt.safetensors").write_bytes(b"\x80\x04pickle"),
        "not a readable",
    ),
    "huge header": (
        lambda f: (f / "prompt.safetensors").write_bytes((2**63 - 1).to_bytes(8, "little")),
        "not a readable",
    ),
    "wrong shape": (lambda f: edit(f, length=5), "was expected from the card"),
    "wrong dtype": (
        lambda f: save_file({TENSOR: torch.zeros(3, 4).half()}, f / "prompt.safetensors"),
        "F16",
    ),
    "wrong tensor name": (
        lambda f: save_file({"weights": torch.zeros(3, 4)}, f / "prompt.safetensors"),
        "weights",
    ),
    "unknown key": (lambda f: edit(f, colour="red"), "colour"),
    "broken json": (lambda f: (f / "card.json").write_text("{"), "json"),
    "newer format": (lambda f: edit(f, format=99), "newer"),
    "no card": (lambda f: (f / "card.json").unlink(), "no card.json"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_in_one_line(tmp_path, lie):
    saved(tmp_path)
    spoil, reason = LIES[lie]
    spoil(tmp_path)
    with pytest.raises(PromptFileError, match=reason) as caught:
        load_prompt(tmp_path, MARK)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("key", ["weights", "tokenizer"])
def test_a_strangers_fingerprint_is_refused(tmp_path, key):
    saved(tmp_path)
    with pytest.raises(PromptFileError, match=f"made for base model 'm'.*{key}"):
        load_prompt(tmp_path, MARK.model_copy(update={key: "other"}))


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_bank_gives_back_each_prompt_right_aligned(lengths):
    prompts = [torch.full((length, 4), float(n + 1)) for n, length in enumerate(lengths)]
    bank = PromptBank.stack(prompts)
    taken = bank.take(torch.arange(len(prompts))).only
    rows, mask = taken.vectors_NPX, taken.mask_NP
    for n, prompt in enumerate(prompts):
        assert torch.equal(rows[n][mask[n]], prompt)
        assert mask[n].tolist() == sorted(mask[n].tolist())


def test_a_bank_of_unlike_models_is_refused():
    with pytest.raises(ValueError, match="one size of vectors"):
        PromptBank.stack([torch.zeros(1, 4), torch.zeros(1, 8)])
