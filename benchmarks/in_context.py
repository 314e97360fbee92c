"""In-context examples as a baseline: as many labelled examples as fit stand before each test row.

The examples are read once into a key/value cache, and every test row is scored from it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from headstart.models.base import BaseModel, Encoded
from headstart.models.encode import text_before_answer
from headstart.ops.scores import answer_logprobs, rank_scores
from headstart.seeds import derive_seed
from headstart.tasks.example import Example
from headstart.tasks.task import Task

ROWS = 8


def demonstrations(task: Task, examples: Sequence[Example], seed: int) -> list[str]:
    """Render each example with its answer, in a seeded order."""
    order = torch.randperm(
        len(examples), generator=torch.Generator().manual_seed(derive_seed(seed, "in-context"))
    )
    asked = [task.render(examples[i]) for i in order.tolist()]
    return [f"{text_before_answer(row)} {row.candidates[row.target or 0]}" for row in asked]


@torch.inference_mode()
def in_context_scores(
    model: BaseModel, task: Task, examples: Sequence[Example], test: Sequence[Encoded], seed: int
) -> tuple[torch.Tensor, int]:
    """Score one-token candidates after the demonstrations; return scores [R, C] and how many fitted."""
    assert all(len(answer) == 1 for row in test for answer in row.candidates)
    room = (model.max_length or 1024) - max(len(row.source) for row in test)
    context: list[int] = []
    used = 0
    for text in demonstrations(task, examples, seed):
        tokens = model.tokenizer(text + "\n\n")["input_ids"]
        if len(context) + len(tokens) > room:
            break
        context, used = context + tokens, used + 1
    cache = DynamicCache(config=model.network.config)
    model.network.base_model(torch.tensor([context]), past_key_values=cache, use_cache=True)
    scores = torch.empty(len(test), len(test[0].candidates))
    order = sorted(range(len(test)), key=lambda i: len(test[i].source))
    for start in range(0, len(order), ROWS):
        group = order[start : start + ROWS]
        scores[group] = _from_cache(model, [test[i] for i in group], cache, len(context))
    return scores, used


def _from_cache(model: BaseModel, rows: Sequence[Encoded], cache: Any, past: int) -> torch.Tensor:
    longest = max(len(row.source) for row in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), past + longest, dtype=torch.long)
    mask[:, :past] = 1
    for b, row in enumerate(rows):
        tokens[b, : len(row.source)] = torch.tensor(row.source)
        mask[b, past : past + len(row.source)] = 1
    own = copy.deepcopy(cache)
    own.batch_repeat_interleave(len(rows))
    hidden = model.network.base_model(
        tokens,
        attention_mask=mask,
        position_ids=torch.arange(past, past + longest).expand(len(rows), -1),
        past_key_values=own,
        use_cache=True,
    ).last_hidden_state
    last = torch.tensor([len(row.source) - 1 for row in rows])
    read_BQH = hidden[torch.arange(len(rows)), last][:, None]
    answer_BCK = torch.tensor([row.candidates for row in rows])
    first, real = torch.zeros_like(answer_BCK), torch.ones_like(answer_BCK).bool()
    head_VH = model.network.get_output_embeddings().weight
    return rank_scores(*answer_logprobs(read_BQH, head_VH, answer_BCK, first, real))
