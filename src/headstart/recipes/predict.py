"""Ask a study about examples: scores under every member, labels, and files larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from headstart.evaluate.predictions import Sink, prediction
from headstart.evaluate.rank import content_free_rows, probabilities, scores_under
from headstart.models.base import Encoded
from headstart.recipes.study import Study
from headstart.tasks.example import Example

CHUNK = 1024
"""Rows that are read, scored and written at a time: files may be larger than memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores of examples, and what was cut to make them fit.

    Attributes:
        scores_NRC: Score of each of C candidates of R rows under N members.
        cut_R: Tokens cut from each row.

    Example:
        >>> import torch
        >>> Scored(torch.zeros(2, 1, 3), (0,)).member(1).scores_NRC.shape
        torch.Size([1, 1, 3])
    """

    scores_NRC: Tensor
    cut_R: tuple[int, ...]

    def member(self, n: int) -> Scored:
        """Return the scores of one member alone."""
        return Scored(self.scores_NRC[n : n + 1], self.cut_R)


def score_examples(
    study: Study,
    examples: Sequence[Example],
    content_free: Sequence[Encoded] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Scored:
    """Score examples under every member.

    Args:
        study: The members; one without prompts scores with the bare model.
        examples: R rows.
        content_free: Of :func:`content_free_for`.
        progress: Called with the number of scores just made (rows x members in all).

    Raises:
        DataError: A label the task does not know, or a row longer than the model.
        TemplateError: The template does not fit an example.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.task import Task
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> rows = [Example("a:1", {"text": "Well?"})]
        >>> score_examples(Study(load_model("tiny-causal"), task), rows).scores_NRC.shape
        torch.Size([1, 1, 2])
    """
    rows = study.model.encode([study.task.render(example) for example in examples], study.limits)
    scores = scores_under(study.model, rows, study.prompts, study.scoring, content_free, progress)
    return Scored(scores, tuple(row.truncated for row in rows))


def content_free_for(study: Study) -> list[Encoded]:
    """Encode what calibration needs; nothing where the study does not calibrate.

    Raises:
        UsageError: The study calibrates, and its candidates differ by row.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.task import Task
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> content_free_for(Study(load_model("tiny-causal"), task))
        []
    """
    if not study.scoring.calibrate:
        return []
    return content_free_rows(
        study.model, study.task, sorted(study.task.template.fields), study.limits
    )


def predictions(study: Study, examples: Sequence[Example], scored: Scored) -> list[dict[str, Any]]:
    """Turn scores into prediction rows; several members are averaged by probability.

    Example:
        >>> import torch
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.task import Task
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> study, rows = Study(load_model("tiny-causal"), task), [Example("a:1", {"text": "Hm"})]
        >>> predictions(study, rows, Scored(torch.tensor([[[-3.0, -1.0]]]), (0,)))[0]["predicted"]
        '1'
    """
    chances = probabilities(scored.scores_NRC).tolist()
    scores = scored.scores_NRC.mean(0).tolist()
    names = list(study.task.labels)
    return [
        prediction(example.id, names, chance, score, example.label) | {"cut_tokens": cut}
        for example, chance, score, cut in zip(examples, chances, scores, scored.cut_R, strict=True)
    ]


def predict_stream(
    study: Study,
    examples: Iterator[Example],
    sink: Sink,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Predict any number of examples a chunk at a time; return how many.

    Raises:
        DataError: A row that cannot be read, or is longer than the model.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.task import Task
        >>> from headstart.tasks.template import Template
        >>> class Kept(list):
        ...     write = list.extend
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> study, kept = Study(load_model("tiny-causal"), task), Kept()
        >>> rows = (Example(f"a:{n}", {"text": "Well?"}) for n in range(3))
        >>> predict_stream(study, rows, kept), kept[2]["id"]
        (3, 'a:2')
    """
    content_free, count = content_free_for(study), 0
    while chunk := list(islice(examples, CHUNK)):
        sink.write(predictions(study, chunk, score_examples(study, chunk, content_free)))
        count += len(chunk)
        progress(len(chunk))
    return count
