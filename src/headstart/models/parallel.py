"""Work on several groups of rows at once: one processor core a group beats all cores on one group.

On a processor, the many small operations of a short batch keep two threads waiting for each other
(1.5 x the speed of one, measured); two groups side by side, one thread each, nearly double it.
A GPU takes the groups in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Group = TypeVar("Group")
Result = TypeVar("Result")


def map_groups(
    work: Callable[[Group], Result], groups: Sequence[Group], device: torch.device
) -> list[Result]:
    """Apply ``work`` to every group and return the results in order.

    ``work`` must not touch shared state; grad mode is that of a fresh thread (on).

    Example:
        >>> map_groups(lambda n: n * n, [1, 2, 3], torch.device("cpu"))
        [1, 4, 9]
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(groups) == 1:
        return [work(group) for group in groups]
    return list(_pool(threads).map(work, groups))


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        threads, "headstart", initializer=torch.set_num_threads, initargs=(1,)
    )
