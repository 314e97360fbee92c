"""headstart gives a language model's soft prompts a head start.

    >>> from headstart import PromptClassifier
    >>> classifier = PromptClassifier("tiny-causal", num_steps=2)
    >>> _ = classifier.fit(["lovely", "awful", "so good", "so bad"], ["good", "bad"] * 2)
    >>> classifier.classes_
    array(['bad', 'good'], dtype='<U4')

Names are imported when they are first used, so that ``import headstart`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.classifier import PromptClassifier
    from headstart.errors import HeadstartError
    from headstart.models.load import load_model
    from headstart.prompts.bank import PromptBank
    from headstart.prompts.prompt import SoftPrompt
    from headstart.tasks.example import Example
    from headstart.tasks.task import Task
    from headstart.tasks.template import Template

__all__ = [
    "Example",
    "HeadstartError",
    "PromptBank",
    "PromptClassifier",
    "SoftPrompt",
    "Task",
    "Template",
    "load_model",
]

_HOMES = {
    "Example": "headstart.tasks.example",
    "HeadstartError": "headstart.errors",
    "PromptBank": "headstart.prompts.bank",
    "PromptClassifier": "headstart.classifier",
    "SoftPrompt": "headstart.prompts.prompt",
    "Task": "headstart.tasks.task",
    "Template": "headstart.tasks.template",
    "load_model": "headstart.models.load",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("headstart")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'headstart' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, those not imported yet too."""
    return sorted({*globals(), *__all__, "__version__"})
