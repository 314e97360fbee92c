"""The optimisers of prompts and weights: the libraries' own, by the names that settings use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def optimizer_of(
    name: str, groups: Sequence[dict[str, Any]], weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Make an optimiser of parameter groups, each with its own ``lr``.

    Args:
        name: ``adamw``, ``sgd``, or ``adafactor``, which takes its step size as given: no relative step, no
            parameter scale.
        groups: The parameter groups.
        weight_decay: Decoupled weight decay; ``sgd`` has none.

    Example:
        >>> group = {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 0.3}
        >>> optimizer_of("adafactor", [group]).param_groups[0]["lr"]
        0.3
    """
    if name == "adamw":
        return torch.optim.AdamW(list(groups), weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(list(groups))
    from transformers.optimization import Adafactor

    return Adafactor(
        list(groups),
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
        weight_decay=weight_decay,
    )
