"""A real signal to a real process: one line, one JSON object, 128+n, and nothing left."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

MAIN = "from headstart.cli.main import main; main()"
LINES = [json.dumps({"text": f"row {n}", "label": "ab"[n % 2]}) for n in range(8)]


def start(folder: Path, *words: str, before: str = "") -> subprocess.Popen[str]:
    """A tuning that would last for hours, at a moment when its scratch folder is there."""
    (folder / "train.jsonl").write_text("\n".join(LINES))
    tune = ["tune", "train.jsonl", "--model", "tiny-causal", "--out", "out"]
    tune += ["--set", "train.num_steps=10000000", *words]
    process = subprocess.Popen(
        [sys.executable, "-c", before + MAIN, *tune],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 40
    while not list(folder.glob(".tmp-*")) and process.poll() is None:
        assert time.monotonic() < until, "the tuning did not begin"
        time.sleep(0.05)
    time.sleep(1.0)
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=15)
    finally:
        process.kill()
    return process.returncode, out, err


def test_a_stop_cleans_up_and_says_so(tmp_path: Path) -> None:
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    process = start(tmp_path, "--json", before=nohup)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None, "what nohup silenced was heard"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # as `timeout` does: it must not break the cleaning up
    code, out, err = finish(process)
    line = "stopped by SIGTERM; nothing was left half-written"
    assert code == 128 + signal.SIGTERM, err
    assert err.splitlines()[-1] == f"error: {line}" and "Traceback" not in err
    assert json.loads(out) == {"error": line, "exit_code": 128 + signal.SIGTERM}
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_a_terminal_that_is_gone_does_not_matter(tmp_path: Path) -> None:
    process = start(tmp_path, "--json")
    assert process.stderr is not None
    process.stderr.close()  # it takes no more words
    process.stderr = None
    process.send_signal(signal.SIGHUP)
    code, out, _ = finish(process)
    assert code == json.loads(out)["exit_code"] == 128 + signal.SIGHUP
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]
