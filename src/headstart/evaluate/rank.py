"""Rank the candidates of rows by the model's score, with or without contextual calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from headstart.config import Scoring
from headstart.errors import UsageError
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.models.batches import score_all
from headstart.ops.scores import calibrate, rank_scores
from headstart.prompts.bank import PromptBank
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template

CONTENT_FREE = ("N/A", "[MASK]", "nothing")
"""Texts without content, after Zhao et al. 2021; what is said about them is bias."""


def scores_under(
    model: BaseModel,
    rows: Sequence[Encoded],
    bank: PromptBank | None,
    scoring: Scoring,
    content_free: Sequence[Encoded] = (),
    progress: Callable[[int], None] = lambda rows_done: None,
) -> Tensor:
    """Score every row under every prompt, all in one stream of mixed batches.

    Args:
        model: The base model.
        rows: R encoded rows.
        bank: N prompts; ``None``: the rows are scored without one, as N = 1.
        scoring: The rule, and whether to calibrate.
        content_free: Rows of :func:`content_free_rows`, needed where ``scoring.calibrate``.
        progress: Called with the number of scores just made.

    Returns:
        Scores [N, R, C]; -inf for a candidate a row does not have.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,), (8, 9)))]
        >>> scores_under(load_model("tiny-causal"), rows, None, Scoring()).shape
        torch.Size([1, 1, 2])
    """
    N, R = 1 if bank is None else len(bank), len(rows)
    owners = [n for n in range(N) for _ in range(R)]
    logprob, length = score_all(model, list(rows) * N, bank, owners, progress)
    scores = rank_scores(logprob, length, scoring.rule, scoring.gamma)
    scores_NRC = scores.reshape(N, R, scores.shape[1])
    if not scoring.calibrate:
        return scores_NRC
    plain = scoring.model_copy(update={"calibrate": False})
    bias_NRC = scores_under(model, content_free, bank, plain)
    bias_NC = bias_NRC.logsumexp(1) - math.log(bias_NRC.shape[1])
    return calibrate(scores_NRC, bias_NC[:, None, :])


def content_free_rows(
    model: BaseModel, task: Task, field_names: Sequence[str], limits: Limits
) -> list[Encoded]:
    """Encode the task's question about texts without content.

    Raises:
        UsageError: The template brings candidates that differ by row, so there is no common bias.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} It was {{ answer }}"), ("0", "1"), ("bad", "good"))
        >>> len(content_free_rows(load_model("tiny-causal"), task, ["text"], Limits()))
        3
    """
    check_calibration(task)
    blanks = [
        Example(f"content-free:{text}", dict.fromkeys(field_names, text)) for text in CONTENT_FREE
    ]
    return model.encode([task.render(blank) for blank in blanks], limits)


def check_calibration(task: Task) -> None:
    """Make sure that all rows have the same candidates, so that there is one bias to subtract.

    Raises:
        UsageError: The template's candidates depend on the row, or it has none of its own.

    Example:
        >>> from headstart.tasks.template import Template
        >>> check_calibration(Task(Template("{{ text }} ||| {{ a }}", "no ||| yes"), (), ()))
    """
    choices = task.template.answer_choices
    if not task.words and (choices is None or Template(choices).fields):
        raise UsageError(
            f"calibration needs the same candidates for every row; those of template "
            f"'{task.template.name}' depend on the row: leave scoring.calibrate off"
        )


def probabilities(scores_NRC: Tensor) -> Tensor:
    """Average the members' probabilities over the candidates: [R, C], rows summing to 1.

    A candidate that a row does not have scores -inf, and has probability 0.

    Example:
        >>> import torch
        >>> probabilities(torch.tensor([[[0.0, 0.0, -torch.inf]]])).tolist()
        [[0.5, 0.5, 0.0]]
    """
    return scores_NRC.float().softmax(-1).mean(0)
