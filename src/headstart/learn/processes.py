"""Share work over processes with accelerate: alone, everything is this process's and sums are themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from headstart.models.processes import own_processes

Item = TypeVar("Item")


def my_share(items: Sequence[Item], device: torch.device) -> list[Item]:
    """Return every n-th item, beginning with this process's own index.

    Example:
        >>> my_share([1, 2, 3], torch.device("cpu"))
        [1, 2, 3]
    """
    state = own_processes(cpu=device.type == "cpu")
    return list(items[state.process_index :: state.num_processes])


def my_rows(count: int, device: torch.device) -> tuple[list[int], int]:
    """Return this process's share of so many rows, and what they count: one that counts 0 if it has none.

    Example:
        >>> my_rows(3, torch.device("cpu"))
        ([0, 1, 2], 1)
    """
    mine = my_share(range(count), device)
    return (mine, 1) if mine else ([0], 0)


def largest_over_processes(count: int, device: torch.device) -> int:
    """Return the largest of all processes' numbers; each gets it.

    Example:
        >>> largest_over_processes(3, torch.device("cpu"))
        3
    """
    from accelerate.utils import gather

    return int(gather(torch.tensor([count], device=device)).max())


def sum_over_processes(values: Tensor) -> Tensor:
    """Add a tensor up over all processes; each gets the sum.

    Example:
        >>> sum_over_processes(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    from accelerate.utils import reduce

    total: Tensor = reduce(values, reduction="sum")
    return total


def from_first(compute: Callable[[], Item]) -> Item:
    """Compute something in the first process and give it to all, so that all decide alike.

    Example:
        >>> from_first(lambda: 3)
        3
    """
    from accelerate.utils import broadcast_object_list

    found = [compute() if is_first() else None]
    shared: list[Item] = broadcast_object_list(found)
    return shared[0]


def is_first() -> bool:
    """Say whether this process is the one that writes.

    Example:
        >>> is_first()
        True
    """
    return bool(own_processes().is_main_process)
