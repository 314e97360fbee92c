"""Tell one base model from another: a hash of its weights' values and of its tokenizer."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from headstart.prompts.files import Fingerprint

SAMPLES = 4096


def fingerprint_of(network: Any, tokenizer: Any) -> Fingerprint:
    """Hash every tensor's name, shape and up to 4,096 evenly spaced values, as bfloat16.

    Values are rounded to bfloat16 first, so that a model loaded in float32 and in bfloat16 is one model.

    Example:
        >>> from headstart.models.load import load_model
        >>> a, b = (load_model("tiny-causal").fingerprint() for _ in range(2))
        >>> a == b
        True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        flat = tensor.detach().flatten()
        step = max(1, len(flat) // SAMPLES)
        sample = flat[::step].to("cpu", torch.bfloat16).view(torch.int16).numpy()
        digest.update(f"{name}{list(tensor.shape)}".encode() + sample.tobytes())
    words = tokenizer.backend_tokenizer.to_str()
    config = network.config
    return Fingerprint(
        model_type=config.model_type,
        hidden_size=int(config.hidden_size),
        weights=digest.hexdigest()[:32],
        tokenizer=hashlib.sha256(words.encode()).hexdigest()[:32],
    )
