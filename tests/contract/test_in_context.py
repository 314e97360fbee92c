"""The in-context baseline reads its examples once; that equals reading them before every row."""

import torch

from benchmarks.in_context import demonstrations, in_context_scores
from headstart.models.base import Encoded, Limits
from headstart.models.load import load_model
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template


def test_scores_from_the_cache_equal_scores_of_the_whole_text():
    model = load_model("tiny-causal")
    task = Task(Template("{{ text }}\n{{ answer }}"), ("0", "1"), ("b", "g"))
    shots = [Example(str(i), {"text": "ab"[i % 2] * (i + 2)}, str(i % 2)) for i in range(5)]
    asked = [Example("t", {"text": text}) for text in ("hello", "hm", "something longer")]
    rows = model.encode([task.render(example) for example in asked], Limits())
    scores, used = in_context_scores(model, task, shots, rows, seed=1)
    texts = [text + "\n\n" for text in demonstrations(task, shots, seed=1)]
    context = tuple(token for text in texts for token in model.tokenizer(text)["input_ids"])
    whole = [Encoded(row.id, context + row.source, row.candidates) for row in rows]
    expected, _ = model.score(whole, None, None)
    assert used == 5
    assert torch.allclose(scores, expected, atol=1e-5)
