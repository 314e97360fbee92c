"""What a run that can be killed and started again was begun with: ``plan.json`` in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.errors import StorageError, UsageError
from headstart.prompts.files import storage_errors, to_json, write_whole


def begin(path: Path, plan: Mapping[str, Any]) -> bool:
    """Write the plan of a new run, or check that a run begun before has the same.

    Args:
        path: The plan's file.
        plan: What makes the run's result, as JSON-able values.

    Returns:
        Whether the run was begun before.

    Raises:
        UsageError: It was begun with another plan.
        StorageError: The file cannot be read or written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "plan.json")
        >>> begin(path, {"seed": 1}), begin(path, {"seed": 1})
        (False, True)
        >>> begin(path, {"seed": 2})
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: ...plan.json: the run here has seed=1, not 2; choose another ...
    """
    if path.is_file():
        check(path, plan)
        return True
    write_whole(path, to_json(plan))
    return False


def check(path: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose plan, in the file, differs.

    Raises:
        UsageError: Names the first value that differs.
        StorageError: The file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "plan.json")
        >>> _ = path.write_text('{"seed": 1, "more": 0}')
        >>> check(path, {"seed": 1})
    """
    try:
        with storage_errors(path):
            old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StorageError(f"{path}: is not JSON ({error}); choose another folder") from error
    new = json.loads(to_json(plan))  # tuples are lists there
    key = next((key for key in new if old.get(key) != new[key]), None)
    if key is not None:
        before, now = _shown(old.get(key), new[key])
        raise UsageError(
            f"{path}: the run here has {key}={before}, not {now}; choose another folder, or remove "
            "this one to begin anew"
        )


def _shown(old: Any, new: Any) -> tuple[str, str]:
    """Show two values, or of two mappings only what differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        old = {key: old[key] for key in differ if key in old}
        new = {key: new[key] for key in differ if key in new}
    return json.dumps(old)[:120], json.dumps(new)[:120]
