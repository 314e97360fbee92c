"""Save a matplotlib figure as PNG and SVG: whole or absent, and the same picture as the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError
from headstart.prompts.files import write_whole

DPI = 250


@contextmanager
def drawing() -> Iterator[None]:
    """Draw inside this: a fixed font, and fixed names inside an SVG.

    Raises:
        HeadstartError: matplotlib is not installed.

    Example:
        >>> with drawing():
        ...     pass
    """
    try:
        import matplotlib
    except ImportError as error:
        raise HeadstartError(
            "drawing needs the package 'matplotlib'; pip install 'headstart[plots]'"
        ) from error
    with matplotlib.rc_context({"svg.hashsalt": "headstart", "font.family": "DejaVu Sans"}):
        yield


def save_pictures(figure: Any, stem: Path) -> tuple[Path, Path]:
    """Write a figure as ``stem.png`` and ``stem.svg``, without dates.

    Raises:
        StorageError: The pictures cannot be written.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with drawing():
        ...     [path.name for path in save_pictures(Figure(), Path(tempfile.mkdtemp()) / "a")]
        ['a.png', 'a.svg']
    """
    paths = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:], dpi=DPI, metadata=metadata)
        write_whole(path, buffer.getvalue())
    return paths
