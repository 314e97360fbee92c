"""Requests to stop that wait for a safe point: work that is long and saved now and then ends whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from headstart.learn.processes import sum_over_processes
from headstart.models.processes import own_device, own_processes

STOPS = ("SIGTERM", "SIGHUP")


@contextmanager
def held_stops() -> Iterator[Callable[[], bool]]:
    """Hold requests to stop (SIGTERM, SIGHUP) back until the block ends, and then do as they say.

    Yields a function that says whether one came, to any of the processes that were started together, who so
    leave the block together. Outside of the main thread, where signals do not come, nothing is held back.

    Example:
        >>> import os
        >>> before = signal.signal(signal.SIGTERM, lambda number, frame: print("stopped"))
        >>> with held_stops() as asked:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     print(asked())
        True
        stopped
        >>> _ = signal.signal(signal.SIGTERM, before)
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in heard}

    def asked() -> bool:
        if own_processes().num_processes == 1:
            return bool(came)
        return bool(
            sum_over_processes(torch.tensor([float(len(came))], device=own_device())).item()
        )

    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
