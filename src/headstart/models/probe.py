"""Choose the dtype and the attention kernel by a short measurement on this machine, once.

Processors differ by a factor of six in how fast bfloat16 is, and a fused attention can lose to the
plain one at short lengths; so both are timed for a moment at the model's own shapes, and the answer
is kept in the cache folder, so that a machine chooses the same way each time.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from headstart.errors import StorageError
from headstart.models.packaged import cache_folder
from headstart.prompts.files import to_json, write_whole

ROWS, LENGTH, SECONDS = 16, 64, 0.15


def best_rate(run: Callable[[], object], seconds: float = SECONDS) -> float:
    """Return calls a second of the fastest of repeated calls, after one to warm up.

    Example:
        >>> best_rate(lambda: None, seconds=0.01) > 0
        True
    """
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return 1 / best


def matmul_rate(hidden: int, inner: int, dtype: torch.dtype, device: torch.device) -> float:
    """Measure the matrix-product rate at a model's own shapes, in floating-point operations a second.

    Example:
        >>> matmul_rate(8, 16, torch.float32, torch.device("cpu")) > 0
        True
    """
    rows = ROWS * LENGTH
    x, w = (torch.randn(n, hidden, device=device).to(dtype) for n in (rows, inner))

    def run() -> None:
        torch.nn.functional.linear(x, w)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 2 * rows * hidden * inner * best_rate(run)


def attention_rate(
    kernel: str, heads: int, size: int, dtype: torch.dtype, device: torch.device
) -> float:
    """Measure forward and backward calls a second of ``eager`` or ``sdpa`` attention under a mask.

    Example:
        >>> attention_rate("eager", 2, 4, torch.float32, torch.device("cpu")) > 0
        True
    """
    shape = (ROWS, heads, LENGTH, size)
    q, k, v = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.zeros(ROWS, 1, LENGTH, LENGTH, device=device, dtype=dtype)

    def run() -> None:
        if kernel == "sdpa":
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(-1, -2) * size**-0.5 + mask
            out = scores.softmax(-1, dtype=torch.float32).to(dtype) @ v
        torch.autograd.grad(out.sum(), (q, k, v))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return best_rate(run)


def probe(hidden: int, inner: int, heads: int, device: torch.device) -> dict[str, Any]:
    """Measure, or read what was measured before on this machine, and choose.

    Args:
        hidden: The model's hidden size.
        inner: Its feed-forward size.
        heads: Its attention heads.
        device: Where it will run.

    Returns:
        ``dtype`` and ``attention``, and the measurements they rest on.

    Example:
        >>> sorted(probe(16, 32, 4, torch.device("cpu")))
        ['attention', 'attention_calls_per_s', 'dtype', 'gflop_per_s']
    """
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    key = f"{processor}|{torch.get_num_threads()}|{torch.__version__}|{hidden}x{inner}x{heads}"
    path = cache_folder() / "probe.json"
    known = _read(path)
    if key not in known:
        known[key] = _measure(hidden, inner, heads, device)
        # a read-only cache costs the measurement each time, nothing else
        with suppress(StorageError):
            write_whole(path, to_json(known))
    found: dict[str, Any] = known[key]
    return found


def _measure(hidden: int, inner: int, heads: int, device: torch.device) -> dict[str, Any]:
    rates = {
        name: matmul_rate(hidden, inner, getattr(torch, name), device)
        for name in ("float32", "bfloat16")
    }
    dtype = "bfloat16" if rates["bfloat16"] > 1.3 * rates["float32"] else "float32"
    calls = {
        name: attention_rate(name, heads, hidden // heads, getattr(torch, dtype), device)
        for name in ("eager", "sdpa")
    }
    return {
        "dtype": dtype,
        "attention": "sdpa" if calls["sdpa"] > 1.1 * calls["eager"] else "eager",
        "gflop_per_s": {name: round(rate / 1e9) for name, rate in rates.items()},
        "attention_calls_per_s": {name: round(rate) for name, rate in calls.items()},
    }


def _read(path: Any) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(path.read_text())
        return known
    except (OSError, ValueError):
        return {}


def processor_name() -> str:
    """Return what this machine calls its processor.

    Example:
        >>> processor_name() != ""
        True
    """
    try:
        with open("/proc/cpuinfo") as lines:
            return next(
                line.split(":")[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
