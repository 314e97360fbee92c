"""Random numbers, always passed by hand: a name and a seed give one generator, everywhere the same."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: object) -> int:
    """Derive an independent 63-bit seed for each use of one user-given seed.

    The same ``(seed, names)`` gives the same number on every machine and Python version.

    Example:
        >>> derive_seed(1, "order") == derive_seed(1, "order")
        True
        >>> derive_seed(1, "order") == derive_seed(1, "prompt")
        False
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
