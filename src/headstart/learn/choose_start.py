"""Choose where a prompt starts by what each start says about the labelled rows, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from headstart.config import Scoring
from headstart.learn.gradient import PLAIN, scored
from headstart.learn.space import SHALLOW, Space
from headstart.models.base import BaseModel, Encoded
from headstart.ops.scores import candidate_cross_entropy
from headstart.prompts.bank import PromptBank


def choose_start(
    model: BaseModel,
    starts: Mapping[str, Tensor],
    rows: Sequence[Encoded],
    scoring: Scoring = PLAIN,
    space: Space = SHALLOW,
) -> tuple[str, dict[str, float]]:
    """Score the rows under every start, in one mixed batch; the lowest mean loss wins.

    The labels are training labels, so the choice costs none. A single start is taken unseen.

    Args:
        model: The frozen base model.
        starts: Prompts [P, H] by name, at least one.
        rows: Labelled rows.
        scoring: The rule the losses use.
        space: The kind of the starts. Default: shallow.

    Returns:
        The winner's name, and every start's mean loss in nats (empty for a single start).

    Example:
        >>> import torch
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,), (8,)), target=0)]
        >>> starts = {"zero": torch.zeros(2, 16), "one": torch.ones(2, 16)}
        >>> name, losses = choose_start(load_model("tiny-causal"), starts, rows)
        >>> losses[name] == min(losses.values())
        True
    """
    names = list(starts)
    if len(names) == 1:
        return names[0], {}
    bank = PromptBank.stack([starts[name] for name in names], space.kind, space.groups)
    owner = [n for n in range(len(names)) for _ in rows]
    scores_RC, gold_R = scored(model, list(rows) * len(names), bank, owner, scoring)
    loss_N = candidate_cross_entropy(scores_RC, gold_R).view(len(names), -1).mean(1)
    losses = dict(zip(names, loss_N.tolist(), strict=True))
    return min(names, key=lambda name: losses[name]), losses
