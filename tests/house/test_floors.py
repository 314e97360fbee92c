"""The floors hold: imports look only down, nothing goes in a circle, only the cli prints."""

import ast
import graphlib
from collections.abc import Iterator

import pytest

from tests.house.source import body_without_docstring, parse, read_package, room_of

FLOORS = {
    0: {"errors", "config", "seeds"},  # the ground: one room of single files
    1: {"ops"},
    2: {"tasks", "prompts"},
    3: {"models", "stores"},
    4: {"learn", "sources", "evaluate"},
    5: {"recipes", "report"},
    6: {"serve", "classifier"},
    7: {"cli", "__main__"},
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# (from, to) rooms of one floor that may look at each other; write the reason on the line.
NEIGHBOURS: set[tuple[str, str]] = {
    ("recipes", "report"),  # a study's last stages draw it; report knows no recipe
    ("sources", "evaluate"),  # a teacher is judged by the metrics everything is judged by
}

HIGHEST_FLOOR_USED = {"serve": 3}  # the shop must not carry the workshop

NOT_IN = {
    "ops": {"transformers", "logging", "headstart.config"},  # pure torch functions
    "tasks": {"torch"},  # text and labels, no tensors
}

LAZY = "headstart.__init__"  # the only `__init__` that may hold code


def imports(tree: ast.Module, module: str, known: set[str]) -> Iterator[tuple[int, str]]:
    """(line, dotted target) of every import, also those inside functions.

    `from a import b` is `a.b` when that is a module or a package, else `a`.
    """
    packages = {name.removesuffix(".__init__") for name in known if name.endswith(".__init__")}
    packages |= {name.rpartition(".")[0] for name in known}  # folders without an __init__
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in known | packages else base
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def import_faults(module: str, line: int, target: str, known: set[str]) -> Iterator[str]:
    """What is wrong with one import, in words."""
    here, room = f"{module}:{line}: ", room_of(module)
    for banned in NOT_IN.get(room, ()):
        if target == banned or target.startswith(banned + "."):
            yield f"{here}{room} may not import {banned}"
    if target.split(".")[0] != "headstart" or module == LAZY:
        return
    if target not in known or target.endswith(".__init__"):
        yield f"{here}imports {target}, which is not a module file; name the leaf module"
        return
    to = room_of(target)
    if room not in FLOOR_OF or to not in FLOOR_OF:
        return  # reported once per room, below
    mine, theirs = FLOOR_OF[room], FLOOR_OF[to]
    if theirs > mine:
        yield f"{here}{room} (floor {mine}) looks up to {to} (floor {theirs})"
    elif theirs > HIGHEST_FLOOR_USED.get(room, mine) and to != room:
        yield f"{here}{room} may use floors 0-{HIGHEST_FLOOR_USED[room]} only, not {to}"
    elif theirs == mine > 0 and to != room and (room, to) not in NEIGHBOURS:
        yield (
            f"{here}{room} and {to} share floor {mine}; move the shared part down, or add "
            f'("{room}", "{to}") to NEIGHBOURS in {__name__}.py with the reason on its line'
        )


def faults(sources: dict[str, str]) -> list[str]:
    """Every way in which these modules break the house's rules."""
    trees, known, found = parse(sources), set(sources), []
    graph: dict[str, set[str]] = {}
    rooms = {room_of(module) for module in sources} - {"__init__"}
    found += [
        f"headstart.{room}: give this room a floor in FLOORS" for room in rooms - set(FLOOR_OF)
    ]
    for module, tree in trees.items():
        if module.endswith(".__init__") and module != LAZY and body_without_docstring(tree):
            found.append(f"{module}: an __init__ holds a docstring at most")
        for line, target in imports(tree, module, known):
            found += import_faults(module, line, target, known)
            if target in known and module != LAZY:
                graph.setdefault(module, set()).add(target)
        if room_of(module) != "cli":
            found += [
                f"{module}:{node.lineno}: only cli prints; use logging or return the value"
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
            ]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("a circle: " + " -> ".join(reversed(error.args[1])))
    return found


def test_the_floors_hold() -> None:
    sources = read_package()
    assert len(sources) >= 20, f"looked at {len(sources)} files only: is the package there?"
    found = faults(sources)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"ops.a": "from headstart.cli.b import c", "cli.b": ""}, "looks up"),
        ({"ops.a": "def f():\n    import headstart.cli.b", "cli.b": ""}, "looks up"),
        (
            {"ops.a": "import importlib\nimportlib.import_module('headstart.cli.b')", "cli.b": ""},
            "looks up",
        ),
        ({"ops.a": "from ..cli.b import c", "cli.b": ""}, "looks up"),
        ({"tasks.a": "from headstart.prompts.b import c", "prompts.b": ""}, "share floor 2"),
        ({"serve.a": "from headstart.learn.b import c", "learn.b": ""}, "floors 0-3 only"),
        (
            {"tasks.a": "from headstart.ops import c", "ops.__init__": "", "ops.b": ""},
            "not a module",
        ),
        ({"tasks.a": "from headstart import ops", "ops.b": ""}, "not a module"),
        ({"tasks.a": "import headstart", "ops.b": ""}, "not a module"),
        ({"tasks.a": "from headstart import score", "ops.b": ""}, "not a module"),
        ({"ops.a": "from headstart.ops.b import c", "ops.b": "from . import a"}, "a circle"),
        ({"ops.__init__": "from headstart.ops.b import c", "ops.b": ""}, "docstring at most"),
        ({"ops.a": "from transformers.x import y"}, "may not import transformers"),
        ({"ops.a": "import logging"}, "may not import logging"),
        ({"ops.a": "from headstart.config import c", "config": ""}, "import headstart.config"),
        ({"tasks.a": "import torch.nn"}, "may not import torch"),
        ({"tasks.a": "print(1)"}, "only cli prints"),
        ({"cellar.a": ""}, "give this room a floor"),
    ],
)
def test_each_rule_can_fail(sources: dict[str, str], said: str) -> None:
    found = faults({f"headstart.{name}": text for name, text in sources.items()})
    assert len(found) == 1 and said in found[0], found


def test_what_is_allowed_passes() -> None:
    sources = {
        "__init__": "import headstart.cli.main",
        "errors": "import logging",
        "config": "from headstart.errors import E",
        "ops.__init__": '"""Pure functions."""',
        "ops.a": '"""`print(1)` in words is fine."""\nimport torch\nfrom headstart.ops import b',
        "ops.b": "from headstart import errors",
        "serve.a": "from headstart.serve.b import c\nfrom headstart.ops.a import d",
        "serve.b": "",
        "cli.main": "from headstart.serve import a\nprint(1)",
    }
    assert faults({f"headstart.{name}": text for name, text in sources.items()}) == []
