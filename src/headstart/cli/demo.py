"""``headstart demo``: three small data sets, tuned from 40 labels each while you watch."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import options
from headstart.cli.output import Output

if TYPE_CHECKING:
    from headstart.cli.question import Question
    from headstart.config import TuneSettings
    from headstart.models.base import BaseModel
    from headstart.recipes.judge import Judgement
    from headstart.recipes.study import Study

SHOTS, SEED = 40, 1


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A shipped data set: how it is asked about, and sentences that are not in it.

    Attributes:
        template: The question.
        init: What the prompt starts from: the task in words.
        fresh: Sentences to classify at the end.

    Example:
        >>> TASKS["product_feedback"].fresh[0]
        'Lasted two days, then the lid snapped clean off.'
    """

    template: str
    init: str
    fresh: tuple[str, ...]


TASKS = {
    "support_tickets": DemoTask(
        "{{ text }}\nThis ticket goes to the team for {{ answer }}",
        "text:Read the message of a customer and choose the team that "
        "should answer it: billing, technical, shipping, account or returns.",
        (
            "You took the subscription fee twice this month, please put one of them back.",
            "The courier says delivered, but there is nothing on my doorstep.",
            "The app closes itself whenever I open the camera tab.",
        ),
    ),
    "product_feedback": DemoTask(
        "{{ text }}\nOverall the verdict is {{ answer }}",
        "text:Read the review of a customer and decide whether the opinion "
        "in it is negative, mixed or positive as a whole.",
        (
            "Lasted two days, then the lid snapped clean off.",
            "Comfortable chair, though the armrests already wobble.",
            "Best torch I have owned; I bought a second one for the car.",
        ),
    ),
    "message_intent": DemoTask(
        "{{ text }}\nThe purpose of this message: {{ answer }}",
        "text:Read the message and decide what the sender "
        "wants: question, request, complaint, thanks, invitation or update.",
        (
            "Could you water the tomatoes while we are away?",
            "We are having a bonfire on Saturday, bring a jumper and come along!",
            "The boiler has been fixed, hot water is back on.",
        ),
    ),
}


class DemoName(StrEnum):
    """The demo's tasks by name.

    Example:
        >>> DemoName("all").value
        'all'
    """

    support_tickets = "support_tickets"
    product_feedback = "product_feedback"
    message_intent = "message_intent"
    all = "all"


def demo(
    ctx: typer.Context,
    task: Annotated[DemoName, typer.Option(help="Which data set.")] = DemoName.all,
    model: options.ModelFlag = "smollm2-135m",
    assignments: options.SetFlag = None,
    dry_run: options.DryRunFlag = False,
    out: Annotated[Path, typer.Option(help="Where the prompts are kept.")] = Path("runs/demo"),
    quiet: options.QuietFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """See it work on three small shipped data sets."""
    from headstart.cli.tune import settings_from
    from headstart.recipes.study import check_new

    output = Output(as_json, quiet)
    names = list(TASKS) if task is DemoName.all else [task.value]
    for name in names:
        check_new(out / name, overwrite=True)
    drawn = {"num_shots": SHOTS, "seeds": (SEED,)}
    settings = {
        name: settings_from({**drawn, "init": TASKS[name].init}, assignments or [])
        for name in names
    }
    shots = settings[names[0]].num_shots or "all"
    output.note(f"{shots} labels each, frozen model {model}: loading it")
    started = time.perf_counter()
    base = options.loader(options.Dtype.auto, options.Attention.auto)(model)
    if dry_run:
        _plan(output, base, settings)
        return
    results = []
    for name in names:
        results.append(_run_task(output, name, base, settings[name], out / name, ctx.obj))
    seconds = time.perf_counter() - started
    _report(output, results, seconds)
    _say_next(output, results[0], model)
    output.result({"model": model, "tasks": results, "seconds": round(seconds, 1)})


def demo_file(name: str, part: str) -> Path:
    """Return the path of a shipped data file.

    Example:
        >>> demo_file("support_tickets", "train").is_file()
        True
    """
    return Path(str(files("headstart"))) / "demo_data" / name / f"{part}.jsonl"


def _plan(output: Output, base: BaseModel, settings: dict[str, TuneSettings]) -> None:
    from headstart.cli.plan import plan_of, show_plan

    plans = []
    for name, its_settings in settings.items():
        plan = plan_of(base, _question(name), its_settings)
        output.say(f"== {name}")
        show_plan(output, plan)
        plans.append({"task": name, **plan})
    output.result({"dry_run": True, "model": base.name, "tasks": plans})


def _run_task(
    output: Output, name: str, base: BaseModel, settings: TuneSettings, folder: Path, command: str
) -> dict[str, Any]:
    """Tune, measure, save and try one data set."""
    from headstart.cli.tune import tune_rows
    from headstart.recipes.study import new_folder
    from headstart.recipes.write_study import write_study

    question = _question(name)
    started = time.perf_counter()
    with new_folder(folder, overwrite=True) as scratch:
        tuning = tune_rows(output, base, question, settings, command, f"{name}: ")
        study = tuning.study()
        judged = _judge(output, f"{name}: testing", study, question)
        bare = _judge(
            output, f"{name}: testing without a prompt", replace(study, prompts=()), question
        )
        summary = write_study(scratch, tuning, judged)
    learned = settings.model_copy(update={"init": "headstart"})
    twin = tune_rows(output, base, question, learned, command, f"{name}, learned start: ")
    ahead = _judge(output, f"{name}: testing the learned start", twin.study(), question)
    seconds = time.perf_counter() - started
    output.note(
        f"{name}: accuracy {bare.ensemble['accuracy']:.3f} -> {judged.ensemble['accuracy']:.3f}"
    )
    return {
        "task": name,
        "classes": len(question.task.labels),
        "labels_used": summary["seeds"][0]["labels"]["total"],
        "test_rows": len(question.test),
        "zero_shot": bare.ensemble,
        "tuned": judged.ensemble,
        "tuned_from_headstart": ahead.ensemble,
        "init": settings.init,
        "headstart": twin.results[0].prompt.spec.init,
        "seconds": round(seconds, 1),
        "prompt_bytes": summary["prompt_bytes"],
        "advice": summary["seeds"][0]["advice"],
        "folder": str(folder),
        "fresh": _classify(study, name),
    }


def _question(name: str) -> Question:
    from headstart.cli.question import read_question, read_template

    return read_question(
        str(demo_file(name, "train")),
        str(demo_file(name, "test")),
        template=read_template(TASKS[name].template, None, None),
        words=None,
        label="label",
        columns={"text": "text"},
        limit_test=None,
    )


def _judge(output: Output, label: str, study: Study, question: Question) -> Judgement:
    from headstart.recipes.judge import judge

    with output.progress(label, len(question.test)) as progress:
        return judge(study, question.test, progress.add)


def _classify(study: Study, name: str) -> list[dict[str, Any]]:
    """Label the fresh sentences."""
    from headstart.recipes.predict import predictions, score_examples
    from headstart.tasks.example import Example

    rows = [Example(f"fresh:{n}", {"text": text}) for n, text in enumerate(TASKS[name].fresh, 1)]
    found = predictions(study, rows, score_examples(study, rows))
    return [
        {
            "text": row.fields["text"],
            "label": each["predicted"],
            "probability": each["probabilities"][each["predicted"]],
        }
        for row, each in zip(rows, found, strict=True)
    ]


def _report(output: Output, results: list[dict[str, Any]], seconds: float) -> None:
    header = ["task", "classes", "test rows", "zero-shot", "tuned", "from headstart"]
    header += ["seconds", "prompt file"]
    rows = [
        [
            each["task"],
            each["classes"],
            each["test_rows"],
            each["zero_shot"]["accuracy"],
            each["tuned"]["accuracy"],
            each["tuned_from_headstart"]["accuracy"],
            f"{each['seconds']:.1f}",
            f"{each['prompt_bytes'] / 1024:.0f} KB",
        ]
        for each in results
    ]
    output.table(header, rows)
    used = " or ".join(sorted({str(each["labels_used"]) for each in results}))
    output.say(
        "",
        f"accuracy on the test rows, from {used} labels each; {seconds:.0f} s in all",
        *(
            f"{each['task']}: tuned from {each['init'].partition(':')[0]}, and from {each['headstart']}"
            for each in results
        ),
        "",
    )
    output.say("sentences that are in no file:")
    for each in results:
        for row in each["fresh"]:
            output.say(f"  {row['label']:<10} {row['probability']:4.0%}  {row['text']}")
        if each["advice"]:
            output.say(f"{each['task']}: {each['advice']}")


def _say_next(output: Output, first: dict[str, Any], model: str) -> None:
    train, test = (quote(str(demo_file(first["task"], part))) for part in ("train", "test"))
    template = TASKS[first["task"]].template.replace("\n", "\\n")
    init = quote(TASKS[first["task"]].init)
    output.say(
        "",
        "next: the same by hand, with three seeds (then put your own file there)",
        f"  headstart tune {train} --model {quote(model)} --shots {SHOTS} --seeds 1,2,3 \\",
        f"    --template '{template}' \\",
        f"    --init {init} \\",
        f"    --test {test} --out runs/{first['task']}",
        "and label rows with a prompt that was just made:",
        f"  headstart predict {quote(first['folder'])} {test} --out runs/predictions.jsonl",
    )
