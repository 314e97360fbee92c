"""The package's own source, parsed: what the house tests look at."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "headstart"

Functions = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """`src/headstart/ops/attach.py` -> `headstart.ops.attach`; an `__init__` keeps its name."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def read_package() -> dict[str, str]:
    """Module name -> source, of every file of the package."""
    return {module_name(p): p.read_text("utf-8") for p in sorted(PACKAGE.rglob("*.py"))}


def parse(sources: dict[str, str]) -> dict[str, ast.Module]:
    return {name: ast.parse(text, name) for name, text in sources.items()}


def room_of(module: str) -> str:
    """`headstart.ops.attach` -> `ops`; `headstart.errors` -> `errors`."""
    return module.split(".")[1]


def body_without_docstring(node: ast.Module | ast.ClassDef | Functions) -> list[ast.stmt]:
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
