"""A training state on disk, whole or absent: named tensors and JSON values in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from headstart.errors import StorageError
from headstart.prompts.files import storage_errors, write_whole


def save_state(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write tensors and JSON-able values to one file, which replaces the one before.

    Raises:
        StorageError: The place cannot be written to.

    Example:
        >>> import tempfile
        >>> import torch
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save_state(path, {"a": torch.ones(2)}, {"step": 3})
        >>> load_state(path)[1]
        {'step': 3}
    """
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_whole(path, to_safetensors(plain, metadata={"values": json.dumps(values)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_state` wrote.

    Raises:
        StorageError: The file is missing or damaged.

    Example:
        >>> load_state(Path("nowhere"))
        Traceback (most recent call last):
        ...
        headstart.errors.StorageError: nowhere: no saved state here
    """
    if not path.is_file():
        raise StorageError(f"{path}: no saved state here")
    try:
        with storage_errors(path), safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["values"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{path}: not a state that headstart saved ({error}); delete it to start over"
        ) from error
