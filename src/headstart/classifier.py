"""The scikit-learn estimator: texts and labels in, a soft prompt on a frozen model inside."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import warnings
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from headstart.config import FewShot, Scoring, TuneSettings, check_settings
from headstart.errors import DataError, UsageError
from headstart.models.base import BaseModel
from headstart.models.load import Attention, Dtype, cached_model
from headstart.prompts.files import PromptCard, check_fingerprint, load_prompt, save_prompt
from headstart.recipes.estimator_card import SHARED, classes_of, parameters_of
from headstart.recipes.fewshot import card_for, tune_seeds
from headstart.recipes.from_card import card_errors, result_of, settings_of, task_of
from headstart.recipes.predict import class_probabilities, content_free_for, score_examples
from headstart.recipes.study import assemble, new_folder, seed_folders
from headstart.recipes.write_study import Tuning, write_study
from headstart.tasks.example import Example
from headstart.tasks.rows import examples_from, label_name, labels_from
from headstart.tasks.task import Task
from headstart.tasks.template import Template
from headstart.tasks.verbalizer import task_for

log = logging.getLogger(__name__)

_DEFAULTS = TuneSettings()
_TRAIN, _SCORING = _DEFAULTS.train, _DEFAULTS.scoring


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify texts with a soft prompt, tuned from a few labels on a frozen language model.

    Args:
        model: The base model's name, folder or hub id; or a loaded model, which clones share and
            pickles replace by its name.
        init: The prompt's start: ``headstart``, ``vocab``, ``class-words``, ``text:...``, ...
        prompt_kind: ``shallow`` (vectors beside the text), ``deep`` or ``gated`` (keys and values of
            every layer).
        prompt_length: Vectors of the prompt.
        template: A Jinja text that asks the question, e.g. ``"{{ text }} It was {{ answer }}"``.
            Default None: made from the names of the fields.
        label_words: The word of each label. Default None: made from the labels themselves.
        dev_size: Rows that ``fit`` holds out for early stopping. Default 0: ``num_steps`` updates.
        max_length: Truncate longer rows to this many tokens, prompt included. Default None: a row
            longer than the model is an error.
        optimizer: This and the following, to ``least_factored``: see ``headstart.config.FewShot``.
        rule: This and the following, to ``calibrate``: see ``headstart.config.Scoring``.
        dtype: Of the base model's weights; ``auto``: what is fastest here, or the loaded model's.
        attention: The attention kernel; ``auto``: the same.
        random_state: Draws the initial prompt, the held-out rows and the order of rows.
        verbose: Log every update's loss, at level INFO.

    Attributes:
        classes_: The labels as they were given, sorted.
        prompt_: The tuned prompt.
        card_: Everything about it: task, settings, label ledger, versions.

    Example:
        >>> classifier = PromptClassifier("tiny-causal", lr_scale=0.2, num_steps=30)
        >>> classifier.fit(["aaaa", "zzzz", "aaa", "zzz"], ["x", "y", "x", "y"]).predict(["aa", "zz"])
        array(['x', 'y'], dtype='<U1')
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | BaseModel = "smollm2-135m",
        *,
        init: str = _DEFAULTS.init,
        prompt_kind: str = _DEFAULTS.prompt_kind,
        prompt_length: int = _DEFAULTS.prompt_length,
        template: str | Template | None = None,
        label_words: Mapping[Any, str] | None = None,
        dev_size: int = _DEFAULTS.dev_shots,
        max_length: int | None = _DEFAULTS.max_length,
        optimizer: str = _TRAIN.optimizer,
        lr: float | None = _TRAIN.lr,
        lr_scale: float = _TRAIN.lr_scale,
        schedule: str = _TRAIN.schedule,
        warmup_steps: int = _TRAIN.warmup_steps,
        num_steps: int = _TRAIN.num_steps,
        batch_size: int = _TRAIN.batch_size,
        clip_norm: float = _TRAIN.clip_norm,
        weight_decay: float = _TRAIN.weight_decay,
        loss: str = _TRAIN.loss,
        start_worth: float = _TRAIN.start_worth,
        eval_every: int = _TRAIN.eval_every,
        patience: int = _TRAIN.patience,
        reparameterise: int | None = _TRAIN.reparameterise,
        least_factored: int = _TRAIN.least_factored,
        rule: str = _SCORING.rule,
        gamma: float = _SCORING.gamma,
        eos: bool = _SCORING.eos,
        calibrate: bool = _SCORING.calibrate,
        dtype: Dtype = "auto",
        attention: Attention = "auto",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.init = init
        self.prompt_kind = prompt_kind
        self.prompt_length = prompt_length
        self.template = template
        self.label_words = label_words
        self.dev_size = dev_size
        self.max_length = max_length
        self.optimizer = optimizer
        self.lr = lr
        self.lr_scale = lr_scale
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.clip_norm = clip_norm
        self.weight_decay = weight_decay
        self.loss = loss
        self.start_worth = start_worth
        self.eval_every = eval_every
        self.patience = patience
        self.reparameterise = reparameterise
        self.least_factored = least_factored
        self.rule = rule
        self.gamma = gamma
        self.eos = eos
        self.calibrate = calibrate
        self.dtype = dtype
        self.attention = attention
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Tune a prompt.

        Args:
            X: Texts, dicts of fields, a data frame, or a column of texts of shape (n, 1).
            y: A label for each: texts, whole numbers or booleans.

        Returns:
            The classifier itself.

        Raises:
            DataError: Rows or labels that cannot be used.
            TemplateError: A template or label words that do not fit the data.
            UsageError: A parameter that is wrong in itself, or not the loaded model's.
            ModelError: The base model cannot be loaded.
            HeadstartError: The prompt is not finite; it says what to try.

        Warns:
            ConvergenceWarning: The prompt did not learn; it says what to try.

        Example:
            >>> classifier = PromptClassifier("tiny-causal", num_steps=1)
            >>> classifier.fit([{"q": "a", "p": "b"}, {"q": "c", "p": "d"}], ["no", "yes"]).classes_
            array(['no', 'yes'], dtype='<U3')
        """
        settings = self._settings()
        rows, labels = examples_from(X), labels_from(y)
        if len(rows) != len(labels):
            raise DataError(f"{len(rows)} rows and {len(labels)} labels; give one label per row")
        classes = np.unique(labels)
        examples = [
            Example(row.id, row.fields, label_name(label))
            for row, label in zip(rows, labels, strict=True)
        ]
        task = self._task(examples[0], classes)
        base = self._load_base()
        result = tune_seeds(base, task, examples, settings, self._progress)[0]
        if result.advice:
            warnings.warn(result.advice, ConvergenceWarning, stacklevel=2)
        card = card_for(
            result, base, base.fingerprint(), task, settings, self._data_record(examples)
        )
        own = {"params": self._plain_params(), "classes": [classes.dtype.str, classes.tolist()]}
        training = {**card.training, "classifier": own}
        self.card_ = card.model_copy(update={"training": training})
        self.classes_, self.prompt_, self._base = classes, result.prompt, base
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class, in the order of ``classes_``; rows sum to 1.

        Raises:
            NotFittedError: ``fit`` comes first.
            DataError: Rows that cannot be used.
            PromptFileError: After unpickling: the base model is not the one of ``fit``.

        Example:
            >>> classifier = PromptClassifier("tiny-causal", num_steps=1)
            >>> classifier.fit(["a", "z"], [False, True]).predict_proba(["a", "b", "c"]).shape
            (3, 2)
        """
        check_is_fitted(self)
        study = assemble(self._fitted_base(), [("fit", self.prompt_, self.card_)])
        scored = score_examples(study, examples_from(X), content_free_for(study))
        chances_RC: np.ndarray = class_probabilities(study, scored).double().numpy()
        chances_RC /= chances_RC.sum(axis=1, keepdims=True)
        return chances_RC

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of every row.

        Raises:
            NotFittedError: ``fit`` comes first.
            DataError: Rows that cannot be used.
            PromptFileError: After unpickling: the base model is not the one of ``fit``.

        Example:
            >>> classifier = PromptClassifier("tiny-causal", num_steps=1)
            >>> len(classifier.fit(["a", "z"], [False, True]).predict(["a", "b", "c"]))
            3
        """
        chances_RC = self.predict_proba(X)
        predicted: np.ndarray = self.classes_[chances_RC.argmax(axis=1)]
        return predicted

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Save the prompt as `headstart tune` does, for ``load`` and the command line.

        Raises:
            NotFittedError: ``fit`` comes first.
            UsageError: The folder holds something already, or the labels are neither texts, numbers
                nor booleans.
            PromptFileError: After unpickling: the base model is not the one of ``fit``.
            StorageError: The folder cannot be written to.

        Example:
            >>> import tempfile
            >>> folder = Path(tempfile.mkdtemp()) / "out"
            >>> PromptClassifier("tiny-causal", num_steps=1).fit(["a", "z"], [0, 1]).save(folder)
            >>> sorted(path.name for path in folder.iterdir())
            ['README.md', 'seed-0', 'study.json']
        """
        check_is_fitted(self)
        card: PromptCard = self.card_
        result = result_of(self.prompt_, card)
        tuning = Tuning(
            self._fitted_base(), task_of(card), settings_of(card), [result], card.training["data"]
        )
        with new_folder(Path(folder), overwrite) as scratch:
            write_study(scratch, tuning)
            # Again, with what the command line does not know: the labels in their own type.
            save_prompt(scratch / f"seed-{result.seed}", self.prompt_, card)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str] | BaseModel | None = None,
        seed: int | None = None,
    ) -> Self:
        """Load what ``save`` or `headstart tune` wrote, and the base model it was made for.

        Args:
            folder: A study's folder, or one prompt's.
            model: The same base model under another name, or loaded. Default None: the card's name.
            seed: Which of a study's prompts. Default None: its only one.

        Raises:
            PromptFileError: Damaged files, or made for another base model.
            UsageError: A study of several prompts and no ``seed``, or no such seed.
            ModelError: The base model cannot be loaded.

        Example:
            >>> import tempfile
            >>> folder = Path(tempfile.mkdtemp()) / "out"
            >>> PromptClassifier("tiny-causal", num_steps=1).fit(["a", "z"], [0, 1]).save(folder)
            >>> PromptClassifier.load(folder).classes_
            array([0, 1])
        """
        members = seed_folders(Path(folder), seed)
        if len(members) > 1:
            names = ", ".join(member.name.removeprefix("seed-") for member in members)
            raise UsageError(f"{folder}: holds the seeds {names}; choose one with seed=...")
        prompt, card = load_prompt(members[0])
        with card_errors(members[0]):
            loaded = cls(**parameters_of(card))
            loaded.classes_, loaded.prompt_, loaded.card_ = classes_of(card), prompt, card
        if model is not None:
            loaded.model = model
            if not isinstance(model, (str, os.PathLike)):
                loaded.dtype = loaded.attention = "auto"
        loaded._fitted_base()
        return loaded

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.input_tags.dict = True
        return tags

    def __sklearn_clone__(self) -> Self:
        # A loaded model is shared: it is frozen, and a deep copy of it may take gigabytes.
        twin: Self = super(PromptClassifier, copy.copy(self)).__sklearn_clone__()
        twin.model, twin.dtype, twin.attention = self.model, self.dtype, self.attention
        return twin

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_base", None)
        if not isinstance(self.model, (str, os.PathLike)):
            state["model"] = self.model.name
            state |= {k: v for k, v in self.model.choices.items() if k in ("dtype", "attention")}
        return state

    def _load_base(self) -> BaseModel:
        if isinstance(self.model, (str, os.PathLike)):
            return cached_model(os.fspath(self.model), self.dtype, self.attention)
        for name in ("dtype", "attention"):
            wanted, has = getattr(self, name), self.model.choices.get(name, "its own")
            if wanted not in ("auto", has):
                raise UsageError(
                    f"{name}={wanted!r} is not the loaded model's ({has}); leave it at 'auto', or "
                    f"load the model with it: load_model(..., {name}={wanted!r})"
                )
        return self.model

    def _fitted_base(self) -> BaseModel:
        """The base model of ``fit``; after ``load`` or unpickling, loaded again and checked."""
        if not hasattr(self, "_base"):
            base = self._load_base()
            check_fingerprint(Path(type(self).__name__), self.card_, base.fingerprint())
            self._base = base
        return self._base

    def _settings(self) -> TuneSettings:
        named = {name: getattr(self, name) for name in SHARED}
        train = {name: getattr(self, name) for name in FewShot.model_fields}
        scoring = {name: getattr(self, name) for name in Scoring.model_fields}
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        shots = {"dev_shots": self.dev_size, "seeds": (int(seed),)}
        return check_settings({**named, **shots, "train": train, "scoring": scoring})

    def _task(self, first: Example, classes: np.ndarray) -> Task:
        template, words = self.template, self.label_words
        if isinstance(template, str):
            template = Template(template)
        if words is not None:
            if not isinstance(words, Mapping):
                raise UsageError(f"label_words={words!r}: expected a dict from label to word")
            words = {label_name(label): word for label, word in words.items()}
        return task_for(first, [label_name(label) for label in classes], template, words)

    def _data_record(self, examples: list[Example]) -> dict[str, Any]:
        content = repr([(sorted(row.fields.items()), row.label) for row in examples])
        digest = hashlib.sha256(content.encode()).hexdigest()
        source = f"{type(self).__name__}.fit"
        return {"train": {"source": source, "rows": len(examples), "sha256": digest}}

    def _plain_params(self) -> dict[str, Any]:
        """The parameters that JSON can hold; the card's task holds the others."""
        return {
            name: value
            for name, value in self.get_params(deep=False).items()
            if value is None or type(value) in (str, int, float, bool)
        }

    def _progress(self, done: int, loss: float) -> None:
        if self.verbose:
            log.info("step %d of %d, loss %.4f", done, self.num_steps, loss)
