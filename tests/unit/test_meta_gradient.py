"""Meta-gradients are what their equations say: against finite differences, two libraries, and each other."""

import warnings
from functools import partial

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.optimization import Adafactor

from headstart.learn import gradient
from headstart.learn.gradient import PLAIN, StackedLoss, row_losses
from headstart.models.base import Encoded
from headstart.models.load import load_model, wrap
from headstart.models.tiny import byte_tokenizer
from headstart.ops.inner_loop import UPDATES, adapt, sgd
from headstart.ops.meta_gradient import METHODS, fomaml, maml, multitask, reptile
from headstart.prompts.bank import PromptBank, Stack

K, P, H = 3, 2, 16


def exact_model():
    """A tiny GPT-2 in float64 throughout: its layer norm, unlike Llama's, does not go down to float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=260, n_embd=H, n_layer=2, n_head=2, n_positions=64, bos_token_id=2,
            eos_token_id=1, initializer_range=0.3, attn_implementation="eager",
        )  # fmt: skip
        network = GPT2LMHeadModel(config).double()
    return wrap(network, byte_tokenizer(False), "tiny-gpt2", {})


def rows_of(seed, count, candidates=((7,), (8, 9))):
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randint, generator=generator)
    return [
        Encoded(
            f"{seed}:{i}", tuple(draw(4, 260, (int(draw(2, 9, (1,))),)).tolist()), candidates, i % 2
        )
        for i in range(count)
    ]


def tasks(model, per_task=3, loss="candidates"):
    """Support and query losses of K tasks, as functions of stacked prompts."""
    owner = [k for k in range(K) for _ in range(per_task)]
    return tuple(
        StackedLoss(model, [row for k in range(K) for row in rows_of(seed + k, per_task)], owner, loss)
        for seed in (10, 20)
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return exact_model()


@pytest.fixture(scope="module")
def start_PH():
    return torch.randn(P, H, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_maml_equals_finite_differences(model, start_PH, inner_steps):
    support, query = tasks(model)
    found = maml(start_PH, K, support, query, sgd(0.5), inner_steps)

    def outer(prompt_PH):
        adapted_KPH, _ = adapt(prompt_PH.expand(K, P, H), support, sgd(0.5), inner_steps)
        return query(adapted_KPH)[0].sum()

    eps = 1e-5
    for p, h in [(0, 0), (1, 3), (1, 15)]:
        nudge_PH = torch.zeros_like(start_PH)
        nudge_PH[p, h] = eps
        slope = (outer(start_PH + nudge_PH) - outer(start_PH - nudge_PH)) / (2 * eps)
        assert found.gradient_PH[p, h] == pytest.approx(float(slope), rel=1e-5, abs=1e-9)
    assert not torch.allclose(
        found.gradient_PH,
        fomaml(start_PH, K, support, query, sgd(0.5), inner_steps).gradient_PH,
        atol=1e-4,
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adafactor"])
def test_the_differentiable_optimisers_pass_gradcheck(model, start_PH, optimizer):
    support, query = tasks(model)

    def outer(prompt_PH):
        adapted_KPH, _ = adapt(prompt_PH.expand(K, P, H), support, UPDATES[optimizer](0.05), 2)
        return query(adapted_KPH)[0].sum()

    leaf_PH = start_PH.clone().requires_grad_()
    (exact_PH,) = torch.autograd.grad(outer(leaf_PH), leaf_PH)
    direction_PH = torch.randn(P, H, generator=torch.Generator().manual_seed(3)).double()
    eps = 1e-6
    with torch.no_grad():
        slope = (outer(start_PH + eps * direction_PH) - outer(start_PH - eps * direction_PH)) / (
            2 * eps
        )
    assert float((exact_PH * direction_PH).sum()) == pytest.approx(float(slope), rel=1e-4)
    same = maml(start_PH, K, support, query, UPDATES[optimizer](0.05), 2)
    assert torch.allclose(same.gradient_PH, exact_PH, atol=1e-12)


class Outer(torch.nn.Module):
    """A prompt as a module, which is what the libraries differentiate."""

    def __init__(self, start_PH):
        super().__init__()
        self.prompt_PH = torch.nn.Parameter(start_PH.clone())


@pytest.mark.parametrize("library", ["higher", "torchopt"])
def test_maml_equals_a_library(model, start_PH, library):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = pytest.importorskip(library)
    inner_lr, inner_steps = 0.5, 2
    support, query = tasks(model)
    found = maml(start_PH, K, support, query, sgd(inner_lr), inner_steps)
    net = Outer(start_PH)

    def loss_of(losses, k, prompt_PH):
        rows = [row for row, n in zip(losses.rows, losses.owner_B, strict=True) if n == k]
        owner_B = torch.zeros(len(rows), dtype=torch.long)
        bank = PromptBank.stack([prompt_PH])
        return row_losses(model, rows, bank, owner_B, losses.loss, losses.scoring).mean()

    for k in range(K):
        if library == "higher":
            inner = torch.optim.SGD(net.parameters(), lr=inner_lr)
            with oracle.innerloop_ctx(net, inner, copy_initial_weights=False) as (fast, step):
                for _ in range(inner_steps):
                    step.step(loss_of(support, k, fast.prompt_PH))
                loss_of(query, k, fast.prompt_PH).backward()
        else:
            inner = oracle.MetaSGD(net, lr=inner_lr)
            state = oracle.extract_state_dict(net, by="reference", detach_buffers=True)
            for _ in range(inner_steps):
                inner.step(loss_of(support, k, net.prompt_PH))
            loss = loss_of(query, k, net.prompt_PH)
            oracle.recover_state_dict(net, state)
            loss.backward()
    assert torch.allclose(found.gradient_PH, net.prompt_PH.grad, atol=1e-6, rtol=1e-6)


def test_fomaml_is_the_query_gradient_at_the_adapted_prompt(model, start_PH):
    support, query = tasks(model)
    adapted_KPH, _ = adapt(start_PH.expand(K, P, H), support, sgd(0.5), 2)
    expected_PH = query.first_order(adapted_KPH.detach())[1].sum(0)
    found = fomaml(start_PH, K, support, query, sgd(0.5), 2)
    assert torch.allclose(found.gradient_PH, expected_PH, atol=1e-12)
    assert torch.allclose(found.query_loss_K, query.first_order(adapted_KPH.detach())[0])


def test_reptile_is_the_sum_of_the_gradients_on_the_way(model, start_PH):
    support, query = tasks(model)
    lr, prompts_KPH, total_PH = 0.3, start_PH.expand(K, P, H), torch.zeros(P, H).double()
    for _ in range(3):
        grad_KPH = support.first_order(prompts_KPH)[1]
        total_PH = total_PH + grad_KPH.sum(0)
        prompts_KPH = prompts_KPH - lr * grad_KPH
    found = reptile(start_PH, K, support, query, sgd(lr), 3)
    assert torch.allclose(found.gradient_PH / lr, total_PH, atol=1e-12)
    with pytest.raises(ValueError, match="at least one inner step"):
        reptile(start_PH, K, support, query, sgd(lr), 0)


def test_no_inner_steps_is_multi_task(model, start_PH):
    support, query = tasks(model)
    plain_PH = query.first_order(start_PH.expand(K, P, H))[1].sum(0)
    for method in (maml, fomaml):
        assert torch.equal(method(start_PH, K, support, query, sgd(1.0), 0).gradient_PH, plain_PH)
    both_PH = support.first_order(start_PH.expand(K, P, H))[1].sum(0) + plain_PH
    shared = multitask(start_PH, K, support, query, sgd(1.0), 0)
    assert torch.allclose(shared.gradient_PH, both_PH / 2, atol=1e-12)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_a_task_alone_equals_the_same_task_in_a_batch(name, method):
    model = load_model(name)
    generator = torch.Generator().manual_seed(2)
    start_PH = torch.randn(P, H, generator=generator)
    lead = (3,) if name == "tiny-seq2seq" else ()

    def losses(seeds):
        rows = [
            Encoded(row.id, row.source, row.candidates, row.target, lead=lead)
            for seed in seeds
            for row in rows_of(seed, 3)
        ]
        return StackedLoss(model, rows, [k for k in range(len(seeds)) for _ in range(3)])

    def gradient(seeds):
        found = METHODS[method](
            start_PH, len(seeds), losses(seeds), losses([s + 50 for s in seeds]), sgd(0.5), 2
        )
        return found.gradient_PH

    seeds = list(range(10))
    alone_PH = sum(gradient([seed]) for seed in seeds)
    assert torch.allclose(gradient(seeds), alone_PH, atol=2e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_second_order_works_whatever_the_attention_kernel(attention):
    """The fused kernel has no second derivative: the plain one is taken for that product."""
    model = load_model("tiny-causal", attention=attention)
    owner = [0, 0, 1, 1]
    support = StackedLoss(model, rows_of(1, 4), owner)
    query = StackedLoss(model, rows_of(2, 4), owner)
    start_PH = torch.randn(P, H, generator=torch.Generator().manual_seed(2))
    found = maml(start_PH, 2, support, query, sgd(0.5), 1).gradient_PH
    reference = load_model("tiny-causal")
    plain = [StackedLoss(reference, losses.rows, owner) for losses in (support, query)]
    assert torch.allclose(found, maml(start_PH, 2, *plain, sgd(0.5), 1).gradient_PH, atol=1e-5)


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD([p], lr=0.05),
    "adam": lambda p: torch.optim.Adam([p], lr=0.05),
    "adafactor": lambda p: Adafactor(
        [p], lr=0.05, scale_parameter=False, relative_step=False, warmup_init=False
    ),
}


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_the_inner_optimisers_step_as_the_known_ones(name):
    """Each stacked prompt moves as under the library's optimiser alone."""
    generator = torch.Generator().manual_seed(0)
    start_KPH = torch.randn(K, P, H, generator=generator)
    target_KPH = torch.randn(K, P, H, generator=generator)
    gradient = lambda prompts_KPH: (  # noqa: E731
        (prompts_KPH - target_KPH).square().sum((1, 2)),
        2 * (prompts_KPH - target_KPH),
    )
    adapted_KPH, losses = adapt(start_KPH, gradient, UPDATES[name](0.05), 4)
    assert losses.shape == (4, K)
    for k in range(K):
        parameter = torch.nn.Parameter(start_KPH[k].clone())
        known = OPTIMISERS[name](parameter)
        for _ in range(4):
            parameter.grad = 2 * (parameter.detach() - target_KPH[k])
            known.step()
        assert torch.allclose(adapted_KPH[k], parameter, atol=1e-5)


def test_gradients_do_not_depend_on_how_rows_are_grouped(model, start_PH, monkeypatch):
    """Groups run side by side and meet at the prompts' keys and values; direct autograd is the oracle."""
    support, _ = tasks(model)
    mask_NP = torch.tensor([[False, True], [True, True], [True, True]])
    support.mask_NP = mask_NP
    prompts_NPH = start_PH.expand(K, P, H) * torch.tensor([1.0, 0.7, 1.3])[:, None, None]
    direction_NPH = torch.randn(K, P, H, generator=torch.Generator().manual_seed(2)).double()

    def direct(leaf_NPH):
        bank = PromptBank(Stack(leaf_NPH, mask_NP))
        loss_B = row_losses(model, support.rows, bank, support.owner_B, "candidates", PLAIN)
        return (loss_B / support.rows_of_prompt_N[support.owner_B]).sum()

    leaf_NPH = prompts_NPH.clone().requires_grad_()
    (grad_NPH,) = torch.autograd.grad(direct(leaf_NPH), leaf_NPH, create_graph=True)
    (product_NPH,) = torch.autograd.grad(grad_NPH, leaf_NPH, direction_NPH)
    for size in (1, 4, 9):
        monkeypatch.setattr(
            gradient,
            "by_length",
            lambda sizes, n=size: [list(range(len(sizes)))[i : i + n] for i in range(0, 9, n)],
        )
        assert torch.allclose(support.first_order(prompts_NPH)[1], grad_NPH, atol=1e-12)
        found_NPH = support.second_order(prompts_NPH, direction_NPH)
        assert torch.allclose(found_NPH, product_NPH, atol=1e-12)
