"""A training state on disk, whole or absent: named tensors and JSON values in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from headstart.errors import StorageError, UsageError
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


def check_same_run(
    path: Path,
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    starts: tuple[Tensor | None, Tensor | None],
) -> None:
    """Make sure that a saved state is of the run that wants to go on from it.

    Args:
        path: The state.
        saved: Its values.
        now: What they must be, by name.
        starts: The start that was saved, and the run's own.

    Raises:
        UsageError: Names what differs.

    Example:
        >>> check_same_run(Path("state"), {"seed": 1}, {"seed": 1}, (None, None))
    """
    differs = [name for name in now if saved[name] != now[name]]
    one, other = starts
    same = one is other or (
        one is not None and other is not None and torch.equal(one.cpu(), other.cpu())
    )
    if not differs and not same:
        differs = ["start"]
    if differs:
        raise UsageError(
            f"{path}: that run had other {', '.join(differs)}; delete it to start over, or take "
            "another folder"
        )


def flatten(value: Any, name: str = "") -> tuple[dict[str, Tensor], Any]:
    """Take the tensors out of nested dicts, lists and tuples, such as an optimiser's state.

    Returns:
        The tensors by name, and what is left as JSON has it; :func:`unflatten` joins them again.

    Raises:
        TypeError: A value that JSON has no word for.

    Example:
        >>> import torch
        >>> tensors, shape = flatten({"state": {0: (1, torch.ones(2))}})
        >>> sorted(tensors), unflatten(tensors, shape)["state"][0][1].tolist()
        (['.state.0.1'], [1.0, 1.0])
    """
    if isinstance(value, Tensor):
        return {name: value}, {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return {}, value
    if not isinstance(value, dict | list | tuple):
        raise TypeError(f"{name}: a state cannot hold {type(value).__name__}")
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    parts = {key: flatten(inner, f"{name}.{key}") for key, inner in items}
    tensors = {k: tensor for found, _ in parts.values() for k, tensor in found.items()}
    if isinstance(value, dict):
        return tensors, {"dict": [[key, shape] for key, (_, shape) in parts.items()]}
    kind = "list" if isinstance(value, list) else "tuple"
    return tensors, {kind: [shape for _, shape in parts.values()]}


def unflatten(tensors: dict[str, Tensor], shape: Any) -> Any:
    """Put tensors back where :func:`flatten` took them from.

    Example:
        >>> unflatten({}, {"tuple": [1, {"list": []}]})
        (1, [])
    """
    if not isinstance(shape, dict):
        return shape
    ((kind, inner),) = shape.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: unflatten(tensors, value) for key, value in inner}
    items = [unflatten(tensors, value) for value in inner]
    return items if kind == "list" else tuple(items)


def on_device(value: Any, device: torch.device) -> Any:
    """Move all tensors of nested lists and tuples to a device.

    Example:
        >>> on_device((1, [torch.ones(1)]), torch.device("cpu"))
        (1, [tensor([1.])])
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(on_device(inner, device) for inner in value)
    return value
