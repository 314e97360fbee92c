"""Two seeded random models of a few thousand weights with a byte tokenizer, for tests and examples.

They know nothing, but everything a real model does works on them: grouped-query attention (causal),
and for T5 ``d_kv x heads != d_model`` and a decoder deeper than the encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

SPECIAL = ("<pad>", "</s>", "<s>", "<extra_id_0>")


def byte_tokenizer(add_eos: bool) -> Any:
    """Build a tokenizer with one token a byte after four special ones.

    Example:
        >>> [len(byte_tokenizer(add_eos)("hi")["input_ids"]) for add_eos in (False, True)]
        [2, 3]
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    if add_eos:
        core.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    )


def tiny_causal(**changes: Any) -> tuple[Any, Any]:
    """Build ``tiny-causal``: a two-layer Llama with two key/value heads for four query heads.

    Args:
        **changes: Fields of ``LlamaConfig`` to set otherwise.

    Returns:
        The network and its tokenizer.

    Example:
        >>> network, _ = tiny_causal()
        >>> sum(p.numel() for p in network.parameters()) < 10_000
        True
    """
    settings: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + 256,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    return _seeded(LlamaForCausalLM, LlamaConfig(**(settings | changes))), byte_tokenizer(False)


def tiny_seq2seq(**changes: Any) -> tuple[Any, Any]:
    """Build ``tiny-seq2seq``: a T5 v1.1 with two encoder and three decoder layers, 4 heads of 6 for 16.

    Args:
        **changes: Fields of ``T5Config`` to set otherwise.

    Returns:
        The network and its tokenizer.

    Example:
        >>> network, _ = tiny_seq2seq()
        >>> network.config.num_decoder_layers
        3
    """
    settings: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + 256,
        "d_model": 16,
        "d_kv": 6,
        "d_ff": 32,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }
    network = _seeded(T5ForConditionalGeneration, T5Config(**(settings | changes)))
    return network, byte_tokenizer(True)


def _seeded(network_class: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network_class(config).eval()
