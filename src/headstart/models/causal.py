"""Causal language models: a prompt is run once for all its rows, a row once for all its candidates.

No prompt vector sees the text behind it, so its keys and values are the same for every row: they are
computed once (``prefill``), and rows start from them. The candidates' inner tokens stand behind the
text as branches of a tree: each sees the text and its own candidate only, at the positions it would
have alone. A one-token answer has no inner tokens, so the common case costs one pass over the text and
scores at one position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.config import Group
from headstart.models.base import Encoded, Limits
from headstart.models.batches import pad
from headstart.models.deep_attention import Recorder, generating
from headstart.models.encode import answer_tokens, ended, source_tokens, text_before_answer
from headstart.models.frozen import Frozen
from headstart.ops.attach import additive, causal_visibility, positions
from headstart.ops.scores import answer_logprobs
from headstart.prompts.bank import PromptBank, Stack
from headstart.tasks.example import Rendered


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows as tensors: texts left-aligned, candidates' inner tokens behind, and where each is scored.

    Attributes:
        tokens_BT: Source tokens. mask_BT: which are real.
        extra_BE: Inner tokens of the candidates. branch_BE, depth_BE: whose, and how deep.
        answer_BCK: Tokens to score. slot_BCK: after which scored slot (0: the text's last token,
            1 + e: extra slot e). answer_mask_BCK: which are real.
    """

    tokens_BT: Tensor
    mask_BT: Tensor
    extra_BE: Tensor
    branch_BE: Tensor
    depth_BE: Tensor
    answer_BCK: Tensor
    slot_BCK: Tensor
    answer_mask_BCK: Tensor


def pack(rows: Sequence[Encoded]) -> Packed:
    """Lay out rows; see :class:`Packed`.

    Example:
        >>> packed = pack([Encoded("a", (5, 6), ((7,), (8, 9)))])
        >>> packed.extra_BE.tolist(), packed.slot_BCK.tolist()
        ([[8]], [[[0, 0], [0, 1]]])
    """
    B, T = len(rows), max(len(row.source) for row in rows)
    C = max(len(row.candidates) for row in rows)
    K = max(len(tokens) for row in rows for tokens in row.candidates)
    E = max(sum(len(tokens) - 1 for tokens in row.candidates) for row in rows)
    tokens_BT = torch.zeros(B, T, dtype=torch.long)
    mask_BT = torch.zeros(B, T, dtype=torch.bool)
    extra_BE, depth_BE = torch.zeros(2, B, E, dtype=torch.long)
    branch_BE = torch.full((B, E), -1)
    answer_BCK, slot_BCK = torch.zeros(2, B, C, K, dtype=torch.long)
    answer_mask_BCK = torch.zeros(B, C, K, dtype=torch.bool)
    for b, row in enumerate(rows):
        tokens_BT[b, : len(row.source)] = torch.tensor(row.source)
        mask_BT[b, : len(row.source)] = True
        e = 0
        for c, answer in enumerate(row.candidates):
            k, inner = len(answer), len(answer) - 1
            answer_BCK[b, c, :k] = torch.tensor(answer)
            answer_mask_BCK[b, c, :k] = True
            slot_BCK[b, c, 1:k] = torch.arange(e + 1, e + 1 + inner)
            extra_BE[b, e : e + inner] = torch.tensor(answer[:-1], dtype=torch.long)
            branch_BE[b, e : e + inner] = c
            depth_BE[b, e : e + inner] = torch.arange(inner)
            e += inner
    return Packed(
        tokens_BT, mask_BT, extra_BE, branch_BE, depth_BE, answer_BCK, slot_BCK, answer_mask_BCK
    )


class CausalModel(Frozen):
    """A decoder-only transformers model (Llama family, Qwen, Mistral, GPT-2) behind the protocol.

    Args:
        network: A transformers causal language model, frozen.
        tokenizer: Its fast tokenizer.
        name: The name it was loaded by.
        choices: What was probed at load time.

    Example:
        >>> from headstart.models.load import load_model
        >>> load_model("tiny-causal").hidden_size
        16
    """

    kind = "causal"

    def __init__(self, network: Any, tokenizer: Any, name: str, choices: dict[str, Any]) -> None:
        """Hold a loaded network."""
        super().__init__(network, tokenizer, name, choices)
        self.max_length = _room(network.config)

    def encode(self, rendered: Sequence[Rendered], limits: Limits) -> list[Encoded]:
        """Turn rendered rows into tokens; see :func:`headstart.models.encode.source_tokens`.

        Raises:
            DataError: A row is longer than the model.
            TemplateError: Words follow the answer slot, or a label word has no tokens.
        """
        if not rendered:
            return []
        eos = self.tokenizer.eos_token_id
        texts = [text_before_answer(row) for row in rendered]
        answers = [
            ended(
                [answer_tokens(self.tokenizer, text, word) for word in row.candidates], eos, limits
            )
            for text, row in zip(texts, rendered, strict=True)
        ]
        # the deepest branch sets the last position a row uses
        inner = [max(len(answer) for answer in row) - 1 for row, _ in answers]
        sources = source_tokens(
            self.tokenizer, self.name, self.max_length, rendered, texts, inner, limits
        )
        return [
            Encoded(row.id, tokens, answer, row.target, truncated=cut + lost)
            for row, (answer, lost), (tokens, cut) in zip(rendered, answers, sources, strict=True)
        ]

    def prefill(self, bank: PromptBank) -> PromptBank:
        """Run shallow prompts through the network once; from then on they are deep ones.

        Args:
            bank: N prompts; gradients of any order reach them.

        Returns:
            The bank without shallow prompts; one that has none is returned as it is.
        """
        if bank.shallow is None:
            return bank
        mask_NP = bank.shallow.mask_NP.to(self.device)
        made = Stack(self.deepen(bank.shallow.vectors_NPX, mask_NP), mask_NP)
        return PromptBank(
            deep=made if bank.deep is None else made.over(bank.deep), gated=bank.gated
        )

    def _run_prompts(self, prompts_NPH: Tensor, mask_NP: Tensor, recorder: Recorder) -> None:
        none_N0 = torch.zeros(len(mask_NP), 0, dtype=torch.long, device=mask_NP.device)
        visible = causal_visibility(mask_NP, none_N0, none_N0)
        self.network.base_model(
            inputs_embeds=prompts_NPH,
            attention_mask=additive(visible[:, None], prompts_NPH.dtype),
            position_ids=positions(mask_NP),
            use_cache=False,
            prompts=recorder,
        )

    def _group_of(self, module: Any) -> Group:
        return "decoder"

    def score(
        self, rows: Sequence[Encoded], bank: PromptBank | None, prompt_of_row_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sum token log-probabilities of every candidate of every row, each row under its own prompt.

        Args:
            rows: B encoded rows.
            bank: The prompts; ``None``: no row has one.
            prompt_of_row_B: Each row's index into the bank; -1: no prompt.

        Returns:
            Log-probabilities in nats [B, C] in float32, and the number of tokens summed [B, C]
            (0 where a row has fewer candidates than its batch-mates).
        """
        packed = pack(rows)
        hidden_BSH, slot_BQ = self._hidden(packed, bank, prompt_of_row_B)
        scored_BQH = hidden_BSH.gather(1, slot_BQ[:, :, None].expand(-1, -1, hidden_BSH.shape[-1]))
        head_VH = self.network.get_output_embeddings().weight
        return answer_logprobs(
            scored_BQH, head_VH, packed.answer_BCK, packed.slot_BCK, packed.answer_mask_BCK
        )

    def generate(
        self,
        rows: Sequence[Encoded],
        bank: PromptBank | None,
        prompt_of_row_B: Tensor | None,
        **settings: Any,
    ) -> list[tuple[int, ...]]:
        """Go on from each row's text, under its own prompt.

        Args:
            rows: B encoded rows; their candidates are not used.
            bank: The prompts; ``None``: no row has one.
            prompt_of_row_B: Each row's index into the bank; -1: no prompt.
            **settings: Of transformers' ``generate``: ``max_new_tokens``, ``num_beams``, ``do_sample``, ...

        Returns:
            The new tokens of each row, up to the end of the sequence.

        Example:
            >>> from headstart.models.load import load_model
            >>> row = Encoded("a", (5, 6), ())
            >>> len(load_model("tiny-causal").generate([row], None, None, max_new_tokens=2)[0])
            2
        """
        tokens_BT, mask_BT = (part.flip(1) for part in pad([row.source[::-1] for row in rows]))
        position_BT = positions(mask_BT).to(self.device)
        with torch.inference_mode():
            prompts = self._layer_prompts(bank, prompt_of_row_B)
            if prompts is not None:
                position_BT = position_BT + prompts.positions.to(self.device)
            with generating(prompts):
                found_BS = self.network.generate(
                    tokens_BT.to(self.device),
                    attention_mask=mask_BT.long().to(self.device),
                    position_ids=position_BT,
                    **settings,
                )
        return self._new_tokens(found_BS[:, tokens_BT.shape[1] :])

    def _hidden(
        self, packed: Packed, bank: PromptBank | None, prompt_of_row_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the texts; return the last hidden states [B, T+E, H] and the scored slots [B, Q]."""
        embed, device = self.network.get_input_embeddings(), self.device
        text_mask_BT = packed.mask_BT.to(device)
        slots_BSH = embed(torch.cat([packed.tokens_BT, packed.extra_BE], dim=1).to(device))
        prompts = self._layer_prompts(bank, prompt_of_row_B)
        branch_BE, depth_BE = packed.branch_BE.to(device), packed.depth_BE.to(device)
        visible = causal_visibility(text_mask_BT, branch_BE, depth_BE)
        extra_position_BE = text_mask_BT.sum(-1, keepdim=True) + depth_BE
        position_BS = torch.cat([positions(text_mask_BT), extra_position_BE], dim=1)
        if prompts is not None:
            position_BS = position_BS + prompts.positions.to(device)
        hidden_BSH = self.network.base_model(
            inputs_embeds=slots_BSH,
            attention_mask=additive(visible[:, None], slots_BSH.dtype),
            position_ids=position_BS,
            use_cache=False,
            prompts=prompts,
        ).last_hidden_state
        T = text_mask_BT.shape[1]
        last_B1 = text_mask_BT.sum(-1, keepdim=True) - 1
        extra_slots = torch.arange(T, T + branch_BE.shape[1], device=device)
        return hidden_BSH, torch.cat([last_B1, extra_slots.expand(len(last_B1), -1)], dim=1)


def _room(config: Any) -> int | None:
    """Most positions a row may take: of a model with a sliding window, what the window sees as one."""
    windowed = getattr(config, "use_sliding_window", True)
    window = getattr(config, "sliding_window", None) if windowed else None
    rooms = [getattr(config, "max_position_embeddings", None), window]
    return min((room for room in rooms if room is not None), default=None)
