"""The processes that were started together, as accelerate sees them."""

from __future__ import annotations

from typing import Any

import torch


def own_processes(cpu: bool | None = None) -> Any:
    """Return accelerate's view of the processes this one belongs to: alone, or started together.

    Args:
        cpu: Whether they talk through gloo. Default None: where there is no GPU.

    Example:
        >>> own_processes().num_processes
        1
    """
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available() if cpu is None else cpu)
