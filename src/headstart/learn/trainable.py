"""What continued pretraining trains of a model, and with what: all weights or adapters, one optimiser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from headstart.errors import UsageError
from headstart.learn.optimizers import optimizer_of
from headstart.learn.pretrain_settings import Pretrain
from headstart.learn.shards import layers_of
from headstart.models.base import BaseModel
from headstart.seeds import derive_seed


@contextmanager
def in_training(
    model: BaseModel, settings: Pretrain, seed: int = 0
) -> Iterator[list[torch.nn.Parameter]]:
    """Make weights trainable, in float32, and freeze them at the end in the dtype they had.

    Adapters are put in at the beginning and merged into the weights at the end.

    Args:
        model: The base model.
        settings: What is trained; dropout and gradient checkpointing.
        seed: Of the adapters' first numbers.

    Raises:
        UsageError: Adapters were asked for, and peft is not there.

    Example:
        >>> from headstart.models.load import load_model
        >>> model = load_model("tiny-causal")
        >>> with in_training(model, Pretrain()) as weights:
        ...     print(len(weights) > 10, all(weight.requires_grad for weight in weights))
        True True
        >>> any(weight.requires_grad for weight in model.network.parameters())
        False
    """
    network, dtype = model.network, model.embedding_VH.dtype
    lora = None
    if settings.lora_rank is not None:
        lora = _with_adapters(network, settings.lora_rank, derive_seed(seed, "adapters"))
    if settings.trains != "prompt":
        network.float()
        if lora is None:
            network.requires_grad_(True)
    network.train(settings.dropout)
    if settings.checkpointing:
        _checkpointing(network, "enable")
    try:
        yield [weight for weight in network.parameters() if weight.requires_grad]
    finally:
        if settings.checkpointing:
            _checkpointing(network, "disable")
        if lora is not None:
            lora.merge_and_unload()
        network.requires_grad_(False).eval().to(dtype)


def _checkpointing(network: Any, verb: str) -> None:
    """Have layers keep their inputs alone for the backward pass, which runs each of them once more."""
    newer = hasattr(network, f"activation_checkpointing_{verb}")  # transformers 5.20
    getattr(network, f"{'activation' if newer else 'gradient'}_checkpointing_{verb}")()
    for layer in layers_of(network):
        layer.training = verb == "enable"  # its own, for its checkpoint; not its dropout's


def _with_adapters(network: Any, rank: int, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UsageError("lora_rank needs peft: pip install peft") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(network, config)


def outer_optimizer(
    weights: Sequence[torch.nn.Parameter],
    prompt: torch.nn.Parameter | None,
    settings: Pretrain,
) -> torch.optim.Optimizer:
    """Make the optimiser of weights and prompt, each at its own step size.

    Example:
        >>> prompt = torch.nn.Parameter(torch.zeros(2, 4))
        >>> outer_optimizer([], prompt, Pretrain(prompt_lr=0.3)).param_groups[0]["lr"]
        0.3
    """
    groups: list[dict[str, Any]] = [{"params": list(weights), "lr": settings.lr}] if weights else []
    if prompt is not None:
        groups.append({"params": [prompt], "lr": settings.prompt_lr or settings.lr})
    return optimizer_of(settings.optimizer, groups, least_factored=settings.reading.least_factored)
