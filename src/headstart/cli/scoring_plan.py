"""``--dry-run`` of `evaluate` and `predict`: what would be read, asked and answered, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.cli.output import Output
from headstart.cli.plan import first_row, say_data, say_first_row, say_model, slot_seconds

if TYPE_CHECKING:
    from headstart.recipes.study import Study
    from headstart.tasks.example import Example


def show_scoring_plan(
    output: Output,
    study: Study,
    rows: Sequence[Example],
    data: dict[str, Any],
    zero_shot: bool = False,
) -> None:
    """Print the plan of scoring rows, and as JSON where that was asked for.

    Args:
        output: Where to.
        study: The prompts.
        rows: The rows, or the first of them.
        data: Where they come from.
        zero_shot: Whether they are scored without a prompt too.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.recipes.study import Study
        >>> from headstart.tasks.example import Example
        >>> from headstart.tasks.task import Task
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> study, rows = Study(load_model("tiny-causal"), task), [Example("a:1", {"text": "Hm"})]
        >>> data = {"source": "a.csv", "rows": 1, "columns": {"text": "text"}}
        >>> show_scoring_plan(Output(), study, rows, data)
        base model: tiny-causal, ...
        dry run: nothing was written
    """
    base = study.model
    rendered = [study.task.render(row) for row in rows]
    encoded = base.encode(rendered, study.limits)
    text = sum(row.size for row in encoded)
    slots = sum(text + len(rows) * len(prompt) for prompt in study.prompts)
    slots += text if zero_shot or not study.prompts else 0
    plan = {
        "dry_run": True,
        "base_model": base.name,
        "model_choices": base.choices,
        "members": list(study.seeds),
        "scoring": study.scoring.model_dump(),
        "data": data,
        "cut_rows": sum(row.truncated > 0 for row in encoded),
        **first_row(base, rendered, encoded),
        "estimated_seconds": {"scoring": round(slots * slot_seconds(base), 1)},
    }
    say_model(output, plan)
    output.say(f"prompts: {', '.join(study.seeds) or 'none'}")
    output.say("scoring: " + ", ".join(f"{k}={v}" for k, v in study.scoring.model_dump().items()))
    say_data(output, "rows", data)
    output.say_cut(plan["cut_rows"], len(rows))
    say_first_row(output, plan)
    which = "the first " if data.get("more_rows") else ""
    seconds = plan["estimated_seconds"]["scoring"]
    output.say(
        f"estimated: {seconds} s at least for {which}{len(rows)} rows",
        "dry run: nothing was written",
    )
    output.result(plan)
