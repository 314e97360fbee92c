"""The one training loop: it knows when, the step knows what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Step = Callable[[int], None]
"""Does one update, given its index from 0."""

Event = Callable[[int], bool]
"""Looks after an update, given how many are done; returns True to end the run."""


def run_loop(
    step: Step, num_steps: int, events: Sequence[tuple[int, Event]] = (), first: int = 0
) -> int:
    """Run ``num_steps`` updates; call each event every so many of them, and once at the end.

    Args:
        step: One update.
        num_steps: How many, unless an event ends the run.
        events: Pairs (every, event).
        first: The index to begin with, for a run that goes on. Default: 0.

    Returns:
        The number of updates done.

    Example:
        >>> seen = []
        >>> run_loop(lambda index: None, 5, [(2, lambda done: bool(seen.append(done)))]), seen
        (5, [2, 4, 5])
    """
    for done in range(first + 1, num_steps + 1):
        step(done - 1)
        due = [event for every, event in events if done % every == 0 or done == num_steps]
        answers = [event(done) for event in due]
        if any(answers):
            return done
    return num_steps
