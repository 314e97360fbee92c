"""What a stage of a study is: typed settings that name what it reads, and one function.

A kind of stage is one function and one line in :mod:`headstart.recipes.kinds`::

    class ClusterSettings(Settings):
        texts: Annotated[StageRef, of_kind("pseudo-label")]  # an earlier stage: its folder is read
        stop_words: DataFile | None = None                   # a file: hashed
        num_clusters: int = 10                               # all else is plain config

    def cluster(context: Context[ClusterSettings]) -> None:
        texts = context.inputs[context.settings.texts] / "kept.jsonl"
        ...                                                  # writes into context.folder

    CLUSTER = StageKind("cluster", 1, ClusterSettings, cluster, uses_model=False)

The engine (:mod:`headstart.recipes.engine`) finds the references and the files in the settings by their
types, so a stage is run again exactly when something that it was told of has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from headstart.config import Settings

HUB = ("hub:", "set:")
"""Before a data set's name on the Hub, or a paper's set (``set:sst5/test``): neither is hashed, so pin what
you cite by other means."""
NAME = r"[a-z0-9][a-z0-9._-]*"
"""Names of recipes, stages and kinds: they become folders, and not all disks tell cases apart."""
COMMON = ("kind", "base_model", "seed")
"""Keys of every stage beside its kind's own settings."""

S = TypeVar("S", bound=Settings)
M = TypeVar("M", bound="Marked")


class Marked(str):
    """A text in the settings whose type tells the engine what it is.

    Example:
        >>> pydantic.TypeAdapter(Marked).validate_python("a")
        'a'
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Say how pydantic makes one."""
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(min_length=1)
        )


class StageRef(Marked):
    """The name of an earlier stage of the recipe; its folder is an input.

    Example:
        >>> StageRef("teacher").upper()
        'TEACHER'
    """


class DataFile(Marked):
    """A file, a folder of files (both hashed), ``hub:NAME``, or ``set:NAME/SPLIT`` of paper B's sets.

    Files are relative to the recipe's ``data``, a corpus named before them where their suffix does not
    tell it (``sentihood:dev.json``); for the sets see :mod:`headstart.tasks.paper_sets`.

    Example:
        >>> DataFile("sst2/train.jsonl.gz").is_on_hub
        False
    """

    @property
    def is_on_hub(self) -> bool:
        """Whether it names a data set on the Hub."""
        return self.startswith(HUB)


def of_kind(*kinds: str) -> pydantic.AfterValidator:
    """Narrow a :class:`StageRef` to stages of these kinds, so that a mix-up is told at once.

    Example:
        >>> from typing import Annotated
        >>> from headstart.config import check_settings
        >>> texts = Annotated[StageRef, of_kind("pseudo-label")]
        >>> Cluster = pydantic.create_model("Cluster", __base__=Settings, texts=texts)
        >>> check_settings({"texts": "teacher"}, Cluster, {"teacher": "teacher"})
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: texts=teacher: a stage of kind 'pseudo-label' is wanted, ...
    """

    def check(ref: StageRef, info: pydantic.ValidationInfo) -> StageRef:
        kind = (info.context or {}).get(ref)  # an unknown stage is told of elsewhere, for all refs
        if kind is not None and kind not in kinds:
            wanted = " or ".join(f"'{one}'" for one in kinds)
            raise PydanticCustomError(
                "stage_kind", f"a stage of kind {wanted} is wanted, and this one is a '{kind}'"
            )
        return ref

    return pydantic.AfterValidator(check)


class Progress(Protocol):
    """How a stage says how far it is.

    Example:
        >>> silent("scoring", 3, 10, "loss 0.69")
    """

    def __call__(self, doing: str, done: int, total: int | None = None, note: str = "") -> None:
        """Say that ``done`` of ``total`` pieces of what it is ``doing`` are done."""


def silent(doing: str, done: int, total: int | None = None, note: str = "") -> None:
    """Show nothing; the :class:`Progress` of who does not want any.

    Example:
        >>> silent("scoring", 1)
    """


@dataclass(frozen=True, slots=True)
class Context(Generic[S]):
    """All that a stage may look at.

    Attributes:
        settings: Its own, resolved.
        base_model: Name of the frozen model; ``""`` for a kind with ``uses_model=False``.
        seed: Derive generators from it: ``derive_seed(context.seed, "what for")``.
        folder: Its own folder, there already. What it holds is this very stage's partial work, left
            by a run that was stopped: continue from it, or overwrite it.
        inputs: Folder of each earlier stage that the settings name.
        data: Where each :class:`DataFile` of the settings is: a path, or ``hub:NAME`` as it is.
        progress: Call it now and then.

    Example:
        >>> context = Context(Settings(), "tiny-causal", 1, Path("runs/a/teacher"))
        >>> context.inputs, context.progress("training", 1, 100)
        ({}, None)
    """

    settings: S
    base_model: str
    seed: int
    folder: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class StageKind(Generic[S]):
    """A kind of stage that recipes may name.

    Attributes:
        name: What a recipe writes after ``kind:``.
        version: Raise it when the function makes other files from the same settings: finished
            stages of this kind are then run again.
        settings: What a recipe may set.
        run: Reads the inputs, writes into ``context.folder``. The same context must give the same
            files, byte for byte: no times and no absolute paths in them.
        uses_model: Whether the base model matters; if not, another one leaves the stage done.
        shared: Whether processes that were started together (``torchrun``) can run it, each its share.
        estimate: Says what it will take, before it begins; the folders of inputs may not be there yet.
            ``None``: not known.

    Example:
        >>> def note(context: Context[Settings]) -> None:
        ...     _ = (context.folder / "note.txt").write_text(str(context.seed))
        >>> StageKind("note", 1, Settings, note, uses_model=False).name
        'note'
    """

    name: str
    version: int
    settings: type[S]
    run: Callable[[Context[S]], None]
    uses_model: bool = True
    shared: bool = False
    estimate: Callable[[Context[S]], str] | None = None

    def __post_init__(self) -> None:
        assert re.fullmatch(NAME, self.name), self.name
        taken = set(COMMON) & set(self.settings.model_fields)
        assert not taken, f"{self.name}: every stage has {taken} already"


def table_of(*kinds: StageKind[Any]) -> dict[str, StageKind[Any]]:
    """Make the table that a recipe's kinds are looked up in.

    Example:
        >>> list(table_of(StageKind("note", 1, Settings, lambda context: None)))
        ['note']
    """
    table = {kind.name: kind for kind in kinds}
    assert len(table) == len(kinds), f"a kind's name comes twice in {[k.name for k in kinds]}"
    return table


def marked(value: object, mark: type[M], name: str = "") -> Iterator[tuple[str, M]]:
    """Find each reference or each file in settings, with its dotted name.

    Example:
        >>> class Table(Settings):
        ...     runs: tuple[StageRef, ...]
        >>> list(marked(Table.model_validate({"runs": ["maml", "ppt"]}), StageRef))
        [('runs.0', 'maml'), ('runs.1', 'ppt')]
    """
    inner: Iterable[tuple[object, object]]
    if isinstance(value, mark):
        yield name, value
        return
    if isinstance(value, pydantic.BaseModel):
        inner = iter(value)
    elif isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    else:
        return
    for key, item in inner:
        yield from marked(item, mark, f"{name}.{key}" if name else str(key))
