"""A recipe: a whole study as one YAML file, read into checked stages.

    name: sst-small
    description: From unlabelled reviews to a start.
    base_model: smollm2-135m     # default of every stage
    seed: 1                      # default of every stage
    data: ../../shared/data      # relative to this file; data files are relative to it
    x-cheap: &cheap              # keys with x- are a home for anchors
      num_steps: 100
    stages:
      teacher: {kind: teacher, train: yelp5/train.jsonl.gz}
      labelled: {kind: pseudo-label, teacher: teacher}       # names an earlier stage
      maml: {kind: meta-train, texts: labelled, <<: *cheap}
      maml-2: {kind: meta-train, texts: labelled, <<: *cheap, seed: 2}

Anchors and merges keep variants short. Everything is a plain value: a recipe names kinds of stages from a
table, never code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from headstart.config import Settings, check_settings, read_assignment
from headstart.errors import UsageError, did_you_mean
from headstart.recipes.stages import COMMON, NAME, DataFile, StageKind, StageRef, marked
from headstart.tasks.readers import file_of

MAX_BYTES = 256 * 2**10
MAX_VALUES = 50_000
"""Values of a recipe with its anchors unfolded: a small file can unfold without end."""
MAX_KEYS = 1_000
"""Keys of one mapping, and mappings merged into it."""

MAX_NAME = 100

_MERGE = "tag:yaml.org,2002:merge"


class _Header(Settings):
    name: str = pydantic.Field(pattern=f"^{NAME}$", max_length=MAX_NAME)
    description: str = ""
    base_model: str = pydantic.Field("smollm2-135m", min_length=1)
    seed: int = pydantic.Field(1, ge=0)
    data: str = "."
    stages: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)


class _Common(Settings):
    kind: str
    base_model: str | None = pydantic.Field(None, min_length=1)
    seed: int | None = pydantic.Field(None, ge=0)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a recipe, resolved.

    Attributes:
        name: Its name, and its folder's.
        kind: What it does.
        settings: With every default.
        base_model: The recipe's, or its own.
        seed: The recipe's, or its own.

    Example:
        >>> kind = StageKind("note", 1, Settings, lambda context: None)
        >>> Stage("a", kind, Settings(), "tiny-causal", 1).inputs
        ()
    """

    name: str
    kind: StageKind[Any]
    settings: Settings
    base_model: str
    seed: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the stages it reads, each once."""
        return tuple(dict.fromkeys(str(ref) for _, ref in marked(self.settings, StageRef)))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A study to run: stages in an order in which each reads only earlier ones.

    Attributes:
        path: The file it was read from.
        name: Its name.
        description: What it is for.
        base_model: The frozen model.
        seed: The seed.
        data: The folder that data files are relative to, absolute.
        stages: In order.

    Example:
        >>> Recipe(Path("a.yaml"), "a", "", "tiny-causal", 1, Path("/data"), ()).resolved()["data"]
        '/data'
    """

    path: Path
    name: str
    description: str
    base_model: str
    seed: int
    data: Path
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """Return a stage by its name.

        Raises:
            UsageError: There is none of this name.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UsageError(f"{self.path}: {_unknown('stage', name, [s.name for s in self.stages])}")

    def source(self, file: DataFile) -> str:
        """Return where a data file is: a path, with its corpus before it, or ``hub:NAME`` as it is."""
        if file.is_on_hub:
            return str(file)
        path, corpus = file_of(str(file))
        return f"{corpus}:{self.data / path}" if corpus else str(self.data / path)

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as plain values with every default in place: a recipe again."""
        stages = {}
        for stage in self.stages:
            own: dict[str, Any] = {"kind": stage.kind.name}
            if stage.kind.uses_model and stage.base_model != self.base_model:
                own["base_model"] = stage.base_model
            if stage.seed != self.seed:
                own["seed"] = stage.seed
            stages[stage.name] = {**own, **stage.settings.model_dump(mode="json")}
        return {
            "name": self.name,
            "description": self.description,
            "base_model": self.base_model,
            "seed": self.seed,
            "data": str(self.data),
            "stages": stages,
        }


def load_recipe(
    path: Path,
    kinds: Mapping[str, StageKind[Any]],
    assignments: Sequence[str] = (),
    data: Path | None = None,
) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        path: The YAML file.
        kinds: The kinds of stages that it may name.
        assignments: Dotted overrides, e.g. ``stages.meta.num_steps=10`` or ``seed=2``.
        data: The folder that data files are relative to. Default None: what the recipe says.

    Raises:
        UsageError: No such file, not a recipe, or an unknown or wrong key, kind, value or reference:
            one line with the file, the stage and the key.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tiny.yaml"
        >>> _ = path.write_text("{name: tiny, stages: {a: {kind: note}}}")
        >>> note = StageKind("note", 1, Settings, lambda context: None)
        >>> load_recipe(path, {"note": note}, ["seed=7"]).stage("a").seed
        7
    """
    values = read_yaml(path)
    for assignment in assignments:
        values = _assigned(values, assignment)
    _check_size(values, path)
    return make_recipe(values, path, kinds, data)


def make_recipe(
    values: Mapping[str, Any],
    path: Path,
    kinds: Mapping[str, StageKind[Any]],
    data: Path | None = None,
) -> Recipe:
    """Check the content of a recipe.

    Args:
        values: What the YAML file holds.
        path: The file, to be named in errors; its folder is what ``data`` is relative to.
        kinds: The kinds of stages.
        data: Instead of the recipe's own ``data``. Default None.

    Raises:
        UsageError: An unknown or wrong key, kind, value or reference.

    Example:
        >>> make_recipe({"name": "tiny", "stages": {"a": {"kind": "nota"}}}, Path("t.yaml"), {})
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: t.yaml: stages.a: there is no kind 'nota'; there is none yet
    """
    with _told_at(str(path)):
        known = {key: value for key, value in values.items() if not str(key).startswith("x-")}
        header = check_settings(known, _Header)
    stages: list[Stage] = []
    for name, content in header.stages.items():
        with _told_at(f"{path}: stages.{name}"):
            stages.append(_stage(name, content, header, stages, kinds))
    folder = data if data is not None else path.parent / header.data
    return Recipe(
        path,
        header.name,
        header.description,
        header.base_model,
        header.seed,
        Path(os.path.abspath(folder)),
        tuple(stages),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of plain values.

    Raises:
        UsageError: No such file (with a suggestion), too large, not YAML, a key that comes twice, or
            not a mapping.

    Example:
        >>> read_yaml(Path("nowhere.yaml"))
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: nowhere.yaml: no such recipe; name a YAML file
    """
    if path.is_dir():
        inside = ", ".join(map(str, _recipes_in(path))) or "none"
        raise UsageError(f"{path}: is a folder; recipes in it: {inside}")
    if not path.is_file():
        raise UsageError(f"{path}: no such recipe{_nearest(path) or '; name a YAML file'}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(f"{path}: {size} bytes; a recipe has at most {MAX_BYTES}")
        values = yaml.load(path.read_bytes(), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{where}: not YAML ({problem})") from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply for a recipe") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: holds no mapping; a recipe has the keys name and stages")
    return values


class _Loader(yaml.SafeLoader):
    """Plain values only, no key twice, and no merge that unfolds without end."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[Hashable] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen and key.tag != _MERGE:
                raise yaml.composer.ComposerError(
                    None, None, f"the key '{key.value}' comes twice", key.start_mark
                )
            seen.add(name)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merged = [value for key, value in node.value if key.tag == _MERGE]
        sources = sum(
            len(value.value) if isinstance(value, yaml.SequenceNode) else 1 for value in merged
        )
        if sources <= MAX_KEYS:
            super().flatten_mapping(node)
        if sources > MAX_KEYS or len(node.value) > MAX_KEYS:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {MAX_KEYS} keys in one mapping", node.start_mark
            )


def _stage(
    name: str,
    content: Mapping[str, Any],
    header: _Header,
    earlier: Sequence[Stage],
    kinds: Mapping[str, StageKind[Any]],
) -> Stage:
    """Check one stage; errors name the key, the caller names file and stage."""
    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
        raise UsageError(
            f"a stage's name becomes a folder: at most {MAX_NAME} of a-z, 0-9, '.', '_' and '-'"
        )
    common = check_settings({key: content[key] for key in COMMON if key in content}, _Common)
    if common.kind not in kinds:
        raise UsageError(_unknown("kind", common.kind, kinds))
    kind = kinds[common.kind]
    own = {key: value for key, value in content.items() if key not in COMMON}
    settings = check_settings(own, kind.settings, {one.name: one.kind.name for one in earlier})
    names = [one.name for one in earlier]
    for key, ref in marked(settings, StageRef):
        if ref == name or (ref in header.stages and ref not in names):
            raise UsageError(f"{key}={ref}: a stage reads earlier ones only; put '{ref}' before it")
        if ref not in names:
            raise UsageError(f"{key}={ref}: {_unknown('stage', ref, names)}")
    if common.base_model is not None and not kind.uses_model:
        raise UsageError(f"base_model={common.base_model}: a '{kind.name}' uses no base model")
    model = (common.base_model or header.base_model) if kind.uses_model else ""
    return Stage(name, kind, settings, model, header.seed if common.seed is None else common.seed)


@contextmanager
def _told_at(where: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _assigned(values: Mapping[str, Any], assignment: str) -> dict[str, Any]:
    """Apply one ``--set``; a misspelt stage is told here, a misspelt setting when all is checked."""
    path, value = read_assignment(assignment)
    stages = values.get("stages")
    is_below = path[0] == "stages" and len(path) > 1
    if is_below and isinstance(stages, Mapping) and path[1] not in stages:
        raise UsageError(f"--set {assignment}: {_unknown('stage', path[1], stages)}")
    return _placed(values, path, value, assignment)


def _placed(
    values: Mapping[str, Any], path: Sequence[str], value: object, assignment: str
) -> dict[str, Any]:
    """Set a nested value in a copy: what an anchor shares with other stages stays as it is."""
    first, rest = path[0], path[1:]
    if rest:
        inner = values.get(first)
        if inner is not None and not isinstance(inner, Mapping):
            raise UsageError(f"--set {assignment}: '{first}' is {inner!r}, with nothing below it")
        value = _placed(inner or {}, rest, value, assignment)
    return {**values, first: value}


def _check_size(values: object, path: Path) -> None:
    """Refuse what unfolds to very much, or into itself, before anything walks over it."""
    left, found = MAX_VALUES, [values]
    while found:
        value = found.pop()
        left -= 1
        if left < 0:
            raise UsageError(f"{path}: unfolds to more than {MAX_VALUES} values; use fewer anchors")
        if isinstance(value, Mapping):
            found += value.values()
        elif isinstance(value, list | tuple | set):
            found += value


def _recipes_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml"))


def _nearest(path: Path) -> str:
    """Suggest a recipe beside the one that was named, or below ``recipes``."""
    beside = sorted(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    for one in (*beside, *_recipes_in(Path("recipes"))):
        if one.stem == path.stem:
            return f"; did you mean '{one}'?"
    return did_you_mean(str(path), [*beside, *_recipes_in(Path("recipes"))])


def _unknown(what: str, name: str, known: Any) -> str:
    """Say that there is no such thing, and what there is instead."""
    names = list(map(str, known))
    rest = f"; known: {', '.join(names)}" if names else "; there is none yet"
    return f"there is no {what} '{name}'{did_you_mean(name, names) or rest}"
