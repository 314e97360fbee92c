"""Sizes that ask for a better room: long files, long functions, modules called `utils`."""

import ast

from tests.house.source import Functions, body_without_docstring, parse, read_package

MOST_LINES_IN_A_FILE = 400
MOST_LINES_IN_A_FUNCTION = 60
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def function_lines(node: Functions) -> int:
    """Lines of the body; the docstring and the list of parameters are left out."""
    body = body_without_docstring(node)
    if not body:
        return 0
    assert node.end_lineno is not None
    return node.end_lineno - body[0].lineno + 1


def faults(sources: dict[str, str]) -> list[str]:
    found = []
    for module, tree in parse(sources).items():
        lines = len(sources[module].splitlines())
        if lines > MOST_LINES_IN_A_FILE:
            found.append(
                f"{module}: {lines} lines, over {MOST_LINES_IN_A_FILE}; split it by meaning"
            )
        if EMPTY_NAMES & set(module.split(".")):
            found.append(f"{module}: a name that says nothing; call it what it holds")
        for node in ast.walk(tree):
            if isinstance(node, Functions) and function_lines(node) > MOST_LINES_IN_A_FUNCTION:
                found.append(
                    f"{module}:{node.lineno}: {node.name} has {function_lines(node)} lines, "
                    f"over {MOST_LINES_IN_A_FUNCTION}; give its parts names"
                )
    return found


def test_files_and_functions_are_small() -> None:
    sources = read_package()
    assert len(sources) >= 20, f"looked at {len(sources)} files only: is the package there?"
    found = faults(sources)
    assert not found, "\n" + "\n".join(found)


def test_each_rule_can_fail() -> None:
    body = "    x = 1\n"
    assert faults({"headstart.a": "def f():\n" + body * 60}) == []
    assert "f has 61 lines" in faults({"headstart.a": "def f():\n" + body * 61})[0]
    documented = 'def f():\n    """One.\n\n    Two.\n    """\n' + body * 60
    assert faults({"headstart.a": documented}) == []
    assert faults({"headstart.a": "x = 1\n" * 400}) == []
    assert "401 lines" in faults({"headstart.a": "x = 1\n" * 401})[0]
    assert "says nothing" in faults({"headstart.ops.utils": ""})[0]
