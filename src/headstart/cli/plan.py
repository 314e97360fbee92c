"""``headstart tune --dry-run``: what would be done, what the model reads, how long it may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headstart.cli.output import Output

if TYPE_CHECKING:
    from headstart.cli.question import Question
    from headstart.config import TuneSettings
    from headstart.models.base import BaseModel


def show_plan(
    output: Output,
    load: Callable[[str], BaseModel],
    model: str,
    question: Question,
    settings: TuneSettings,
) -> None:
    """Print the plan of a tuning, and as JSON where that was asked for.

    Example:
        >>> show_plan.__name__
        'show_plan'
    """
    from headstart.recipes.fewshot import draw, limits_for

    draws = [draw(question.train, settings, seed) for seed in settings.seeds]
    used = sorted({row for drawn in draws for row in (*drawn.train, *drawn.dev)})
    base = load(model)
    rendered = [question.task.render(question.train[row]) for row in used]
    encoded = base.encode(rendered, limits_for(settings))
    slots = sum(row.size for row in encoded) / len(encoded) + settings.prompt_length
    first = encoded[0]
    plan: dict[str, Any] = {
        "dry_run": True,
        "settings": settings.model_dump(mode="json"),
        "base_model": base.name,
        "model_choices": base.choices,
        "data": question.data,
        "labels": dict(Counter(str(row.label) for row in question.train)),
        "labels_used": {"train": len(draws[0].train), "dev": len(draws[0].dev)},
        "answers": {
            word: base.tokenizer.convert_ids_to_tokens(list(tokens))
            for word, tokens in zip(rendered[0].candidates, first.candidates, strict=True)
        },
        "example": {
            "id": first.id,
            "reads": base.tokenizer.decode(list(first.source)),
            "then": None if first.target is None else rendered[0].candidates[first.target],
            "tokens": len(first.source),
            "cut_tokens": first.truncated,
        },
        "prompt_bytes": 4 * settings.prompt_length * base.hidden_size,
        "estimated_seconds": estimate(base, settings, slots, len(question.test)),
    }
    _print(output, plan)
    output.result(plan)


def estimate(
    model: BaseModel, settings: TuneSettings, slots: float, test_rows: int
) -> dict[str, float]:
    """Estimate seconds: slots x 4 x weights / rate to tune, half of it a slot to test.

    It counts matrix products at the rate measured for this machine, so it is a lower bound.

    Args:
        model: The base model.
        settings: Steps, batch size, seeds.
        slots: Mean positions of a row, prompt included.
        test_rows: Rows to measure on.

    Example:
        >>> from headstart.config import TuneSettings
        >>> from headstart.models.load import load_model
        >>> sorted(estimate(load_model("tiny-causal"), TuneSettings(), 50.0, 0))
        ['testing', 'tuning']
    """
    import torch

    from headstart.models.probe import matmul_rate

    dtype = str(model.choices["dtype"])
    known = model.choices.get("gflop_per_s", {}).get(dtype)
    hidden = model.hidden_size
    rate = (
        known * 1e9
        if known
        else matmul_rate(hidden, 4 * hidden, getattr(torch, dtype), model.device)
    )
    tables = {id(model.embedding_VH): model.embedding_VH.numel()}
    head = model.network.get_output_embeddings()
    if head is not None:
        tables[id(head.weight)] = head.weight.numel()
    weights = sum(p.numel() for p in model.network.parameters()) - sum(tables.values())
    seeds, train = len(settings.seeds), settings.train
    trained = seeds * train.num_steps * train.batch_size * slots
    return {
        "tuning": round(trained * 4 * weights / rate, 1),
        "testing": round(seeds * test_rows * slots * 2 * weights / rate, 1),
    }


def _print(output: Output, plan: dict[str, Any]) -> None:
    settings, example = plan["settings"], plan["example"]
    output.say("settings:")
    for name, value in settings.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        output.say(*(f"  {name}{'.' if key else ''}{key} = {leaf}" for key, leaf in inner))
    choices = plan["model_choices"]
    output.say(
        f"base model: {plan['base_model']}, {choices['dtype']}, {choices['attention']} attention"
    )
    for part, record in plan["data"].items():
        output.say(
            f"{part}: {record['source']}, {record['rows']} rows, columns {record['columns']}"
        )
    output.say("labels: " + ", ".join(f"{label} x {n}" for label, n in plan["labels"].items()))
    used = plan["labels_used"]
    output.say(f"labels used: {used['train']} train + {used['dev']} dev per seed", "answers:")
    output.say(*(f"  {word!r}: tokens {tokens}" for word, tokens in plan["answers"].items()))
    output.say(f"the model reads ({example['id']}, {example['tokens']} tokens):")
    output.say(*(f"  | {line}" for line in example["reads"].split("\n")))
    output.say(f"and should answer: {example['then']!r}")
    seconds = plan["estimated_seconds"]
    output.say(
        f"estimated: {seconds['tuning']} s tuning + {seconds['testing']} s testing at least",
        f"a prompt file: {plan['prompt_bytes'] / 1024:.0f} KB",
        "dry run: nothing was written",
    )
