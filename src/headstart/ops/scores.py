"""From token log-probabilities to scores of candidates, and from scores to losses.

Paper A's code scores by ``mean`` (with EOS), t-zero by ``sum``, T-Few by ``sum / length^gamma``:
three papers, three rules, so the rule is always named.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Rule = Literal["sum", "mean", "length"]
"""How token log-probabilities become one score: ``sum``, ``mean``, or ``sum / length^gamma``."""


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums and logarithms: float32, or float64 where that is given.

    Example:
        >>> at_least_float32(torch.bfloat16)
        torch.float32
    """
    return torch.promote_types(dtype, torch.float32)


def rank_scores(
    logprob_BC: Tensor, length_BC: Tensor, rule: Rule = "sum", gamma: float = 1.0
) -> Tensor:
    """Score candidates by the rule; candidates of length 0 do not exist and score -inf.

    Args:
        logprob_BC: Sum of token log-probabilities in nats [B, C].
        length_BC: Number of tokens summed [B, C]; 0 marks a candidate a row does not have.
        rule: ``sum``, ``mean`` or ``length`` (``sum / length^gamma``).
        gamma: The power of ``length``. Default: 1.0.

    Example:
        >>> rank_scores(torch.tensor([[-4.0, -3.0]]), torch.tensor([[4, 1]]), "mean").tolist()
        [[-1.0, -3.0]]
    """
    power = {"sum": 0.0, "mean": 1.0, "length": gamma}[rule]
    scores_BC = logprob_BC / length_BC.clamp(min=1).to(logprob_BC.dtype) ** power
    return scores_BC.masked_fill(length_BC == 0, -torch.inf)


def calibrate(scores_BC: Tensor, content_free_C: Tensor) -> Tensor:
    """Subtract what the model says about a text without content (contextual calibration).

    Zhao et al. 2021, "Calibrate Before Use": dividing each candidate's probability by its
    probability for a content-free input is a subtraction of log-scores.

    Example:
        >>> calibrate(torch.tensor([[-1.0, -2.0]]), torch.tensor([-1.0, -3.0])).tolist()
        [[0.0, 1.0]]
    """
    return scores_BC - content_free_C


def candidate_cross_entropy(scores_BC: Tensor, target_B: Tensor) -> Tensor:
    """Cross-entropy of the gold candidate among the candidates, in nats, one value a row [B].

    Example:
        >>> candidate_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item()  # log 2
        0.6931471824645996
    """
    scores_BC = scores_BC.to(at_least_float32(scores_BC.dtype))
    return torch.nn.functional.cross_entropy(scores_BC, target_B, reduction="none")


def token_cross_entropy(logprob_BC: Tensor, length_BC: Tensor, target_B: Tensor) -> Tensor:
    """Mean token cross-entropy of the gold candidate, in nats, one value a row [B].

    Example:
        >>> logprob, length = torch.tensor([[-4.0, -1.0]]), torch.tensor([[2, 1]])
        >>> token_cross_entropy(logprob, length, torch.tensor([0])).item()
        2.0
    """
    gold_B1 = target_B[:, None]
    return -(logprob_BC.gather(1, gold_B1) / length_BC.gather(1, gold_B1)).squeeze(1)


def answer_logprobs(
    hidden_BQH: Tensor, head_VH: Tensor, answer_BCK: Tensor, slot_BCK: Tensor, mask_BCK: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum the log-probability of each candidate's tokens, token k read at scored slot ``slot_BCK``.

    A logit of 16 in bfloat16 moves in steps of 1/8, which ties candidates and coarsens the loss. So the
    products are float32 at least, at the scored slots only.

    Args:
        hidden_BQH: Last hidden states at the Q scored slots.
        head_VH: The output embeddings.
        answer_BCK: Tokens to score.
        slot_BCK: After which scored slot each stands.
        mask_BCK: Which tokens are real.

    Returns:
        Log-probabilities in nats [B, C] in float32, and token counts [B, C].

    Example:
        >>> zeros = torch.zeros(1, 1, 1, dtype=torch.long)
        >>> hidden, head = torch.zeros(1, 1, 2), torch.zeros(4, 2)
        >>> answer_logprobs(hidden, head, zeros, zeros, zeros == 0)[0].item()  # log 1/4
        -1.3862943649291992
    """
    device, wide = hidden_BQH.device, at_least_float32(hidden_BQH.dtype)
    answer_BCK, slot_BCK, mask_BCK = (x.to(device) for x in (answer_BCK, slot_BCK, mask_BCK))
    row_B11 = torch.arange(len(answer_BCK), device=device)[:, None, None]
    with torch.autocast(device.type, enabled=False):  # fine-tuning's would round them again
        logits_BQV = torch.nn.functional.linear(hidden_BQH.to(wide), head_VH.to(wide))
    logit_BCK = logits_BQV[row_B11, slot_BCK, answer_BCK]
    logprob_BCK = logit_BCK - logits_BQV.logsumexp(-1)[row_B11, slot_BCK]
    return logprob_BCK.masked_fill(~mask_BCK, 0.0).sum(-1), mask_BCK.sum(-1)
