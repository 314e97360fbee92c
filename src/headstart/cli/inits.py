"""``headstart inits``: the starts that ship with the package."""

from __future__ import annotations

from headstart.cli import options
from headstart.cli.output import Output


def inits(quiet: options.QuietFlag = False, as_json: options.JsonFlag = False) -> None:
    """List the starts that ship: what each is for, what it was learned on, and what it reached."""
    from headstart.prompts.shipped import shipped_cards

    output = Output(as_json, quiet)
    cards = shipped_cards()
    if not cards:
        output.say("no start ships with this version; `--init vocab` needs none")
    for name, card in cards.items():
        output.say(f"headstart:{name}", f"  {card.training.get('about', '')}")
        for source in card.training.get("sources", []):
            output.say(f"  learned on {source['name']} ({source['licence']})")
        output.say(f"  {card.length} vectors for {card.base_model}; accuracy:")
        output.table(
            ["target task", "accuracy"],
            [[f"  {target}", f"{value:.3f}"] for target, value in card.metrics.items()],
        )
    output.result(
        {
            "inits": [
                {
                    "init": f"headstart:{name}",
                    "base_model": card.base_model,
                    "length": card.length,
                    "about": card.training.get("about", ""),
                    "sources": card.training.get("sources", []),
                    "metrics": card.metrics,
                }
                for name, card in cards.items()
            ]
        }
    )
