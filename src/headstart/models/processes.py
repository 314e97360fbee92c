"""The processes that were started together, as accelerate sees them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch

from headstart.errors import UsageError


def own_processes(cpu: bool | None = None) -> Any:
    """Return accelerate's view of the processes this one belongs to: alone, or started together.

    Args:
        cpu: Whether they talk through gloo. Default None: where there is no GPU.

    Example:
        >>> own_processes().num_processes
        1
    """
    from accelerate import PartialState

    # the first process may sort millions of rows while the others wait
    return PartialState(
        cpu=not torch.cuda.is_available() if cpu is None else cpu, timeout=timedelta(days=1)
    )


def own_device() -> torch.device:
    """Return this process's own GPU, or the processor where there is none.

    Example:
        >>> own_device().type in ("cpu", "cuda")
        True
    """
    device: torch.device = own_processes().device
    return device


def find_device(device: str) -> torch.device:
    """Return the device of a name: ``cpu``, ``cuda``, ``cuda:1``, ..., or ``auto``, this process's own.

    Raises:
        UsageError: There is no such device.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    try:
        place = own_device() if device == "auto" else torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{device}' is not on this machine; try auto or cpu") from error
    return place
