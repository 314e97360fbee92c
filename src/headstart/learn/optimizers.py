"""The optimisers of prompts and weights, by the names that settings use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from headstart.learn.shards import settled
from headstart.ops.inner_loop import adafactor_change


class Adafactor(torch.optim.Optimizer):
    """Adafactor (Shazeer and Stern 2018) at a given step size: no relative step, no parameter scale.

    As transformers' ``Adafactor(scale_parameter=False, relative_step=False)``, and as the inner steps of
    meta-learning; it can keep the second moments of small parameters whole, and takes weights that are spread
    over processes.

    Args:
        groups: Parameter groups, each with its ``lr``.
        weight_decay: Decoupled weight decay.
        least_factored: Least rows and columns for second moments to be kept by row and column.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> weight.grad = torch.full((2,), 5.0)
        >>> Adafactor([{"params": [weight], "lr": 0.5}]).step()
        >>> weight.tolist()
        [0.5, 0.5]
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        weight_decay: float = 0.0,
        least_factored: int = 0,
    ) -> None:
        """Hold the parameters; their moments come with the first step."""
        super().__init__(
            list(groups), {"weight_decay": weight_decay, "least_factored": least_factored}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do one update of every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                change_1D, moments = adafactor_change(
                    weight.grad[None],
                    self.state[weight].get("moments"),
                    least_factored=group["least_factored"],
                )
                self.state[weight]["moments"] = settled(moments)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(group["lr"] * change_1D[0])


def optimizer_of(
    name: str,
    groups: Sequence[dict[str, Any]],
    weight_decay: float = 0.0,
    least_factored: int = 0,
) -> torch.optim.Optimizer:
    """Make an optimiser of parameter groups, each with its own ``lr``.

    Args:
        name: ``adamw``, ``sgd`` or ``adafactor``.
        groups: The parameter groups.
        weight_decay: Decoupled weight decay; ``sgd`` has none.
        least_factored: Of :class:`Adafactor`.

    Example:
        >>> group = {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 0.3}
        >>> optimizer_of("adafactor", [group]).param_groups[0]["lr"]
        0.3
    """
    if name == "adamw":
        return torch.optim.AdamW(list(groups), weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(list(groups))
    return Adafactor(groups, weight_decay, least_factored)
