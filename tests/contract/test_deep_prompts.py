"""Keys and values in every layer: what they are equal to, on every kind of base model and kernel."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import embedding, gelu, linear, pad

from headstart.config import GROUPS
from headstart.learn.gradient import PLAIN, StackedLoss, row_losses
from headstart.learn.space import Space
from headstart.models.base import Limits
from headstart.models.deep_attention import cut
from headstart.models.load import load_model, wrap
from headstart.prompts.bank import NO_PROMPT, PromptBank
from headstart.prompts.prompt import SoftPrompt
from headstart.tasks.example import ANSWER_SLOT, Rendered
from tests.contract.test_mixed_batches import BUILDERS, rows_of

TINY = ("tiny-causal", "tiny-seq2seq")
CHOSEN = ([3, 1, 2, NO_PROMPT], [4, 0, 4, 1])


@pytest.fixture(params=BUILDERS, scope="module")
def model(request):
    return wrap(*BUILDERS[request.param](), request.param, {})


def all_kinds(model):
    """Two shallow prompts, two deep ones, one of them in some groups alone, and a gated one."""
    draw = torch.Generator().manual_seed(1)
    wide = model.deep_size
    return [
        SoftPrompt.of(torch.randn(length, size, generator=draw), "a", kind, groups)
        for length, size, kind, groups in (
            (5, model.hidden_size, "shallow", GROUPS),
            (7, wide, "deep", GROUPS),
            (4, wide, "gated", GROUPS),
            (3, model.hidden_size, "shallow", GROUPS),
            (2, wide, "deep", ("encoder", "cross")),
        )
    ]


def labelled(model):
    words = ("bad", "good as gold")
    rows = [Rendered("a", f"It was{ANSWER_SLOT}", words, 1), Rendered("b", "Hm, no", words, 0)]
    return model.encode(rows, Limits())


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("chosen", CHOSEN)
def test_all_kinds_of_prompts_in_one_batch_equal_each_row_alone(model, eos, chosen):
    rows, prompts = rows_of(model, eos), all_kinds(model)
    mixed, lengths = model.score(rows, PromptBank.of(prompts), torch.tensor(chosen))
    for b, (row, n) in enumerate(zip(rows, chosen, strict=True)):
        bank = None if n == NO_PROMPT else PromptBank.of([prompts[n]])
        alone, count = model.score([row], bank, torch.tensor([0]))
        width = len(row.candidates)
        assert torch.allclose(mixed[b, :width] / lengths[b, :width], alone[0] / count[0], atol=1e-5)


def test_a_deep_and_a_gated_prompt_change_the_answer(model):
    rows, prompts = rows_of(model), all_kinds(model)
    without, _ = model.score(rows, None, None)
    for prompt in prompts:
        found, _ = model.score(rows, PromptBank.of([prompt]), torch.tensor([0] * 4))
        if prompt.spec.kind != "shallow" and not model.groups & set(prompt.spec.groups):
            continue
        assert not torch.allclose(found, without, atol=1e-2)


def test_values_of_zero_behind_a_gate_change_nothing_and_can_learn(model):
    zeros = torch.zeros(1, 3, model.deep_size)
    bank = PromptBank.stack([torch.randn(3, model.deep_size)], "gated")
    for place in model.places.values():
        between = place.start + place.heads * place.key_size
        zeros[..., place.start : between] = bank.only.vectors_NPX[..., place.start : between]
    rows = rows_of(model)
    without, _ = model.score(rows, None, None)
    found, _ = model.score(rows, bank.holding(zeros), torch.tensor([0] * 4))
    assert torch.equal(found, without)
    _, gradient = StackedLoss(model, labelled(model), [0, 0], space=Space("gated")).first_order(
        zeros
    )
    for place in model.places.values():
        between = place.start + place.heads * place.key_size
        assert gradient[..., between : place.end].abs().max() > 0


def test_a_group_that_is_off_is_not_there(model):
    """Without its groups a prompt is nothing; with one, its other numbers do not matter."""
    rows, where = rows_of(model), torch.tensor([0] * 4)
    vectors_PX = torch.randn(3, model.deep_size, generator=torch.Generator().manual_seed(0))
    without, _ = model.score(rows, None, None)
    for kind in ("deep", "gated"):
        silent = SoftPrompt.of(vectors_PX, kind=kind, groups=())
        found, _ = model.score(rows, PromptBank.of([silent]), where)
        if model.network.config.model_type != "gpt2" or kind == "gated":
            assert torch.allclose(
                found, without, atol=1e-4
            )  # a place in line still counts for GPT-2
        for group in {GROUPS[place.group] for place in model.places.values()}:
            alone_PX = vectors_PX.clone()
            for place in model.places.values():
                if GROUPS[place.group] != group:
                    alone_PX[:, place.start : place.end] = 7.0
            one, other = (
                model.score(
                    rows, PromptBank.of([SoftPrompt.of(v, kind=kind, groups=(group,))]), where
                )[0]
                for v in (vectors_PX, alone_PX)
            )
            assert torch.equal(one, other)
            assert not torch.allclose(one, without, atol=1e-3)


def test_gradients_of_both_orders_reach_the_vectors(model):
    rows = labelled(model)
    for kind in ("deep", "gated"):
        bank = PromptBank.stack(
            [torch.randn(2, model.deep_size, generator=torch.Generator().manual_seed(2))], kind
        )
        direction = torch.randn(bank.only.vectors_NPX.shape)
        leaf = bank.only.vectors_NPX.clone().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # the fused ones have no second derivative
            loss_B = row_losses(
                model, rows, bank.holding(leaf), torch.tensor([0, 0]), "candidates", PLAIN
            )
            (gradient,) = torch.autograd.grad(loss_B.mean(), leaf, create_graph=True)
            (product,) = torch.autograd.grad(gradient, leaf, direction)
        losses = StackedLoss(model, rows, [0, 0], space=Space(kind))
        assert torch.allclose(losses.first_order(leaf.detach())[1], gradient, atol=1e-5)
        found = losses.second_order(leaf.detach(), direction)
        assert torch.allclose(found, product, atol=1e-3 * max(1.0, product.abs().max().item()))
        assert gradient.abs().max() > 0


def reference_t5(model, row, answer, vectors_PX):
    """T5 v1.1 with deep prompts, written out: attention over keys and values joined by hand."""
    network, config = model.network, model.network.config
    weights = network.state_dict()

    def norm(x_TH, name):
        scale = (x_TH.pow(2).mean(-1, keepdim=True) + config.layer_norm_epsilon).rsqrt()
        return x_TH * scale * weights[name]

    def attend(x_TH, of_SH, module, name, bias_hTS, visible_TS):
        h, D = config.num_heads, config.d_kv
        place = model.places[module]
        q, k, v = (
            linear(x, weights[f"{name}.{part}.weight"]).unflatten(-1, (h, D)).transpose(0, 1)
            for part, x in (("q", x_TH), ("k", of_SH), ("v", of_SH))
        )
        own = vectors_PX[:, place.start : place.end].unflatten(-1, (2, h, D))
        k, v = (torch.cat([own[:, i].transpose(0, 1), each], 1) for i, each in enumerate((k, v)))
        scores_hTS = q @ k.transpose(1, 2) + pad(bias_hTS, (len(vectors_PX), 0))
        seen = pad(visible_TS, (len(vectors_PX), 0), value=True)
        mixed = scores_hTS.masked_fill(~seen, -math.inf).softmax(-1) @ v
        return linear(mixed.transpose(0, 1).flatten(1), weights[f"{name}.o.weight"])

    def feed(x_TH, name):
        inner = gelu(linear(x_TH, weights[f"{name}.wi_0.weight"]), approximate="tanh")
        return linear(
            inner * linear(x_TH, weights[f"{name}.wi_1.weight"]), weights[f"{name}.wo.weight"]
        )

    def bias(stack, T):
        first = stack.block[0].layer[0].SelfAttention
        return first.compute_bias(T, T)[0]

    def run(stack, name, tokens, encoded_SH=None):
        x_TH = embedding(torch.tensor(tokens), weights["shared.weight"])
        T = len(tokens)
        seen = torch.ones(T, T).bool()
        for i, block in enumerate(stack.block):
            at = f"{name}.block.{i}.layer"
            own = norm(x_TH, f"{at}.0.layer_norm.weight")
            module = block.layer[0].SelfAttention
            visible = seen if encoded_SH is None else seen.tril()
            x_TH = x_TH + attend(own, own, module, f"{at}.0.SelfAttention", bias(stack, T), visible)
            if encoded_SH is not None:
                S = len(encoded_SH)
                x_TH = x_TH + attend(
                    norm(x_TH, f"{at}.1.layer_norm.weight"),
                    encoded_SH,
                    block.layer[1].EncDecAttention,
                    f"{at}.1.EncDecAttention",
                    torch.zeros(config.num_heads, T, S),
                    torch.ones(T, S).bool(),
                )
            last = len(block.layer) - 1
            x_TH = x_TH + feed(
                norm(x_TH, f"{at}.{last}.layer_norm.weight"), f"{at}.{last}.DenseReluDense"
            )
        return norm(x_TH, f"{name}.final_layer_norm.weight")

    with torch.no_grad():
        encoded_SH = run(network.encoder, "encoder", row.source)
        inputs = (config.decoder_start_token_id, *row.lead, *answer[:-1])
        hidden_QH = run(network.decoder, "decoder", inputs, encoded_SH)[len(row.lead) :]
        logits = linear(hidden_QH, weights["lm_head.weight"]).log_softmax(-1)
        return logits.gather(1, torch.tensor(answer)[:, None]).sum()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_t5_with_deep_prompts_equals_attention_written_out(attention):
    model = load_model("tiny-seq2seq", attention=attention)
    vectors_PX = torch.randn(4, model.deep_size, generator=torch.Generator().manual_seed(3))
    bank = PromptBank.of([SoftPrompt.of(vectors_PX, kind="deep")])
    rows = rows_of(model)
    found, _ = model.score(rows, bank, torch.tensor([0] * len(rows)))
    for b, row in enumerate(rows):
        for c, answer in enumerate(row.candidates):
            expected = reference_t5(model, row, answer, vectors_PX)
            assert found[b, c].item() == pytest.approx(expected.item(), abs=1e-4)


def test_the_keys_and_values_of_a_text_are_that_text_to_a_t5_decoder():
    """The vectors that ``deepen`` reads off are those that a plain forward computes."""
    model = load_model("tiny-seq2seq")
    text_TH = model.embed("Once upon a time")
    ones = torch.ones(1, len(text_TH)).bool()
    deep_NPX = model.deepen(text_TH[None], ones)
    encoded = model.network.encoder(inputs_embeds=text_TH[None]).last_hidden_state
    for block in model.network.decoder.block:
        across = block.layer[1].EncDecAttention
        keys, values = cut(deep_NPX, model.places)[across]
        for part, found in ((across.k, keys), (across.v, values)):
            assert torch.allclose(part(encoded), found.transpose(1, 2).flatten(2), atol=1e-5)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradient_checkpointing_changes_nothing(name, attention):
    model = load_model(name, attention=attention)
    rows, prompts = labelled(model), all_kinds(model)

    def gradients():
        found = []
        for prompt in prompts:
            bank = PromptBank.of([prompt])
            leaf = bank.only.vectors_NPX.clone().requires_grad_()
            bank = bank.holding(leaf)
            loss = row_losses(model, rows, bank, torch.tensor([0, 0]), "candidates", PLAIN).sum()
            found.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
        return found

    plain = gradients()
    checkpoint(model.network, "enable")
    model.network.train()
    try:
        for (loss, gradient), (loss_again, again) in zip(plain, gradients(), strict=True):
            assert torch.allclose(loss, loss_again, rtol=1e-5)
            assert torch.allclose(gradient, again, atol=1e-5 * gradient.abs().max().item())
    finally:
        model.network.eval()
        checkpoint(model.network, "disable")


def checkpoint(network, verb):
    word = "activation" if hasattr(network, "activation_checkpointing_enable") else "gradient"
    getattr(network, f"{word}_checkpointing_{verb}")()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_a_cache_equals_generation_without(name, attention, beams):
    """And a row generates in company what it generates alone."""
    model = load_model(name, attention=attention)
    rows, bank = rows_of(model), PromptBank.of(all_kinds(model))
    chosen = torch.tensor(CHOSEN[0])
    settings = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False}
    cached = model.generate(rows, bank, chosen, use_cache=True, **settings)
    assert cached == model.generate(rows, bank, chosen, use_cache=False, **settings)
    for b, row in enumerate(rows):
        assert model.generate([row], bank, chosen[b : b + 1], **settings) == [cached[b]]
    assert cached != model.generate(rows, None, None, **settings)


@pytest.mark.parametrize("name", TINY)
def test_the_first_generated_token_is_the_one_that_scores_best(name):
    model = load_model(name)
    bank = PromptBank.of(all_kinds(model))
    row = rows_of(model)[0]
    every = type(row)("a", row.source, tuple((token,) for token in range(3, 260)), lead=row.lead)
    for n in range(len(bank)):
        where = torch.tensor([n])
        logprob_BC, _ = model.score([every], bank, where)
        ((first, *_),) = model.generate([row], bank, where, max_new_tokens=1, do_sample=False)
        assert first == 3 + int(logprob_BC.argmax())


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_all_kinds_work_in_bfloat16(name, attention):
    plain, half = load_model(name), load_model(name, dtype="bfloat16", attention=attention)
    rows, bank, chosen = rows_of(plain), PromptBank.of(all_kinds(plain)), torch.tensor(CHOSEN[0])
    expected, _ = plain.score(rows, bank, chosen)
    found, _ = half.score(rows, bank, chosen)
    assert found.dtype == torch.float32
    assert torch.allclose(expected, found, rtol=0.15, atol=1.5)
