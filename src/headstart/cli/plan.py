"""``--dry-run``: what would be done, what the model reads, how long it may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.cli.output import Output

if TYPE_CHECKING:
    from headstart.cli.question import Question
    from headstart.config import TuneSettings
    from headstart.models.base import BaseModel, Encoded
    from headstart.tasks.example import Rendered


def plan_of(base: BaseModel, question: Question, settings: TuneSettings) -> dict[str, Any]:
    """Return the plan of a tuning.

    Example:
        >>> from headstart.cli.question import Question, make_task
        >>> from headstart.config import TuneSettings
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.example import Example
        >>> rows = [Example(f"a:{x}", {"text": "..."}, x) for x in ("good", "bad")]
        >>> asked = Question(make_task(rows, None, None), rows)
        >>> plan_of(load_model("tiny-causal"), asked, TuneSettings())["labels_used"]
        {'train': 2, 'dev': 0}
    """
    from headstart.recipes.fewshot import draw, limits_for

    draws = [draw(question.train, settings, seed) for seed in settings.seeds]
    used = sorted({row for drawn in draws for row in (*drawn.train, *drawn.dev)})
    rendered = [question.task.render(question.train[row]) for row in used]
    encoded = base.encode(rendered, limits_for(settings))
    slots = sum(row.size for row in encoded) / len(encoded) + settings.prompt_length
    seeds, train, each = len(settings.seeds), settings.train, slot_seconds(base)
    trained = seeds * train.num_steps * train.batch_size * slots
    return {
        "dry_run": True,
        "settings": settings.model_dump(mode="json"),
        "base_model": base.name,
        "model_choices": base.choices,
        "data": question.data,
        "labels": dict(Counter(str(row.label) for row in question.train)),
        "labels_used": {"train": len(draws[0].train), "dev": len(draws[0].dev)},
        **first_row(base, rendered, encoded),
        "prompt_bytes": 4 * settings.prompt_length * base.hidden_size,
        "estimated_seconds": {
            "tuning": round(trained * 2 * each, 1),
            "testing": round(seeds * len(question.test) * slots * each, 1),
        },
    }


def first_row(
    base: BaseModel, rendered: Sequence[Rendered], encoded: Sequence[Encoded]
) -> dict[str, Any]:
    """Return what the model reads for the first row, and the answers it is asked to choose from.

    Example:
        >>> from headstart.models.base import Limits
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.example import Rendered
        >>> base, rows = load_model("tiny-causal"), [Rendered("a:1", "Well?", ("no", "yes"), 1)]
        >>> first_row(base, rows, base.encode(rows, Limits()))["example"]["then"]
        'yes'
    """
    first = encoded[0]
    words = base.tokenizer.convert_ids_to_tokens
    return {
        "answers": {
            word: words(list(tokens))
            for word, tokens in zip(rendered[0].candidates, first.candidates, strict=True)
        },
        "example": {
            "id": first.id,
            "reads": base.tokenizer.decode(list(first.source)),
            "then": None if first.target is None else rendered[0].candidates[first.target],
            "tokens": len(first.source),
            "cut_tokens": first.truncated,
        },
    }


def slot_seconds(model: BaseModel) -> float:
    """Estimate seconds of one position's way through the model; to tune takes twice that.

    It counts matrix products at the rate measured for this machine, so it is a lower bound.

    Example:
        >>> from headstart.models.load import load_model
        >>> 0 < slot_seconds(load_model("tiny-causal")) < 1
        True
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
    return float(2 * weights / rate)


def show_plan(output: Output, plan: dict[str, Any]) -> None:
    """Print the plan of a tuning for people.

    Args:
        output: Where to.
        plan: Of ``plan_of``.
    """
    output.say("settings:")
    for name, value in plan["settings"].items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        output.say(*(f"  {name}{'.' if key else ''}{key} = {leaf}" for key, leaf in inner))
    say_model(output, plan)
    for part, kept in plan["data"].items():
        say_data(output, part, kept)
    output.say("labels: " + ", ".join(f"{label} x {n}" for label, n in plan["labels"].items()))
    used = plan["labels_used"]
    output.say(f"labels used: {used['train']} train + {used['dev']} dev per seed")
    say_first_row(output, plan)
    seconds = plan["estimated_seconds"]
    output.say(
        f"estimated: {seconds['tuning']} s tuning + {seconds['testing']} s testing at least",
        f"a prompt file: {plan['prompt_bytes'] / 1024:.0f} KB",
        "dry run: nothing was written",
    )


def say_model(output: Output, plan: dict[str, Any]) -> None:
    """Print which model it is and how it runs.

    Example:
        >>> choices = {"dtype": "float32", "attention": "sdpa"}
        >>> say_model(Output(), {"base_model": "tiny-causal", "model_choices": choices})
        base model: tiny-causal, float32, sdpa attention
    """
    choices = plan["model_choices"]
    output.say(
        f"base model: {plan['base_model']}, {choices['dtype']}, {choices['attention']} attention"
    )


def say_data(output: Output, part: str, kept: dict[str, Any]) -> None:
    """Print where rows come from.

    Example:
        >>> data = {"source": "imdb", "split": "test", "rows": 9, "columns": {"text": "text"}}
        >>> say_data(Output(), "test", data)
        test: imdb (test), 9 rows, columns {'text': 'text'}
    """
    split = f" ({kept['split']})" if kept.get("split") else ""
    more = " and more" if kept.get("more_rows") else ""
    output.say(
        f"{part}: {kept['source']}{split}, {kept['rows']} rows{more}, columns {kept['columns']}"
    )


def say_first_row(output: Output, plan: dict[str, Any]) -> None:
    """Print what the model reads for the first row.

    Example:
        >>> example = {"id": "a:1", "reads": "Well?", "then": "yes", "tokens": 5}
        >>> say_first_row(Output(), {"answers": {"yes": ["y", "es"]}, "example": example})
        answers:
          'yes': tokens ['y', 'es']
        the model reads (a:1, 5 tokens):
          | Well?
        and should answer: 'yes'
    """
    example = plan["example"]
    output.say("answers:")
    output.say(*(f"  {word!r}: tokens {tokens}" for word, tokens in plan["answers"].items()))
    output.say(f"the model reads ({example['id']}, {example['tokens']} tokens):")
    output.say(*(f"  | {line}" for line in example["reads"].split("\n")))
    if example["then"] is not None:
        output.say(f"and should answer: {example['then']!r}")
