"""Ask a study about examples: scores under every member, labels, and files larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from headstart.errors import TemplateError
from headstart.evaluate.predictions import Sink, prediction
from headstart.evaluate.rank import content_free_rows, probabilities, scores_under
from headstart.models.base import Encoded
from headstart.recipes.study import Study
from headstart.tasks.example import Example, Rendered
from headstart.tasks.sandbox import parse
from headstart.tasks.task import Task

CHUNK = 1024
"""Rows that are read, scored and written at a time: files may be larger than memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores of examples, what they are scores of, and what was cut to make them fit.

    Attributes:
        scores_NRC: Score of each candidate of R rows under N members; C is the widest row's number
            of candidates, and -inf the score of those that another row does not have.
        cut_R: Tokens cut from each row.
        rendered_R: The questions that were asked.

    Example:
        >>> row = Rendered("a:1", "Well?", ("no", "yes"))
        >>> Scored(torch.zeros(2, 1, 2), (0,), (row,)).member(1).scores_NRC.shape
        torch.Size([1, 1, 2])
    """

    scores_NRC: Tensor
    cut_R: tuple[int, ...]
    rendered_R: tuple[Rendered, ...]

    def member(self, n: int) -> Scored:
        """Return the scores of one member alone."""
        return Scored(self.scores_NRC[n : n + 1], self.cut_R, self.rendered_R)


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
    rendered = tuple(study.task.render(example) for example in examples)
    rows = study.model.encode(rendered, study.limits)
    scores = scores_under(study.model, rows, study.bank, study.scoring, content_free, progress)
    return Scored(scores, tuple(row.truncated for row in rows), rendered)


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

    A row's candidates go by the task's labels, or by their indices where the task has none; their
    texts are kept where they differ by row.

    Raises:
        TemplateError: A row has more candidates than the task has labels.
        HeadstartError: A row has no finite scores.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.task import Task
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> study, rows = Study(load_model("tiny-causal"), task), [Example("a:1", {"text": "Hm"})]
        >>> list(predictions(study, rows, score_examples(study, rows))[0]["scores"])
        ['0', '1']
    """
    chances = probabilities(scored.scores_NRC).tolist()
    scores = scored.scores_NRC.mean(0).tolist()
    own_texts, made = texts_differ(study.task), []
    for example, asked, chance, score, cut in zip(
        examples, scored.rendered_R, chances, scores, scored.cut_R, strict=True
    ):
        names = candidate_names(study.task, asked)
        gold = example.label if asked.target is None else names[asked.target]
        texts = asked.candidates if own_texts else None
        row = prediction(example.id, names, chance, score, gold, texts)
        made.append(row | {"cut_tokens": cut})
    return made


def candidate_names(task: Task, asked: Rendered) -> tuple[str, ...]:
    """Name a row's candidates: by the task's labels, or by their indices where it has none.

    Raises:
        TemplateError: The row has more candidates than the task has labels.

    Example:
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}", "{{ choices }}"), (), ())
        >>> candidate_names(task, Rendered("a:1", "Which?", ("red", "green")))
        ('0', '1')
    """
    count = len(asked.candidates)
    indices = tuple(str(index) for index in range(count))
    if count > len(task.labels) and task.labels == indices[: len(task.labels)]:
        return indices
    check_candidates(task, asked)
    return task.labels[:count]


def check_candidates(task: Task, asked: Rendered) -> None:
    """Make sure that every candidate of a row has a label.

    Raises:
        TemplateError: The row has more candidates than the task has labels.

    Example:
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> check_candidates(task, Rendered("a:1", "Well?", ("no", "yes")))
    """
    if len(asked.candidates) > len(task.labels):
        raise TemplateError(
            f"{asked.id}: template '{task.template.name}' brings {len(asked.candidates)} answers "
            f"for {len(task.labels)} labels ({', '.join(task.labels)}); drop the row, or give every "
            "answer a label"
        )


def texts_differ(task: Task) -> bool:
    """Whether the candidates' texts may differ by row, so that a label does not tell the answer.

    Example:
        >>> from headstart.tasks.template import Template
        >>> texts_differ(Task(Template("{{ text }} {{ answer }}", "no ||| yes"), (), ()))
        False
        >>> texts_differ(Task(Template("{{ text }} {{ answer }}", "{{ a }} ||| {{ b }}"), (), ()))
        True
    """
    choices = task.template.answer_choices
    return not task.words and (choices is None or bool(parse(choices).variables))


def class_probabilities(study: Study, scored: Scored) -> Tensor:
    """Return the probability of each of the task's labels, [R, C]; 0 for those a row has not.

    Raises:
        TemplateError: A row has more candidates than the task has labels.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}", "no ||| yes"), ("0", "1", "2"), ())
        >>> study, rows = Study(load_model("tiny-causal"), task), [Example("a:1", {"text": "Hm"})]
        >>> class_probabilities(study, score_examples(study, rows))[0, 2].item()
        0.0
    """
    for asked in scored.rendered_R:
        check_candidates(study.task, asked)
    chances_RC = probabilities(scored.scores_NRC)
    missing = len(study.task.labels) - chances_RC.shape[1]
    return torch.nn.functional.pad(chances_RC, (0, missing))


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
