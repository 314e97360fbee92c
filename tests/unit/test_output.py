"""What people are told while they wait."""

import pytest

from headstart.cli import output


def test_time_left_counts_from_where_a_run_went_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 110.0, 130.0])  # begun, and two looks
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(output, "EVERY", 0)
    progress = output._Lines("tuning", 15)
    progress.to(9, "step 4")
    progress.to(10)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "tuning: 9/15, step 4"
    assert second == "tuning: 10/15, about 100 s left"
