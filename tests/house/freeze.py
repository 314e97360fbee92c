"""Surfaces that may only change on purpose: the public names and the command line.

Run `.venv/bin/python -m tests.house.freeze` to write both, and read the difference before you
commit it: that difference is what other people's code and scripts will feel.
"""

import difflib
import enum
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
COMMAND = ".venv/bin/python -m tests.house.freeze"


class _Bare(str):
    """An annotation kept as text, shown without quotes."""

    __repr__ = str.__str__


def signature(thing: Any) -> str:
    """How a thing is called, the same on every machine."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return "(...)"  # built in C, or an enum: not ours to freeze

    def bare(annotation: Any) -> Any:
        return _Bare(annotation) if isinstance(annotation, str) else annotation

    parameters = [p.replace(annotation=bare(p.annotation)) for p in found.parameters.values()]
    text = str(
        found.replace(parameters=parameters, return_annotation=bare(found.return_annotation))
    )
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def members(name: str, cls: type) -> Iterator[str]:
    """A class's own public methods and properties; inherited library methods are not ours."""
    ours = [base for base in cls.__mro__ if base.__module__.split(".")[0] == "headstart"]
    attributes = {key: value for base in reversed(ours) for key, value in vars(base).items()}
    for key, value in sorted(attributes.items()):
        if key.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"{name}.{key}"
        elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
            yield f"{name}.{key}{signature(getattr(cls, key))}"


def public_names() -> str:
    """One line for each name of `headstart.__all__`, and for each method of its classes."""
    import headstart

    lines: list[str] = []
    for name in sorted(headstart.__all__):
        thing = getattr(headstart, name)
        if inspect.isclass(thing):
            lines += [f"class {name}{signature(thing)}", *members(name, thing)]
        elif callable(thing):
            lines.append(f"{name}{signature(thing)}")
        else:
            lines.append(f"{name}: {type(thing).__name__}")
    return "\n".join(lines) + "\n"


def parameters(command: Any) -> Iterator[str]:
    """One line for each flag and argument of a command."""
    for parameter in sorted(command.params, key=lambda p: (p.param_type_name, p.name)):
        names = "/".join([*parameter.opts, *parameter.secondary_opts])
        words = [parameter.param_type_name, names, type_text(parameter.type_descriptor.annotation)]
        words += [f"default={default_text(parameter.default)}"]
        words += [f"{w}={getattr(parameter, w)}" for w in ("min", "max") if is_set(parameter, w)]
        words += [w for w in ("required", "multiple", "hidden") if getattr(parameter, w, False)]
        yield "    " + " ".join(words)


def is_set(parameter: Any, name: str) -> bool:
    return getattr(parameter, name, None) is not None


def type_text(annotation: Any) -> str:
    """A parameter's type; the choices of an enum, as they are typed."""
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return "|".join(str(member.value) for member in annotation)
    return inspect.formatannotation(annotation)


def default_text(default: Any) -> str:
    """A default as text; a person's own folder does not belong in a frozen file."""
    if callable(default):
        return f"<{getattr(default, '__name__', 'computed')}>"
    text = str(default) if isinstance(default, Path) else repr(getattr(default, "value", default))
    return text.replace(str(Path.home()), "~")


def commands(command: Any, path: str) -> Iterator[str]:
    """A command, its parameters, and the same for all below it."""
    yield path + " (hidden)" * bool(command.hidden)
    yield from parameters(command)
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from commands(below, f"{path} {name}")


def cli_surface() -> str:
    """Commands, flags and defaults of the command line."""
    import typer

    from headstart.cli.main import app

    return "\n".join(commands(typer.main.get_command(app), "headstart")) + "\n"


SURFACES = {"public_names.txt": public_names, "cli_surface.txt": cli_surface}


def fault(name: str, folder: Path = FOLDER) -> str:
    """Why the surface differs from its frozen file; empty when it does not."""
    now, path = SURFACES[name](), folder / name
    if os.environ.get("HEADSTART_FREEZE") == "1":
        path.write_text(now, "utf-8")
    if not path.exists():
        return f"tests/house/{name} is missing; make it with: {COMMAND}"
    frozen = path.read_text("utf-8")
    if now == frozen:
        return ""
    lines = difflib.unified_diff(
        frozen.splitlines(), now.splitlines(), "frozen", "now", lineterm="", n=0
    )
    return f"tests/house/{name} differs; if this is meant, run: {COMMAND}\n" + "\n".join(lines)


def main() -> None:
    for name, surface in SURFACES.items():
        text = surface()
        (FOLDER / name).write_text(text, "utf-8")
        print(f"tests/house/{name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
