"""The public API is frozen, and every public name says what it does."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import freeze
from tests.house.source import Functions, parse, read_package

EXAMPLE_MARKS = (">>>", "```", "::")


def public_definitions(body: list[ast.stmt], path: str) -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes, and the public methods of those classes."""
    for node in body:
        if not isinstance(node, ast.ClassDef | Functions) or node.name.startswith("_"):
            continue
        marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
        if marks & {"overload", "setter", "override"}:
            continue  # documented where they are first defined
        yield f"{path}.{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node.body, f"{path}.{node.name}")


def undocumented(sources: dict[str, str]) -> tuple[int, list[str]]:
    """How many public definitions there are, and the names of those without a docstring."""
    found = [
        (name, ast.get_docstring(node))  # type: ignore[arg-type]
        for module, tree in parse(sources).items()
        for name, node in public_definitions(tree.body, module)
    ]
    return len(found), [name for name, docstring in found if not docstring]


def test_public_names_are_frozen() -> None:
    fault = freeze.fault("public_names.txt")
    assert not fault, fault


def test_every_public_definition_has_a_docstring() -> None:
    count, missing = undocumented(read_package())
    assert count >= 20, f"looked at {count} definitions only: is the package there?"
    assert not missing, "no docstring: " + ", ".join(missing)


def test_every_public_name_shows_an_example() -> None:
    import headstart

    things = {name: getattr(headstart, name) for name in headstart.__all__}
    things = {name: thing for name, thing in things.items() if callable(thing)}
    assert things, "headstart.__all__ names no class or function"
    missing = [
        name
        for name, thing in things.items()
        if not any(mark in (inspect.getdoc(thing) or "") for mark in EXAMPLE_MARKS)
    ]
    assert not missing, "no example in the docstring: " + ", ".join(missing)


def test_each_rule_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'class A:\n    """Is."""\n    def f(self): ...\n    def _g(self): ...\ndef _h(): ...'
    assert undocumented({"headstart.a": source}) == (2, ["headstart.a.A.f"])

    monkeypatch.delenv("HEADSTART_FREEZE", raising=False)
    monkeypatch.setitem(freeze.SURFACES, "public_names.txt", lambda: "score(x: int)\n")
    assert freeze.COMMAND in freeze.fault("public_names.txt", tmp_path)
    (tmp_path / "public_names.txt").write_text("score(x: str)\n")
    assert "+score(x: int)" in freeze.fault("public_names.txt", tmp_path)
    (tmp_path / "public_names.txt").write_text("score(x: int)\n")
    assert freeze.fault("public_names.txt", tmp_path) == ""


def test_signatures_read_the_same_quoted_or_not() -> None:
    def quoted(x: "int", *, y: "str" = "a") -> "list[int]": ...
    def plain(x: int, *, y: str = "a") -> list[int]: ...

    assert (
        freeze.signature(quoted)
        == freeze.signature(plain)
        == "(x: int, *, y: str = 'a') -> list[int]"
    )
