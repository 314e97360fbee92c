"""Encoder-decoder models (T5, T5 v1.1, LM-adapted, Flan-T5, mT5): the source is encoded once per row.

The prompt stands before the source in the encoder, right-aligned so that relative distances are
those of the row alone. One-token answers share one decoder row; longer ones get a row each, which
reads the same encoder output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.config import Group
from headstart.errors import ModelError, TemplateError
from headstart.models.base import Encoded, Limits
from headstart.models.batches import pad
from headstart.models.deep_attention import LayerPrompts, Recorder, generating
from headstart.models.encode import ended, source_tokens
from headstart.models.frozen import Frozen
from headstart.ops.attach import attach
from headstart.ops.scores import answer_logprobs
from headstart.prompts.bank import PromptBank
from headstart.tasks.example import ANSWER_SLOT, Rendered

SENTINEL = "<extra_id_0>"


class Seq2SeqModel(Frozen):
    """A T5-type transformers model behind the protocol.

    A template with an answer slot becomes T5's own span filling: the slot is a sentinel in the
    source, and the decoder starts with it. A template without one is answered from the start.

    Args:
        network: A transformers T5 or mT5 with a language-model head, frozen.
        tokenizer: Its fast tokenizer.
        name: The name it was loaded by.
        choices: What was probed at load time.

    Example:
        >>> from headstart.models.load import load_model
        >>> load_model("tiny-seq2seq").kind
        'seq2seq'
    """

    kind = "seq2seq"
    max_length: int | None = None

    def encode(self, rendered: Sequence[Rendered], limits: Limits) -> list[Encoded]:
        """Turn rendered rows into tokens; see :func:`headstart.models.encode.source_tokens`.

        Relative positions have no end, so only ``limits.max_length`` bounds a row.

        Raises:
            DataError: The template alone is longer than ``limits.max_length``.
            ModelError: A template has an answer slot, and the tokenizer no sentinel.
            TemplateError: A label word has no tokens.
        """
        if not rendered:
            return []
        sentinel = self._sentinel() if any(ANSWER_SLOT in row.source for row in rendered) else 0
        eos = self.tokenizer.eos_token_id
        texts = [row.source.replace(ANSWER_SLOT, SENTINEL) for row in rendered]
        sources = source_tokens(
            *(self.tokenizer, self.name, None, rendered, texts, [0] * len(rendered), limits),
            special=limits.source_eos,
        )
        answers = [
            ended([self._answer(word) for word in row.candidates], eos, limits) for row in rendered
        ]
        return [
            Encoded(
                *(row.id, tokens, answer, row.target),
                lead=(sentinel,) if ANSWER_SLOT in row.source else (),
                truncated=cut + lost,
            )
            for row, (answer, lost), (tokens, cut) in zip(rendered, answers, sources, strict=True)
        ]

    def _sentinel(self) -> int:
        token: int | None = self.tokenizer.convert_tokens_to_ids(SENTINEL)
        if token is None or self.tokenizer.convert_ids_to_tokens(token) != SENTINEL:
            raise ModelError(
                f"{self.name}: its tokenizer has no {SENTINEL}, which stands for the answer slot; use a "
                "template without {{ answer }}, or a T5 tokenizer"
            )
        return token

    def _answer(self, word: str) -> tuple[int, ...]:
        tokens = tuple(self.tokenizer(word.strip(), add_special_tokens=False)["input_ids"])
        if not tokens:
            raise TemplateError(
                f"the label word {word!r} has no tokens; give it a word with letters"
            )
        return tokens

    def score(
        self, rows: Sequence[Encoded], bank: PromptBank | None, prompt_of_row_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sum token log-probabilities of every candidate; as ``CausalModel.score``."""
        prompts = self._layer_prompts(bank, prompt_of_row_B)
        encoded_BSH, mask_BS = self._encode_sources(rows, bank, prompt_of_row_B, prompts)
        B, C = len(rows), max(len(row.candidates) for row in rows)
        if all(len(answer) == 1 for row in rows for answer in row.candidates):
            lanes = [(b, tuple(row.candidates)) for b, row in enumerate(rows)]
        else:
            lanes = [(b, (answer,)) for b, row in enumerate(rows) for answer in row.candidates]
        row_of_lane = torch.tensor([b for b, _ in lanes], device=self.device)
        leads = [rows[b].lead for b, _ in lanes]
        hidden_BQH = self._decode(
            encoded_BSH[row_of_lane],
            mask_BS[row_of_lane],
            leads,
            [a[0] for _, a in lanes],
            prompts.take(row_of_lane) if prompts else None,
        )
        head_VH = self.network.get_output_embeddings().weight
        answers = _answers(leads, [a for _, a in lanes])
        logprob, length = answer_logprobs(hidden_BQH, head_VH, *answers)
        kept = length > 0
        place = [(b, c) for b, row in enumerate(rows) for c in range(len(row.candidates))]
        row, column = torch.tensor(place, device=self.device).unbind(1)
        logprob_BC = logprob.new_zeros(B, C).index_put((row, column), logprob[kept])
        length_BC = length.new_zeros(B, C).index_put((row, column), length[kept])
        return logprob_BC, length_BC

    def _encode_sources(
        self,
        rows: Sequence[Encoded],
        bank: PromptBank | None,
        prompt_of_row_B: Tensor | None,
        prompts: LayerPrompts | None,
    ) -> tuple[Tensor, Tensor]:
        slots_BSH, mask_BS = self._slots(rows, bank, prompt_of_row_B)
        encoded = self.network.get_encoder()(
            inputs_embeds=slots_BSH, attention_mask=mask_BS, prompts=prompts
        )
        return encoded.last_hidden_state, mask_BS

    def _slots(
        self, rows: Sequence[Encoded], bank: PromptBank | None, prompt_of_row_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embed the sources, each after its shallow prompt [B, P+T, H], and say which slots are real."""
        tokens_BT, mask_BT = (part.to(self.device) for part in pad([row.source for row in rows]))
        text_BTH = self.network.get_input_embeddings()(tokens_BT)
        if bank is None or bank.shallow is None or prompt_of_row_B is None:
            return text_BTH, mask_BT.long()
        mine = bank.shallow.take(prompt_of_row_B)
        slots_BSH, mask_BS = attach(
            mine.vectors_NPX.to(self.device), mine.mask_NP.to(self.device), text_BTH, mask_BT
        )
        return slots_BSH, mask_BS.long()

    def generate(
        self,
        rows: Sequence[Encoded],
        bank: PromptBank | None,
        prompt_of_row_B: Tensor | None,
        **settings: Any,
    ) -> list[tuple[int, ...]]:
        """Answer each row's source, under its own prompt; as ``CausalModel.generate``."""
        from transformers import DynamicCache, EncoderDecoderCache

        start = self.network.config.decoder_start_token_id
        found: list[tuple[int, ...]] = [()] * len(rows)
        for lead in dict.fromkeys(row.lead for row in rows):
            mine = [b for b, row in enumerate(rows) if row.lead == lead]
            chosen = None if prompt_of_row_B is None else prompt_of_row_B[mine]
            caches = {}
            if settings.get(
                "use_cache", True
            ):  # transformers' own has as many layers as the encoder
                caches["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
            with torch.inference_mode():
                slots_BSH, mask_BS = self._slots([rows[b] for b in mine], bank, chosen)
                starts_BL = torch.tensor([[start, *lead]] * len(mine), device=self.device)
                with generating(self._layer_prompts(bank, chosen)):
                    found_BS = self.network.generate(
                        inputs_embeds=slots_BSH,
                        attention_mask=mask_BS,
                        decoder_input_ids=starts_BL,
                        **caches,
                        **settings,
                    )
            new = self._new_tokens(found_BS[:, 1 + len(lead) :])
            for b, tokens in zip(mine, new, strict=True):
                found[b] = tokens
        return found

    def _decode(
        self,
        encoded_BSH: Tensor,
        mask_BS: Tensor,
        leads: Sequence[tuple[int, ...]],
        answers: Sequence[tuple[int, ...]],
        prompts: LayerPrompts | None,
    ) -> Tensor:
        start = (self.network.config.decoder_start_token_id,)
        inputs = [start + lead + answer[:-1] for lead, answer in zip(leads, answers, strict=True)]
        input_BQ = pad(inputs)[0].to(self.device)
        # the decoder is causal, so padding on the right reaches no scored position
        hidden_BQH: Tensor = self.network.get_decoder()(
            input_ids=input_BQ,
            encoder_hidden_states=encoded_BSH,
            encoder_attention_mask=mask_BS,
            use_cache=False,
            prompts=prompts,
        ).last_hidden_state
        scaled = getattr(self.network.config, "scale_decoder_outputs", False)
        return hidden_BQH * self.hidden_size**-0.5 if scaled else hidden_BQH

    def _run_prompts(self, prompts_NPH: Tensor, mask_NP: Tensor, recorder: Recorder) -> None:
        read = {"inputs_embeds": prompts_NPH, "attention_mask": mask_NP.long(), "prompts": recorder}
        encoded = self.network.get_encoder()(**read).last_hidden_state
        self.network.get_decoder()(
            **read,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask_NP.long(),
            use_cache=False,
        )

    def _group_of(self, module: Any) -> Group:
        if not module.is_decoder:
            return "encoder"
        across = (block.layer[1].EncDecAttention for block in self.network.get_decoder().block)
        return "cross" if any(module is each for each in across) else "decoder"


def _answers(
    leads: Sequence[tuple[int, ...]], answers: Sequence[tuple[tuple[int, ...], ...]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay out answer tokens [B, C, K], the decoder slot that predicts each, and which are real."""
    B, C = len(answers), max(len(row) for row in answers)
    K = max(len(answer) for row in answers for answer in row)
    answer_BCK, slot_BCK = torch.zeros(2, B, C, K, dtype=torch.long)
    mask_BCK = torch.zeros(B, C, K, dtype=torch.bool)
    for b, (lead, row) in enumerate(zip(leads, answers, strict=True)):
        for c, answer in enumerate(row):
            k = len(answer)
            answer_BCK[b, c, :k] = torch.tensor(answer)
            slot_BCK[b, c, :k] = torch.arange(len(lead), len(lead) + k)
            mask_BCK[b, c, :k] = True
    return answer_BCK, slot_BCK, mask_BCK
