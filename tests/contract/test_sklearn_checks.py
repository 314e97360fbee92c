"""scikit-learn's own estimator checks.

`check_estimator` returns at once for an estimator that does not take numbers, so it says nothing
here. Honest instead: (i) every check that needs no numbers, one by one; (ii) all that scikit-learn
runs on a classifier, on a thin adapter that writes numbers as text. None is expected to fail.

What runs in neither, because it is about something a prompt classifier does not have:
  check_sample_weight*, check_all_zero_sample_weights_error     `fit` takes no weights
  check_class_weight*                                           no parameter `class_weight`
  check_classifier_multioutput, check_*multilabel*              one label a row
  check_classifier_not_supporting_multiclass                    it takes many classes
  check_param_validation                                        scikit-learn's private constraints;
                                                                ours are pydantic's, in test_classifier
  check_array_api_*                                             text is no array of a GPU library
  check_{transformer,regressor,cluster,outlier,set_output}*     another kind of estimator
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.utils import InputTags
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.classifier import PromptClassifier

WITHOUT_NUMBERS = [
    checks.check_estimator_cloneable,
    checks.check_estimator_repr,
    checks.check_estimator_tags_renamed,
    checks.check_valid_tag_types,
    checks.check_mixin_order,
    checks.check_no_attributes_set_in_init,
    checks.check_parameters_default_constructible,
    checks.check_do_not_raise_errors_in_init_or_set_params,
    checks.check_get_params_invariance,
    checks.check_set_params,
]


@pytest.mark.parametrize("check", WITHOUT_NUMBERS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("model", ["smollm2-135m", "tiny-causal"])
def test_checks_without_numbers(check: Callable[..., None], model: str) -> None:
    check("PromptClassifier", PromptClassifier(model))


class OnNumbers(PromptClassifier):
    """Numbers in, text to the classifier."""

    def fit(self, X: Any, y: Any) -> "OnNumbers":
        if y is None:
            return super().fit(["text"], None)
        X, y = validate_data(self, X, y)
        super().fit(as_text(X), y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(as_text(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags()
        tags.classifier_tags.poor_score = True  # a random model of a few thousand weights
        return tags


def as_text(X: np.ndarray) -> list[str]:
    return [" ".join(f"{value:.1f}" for value in row) for row in X]


ON_NUMBERS = OnNumbers("tiny-causal", num_steps=2, prompt_length=2, max_length=48)


@parametrize_with_checks([ON_NUMBERS])
def test_all_checks_on_numbers(estimator: Any, check: Callable[..., None]) -> None:
    check(estimator)


def test_there_are_checks_to_run() -> None:
    assert len(list(checks.estimator_checks_generator(ON_NUMBERS))) >= 45
