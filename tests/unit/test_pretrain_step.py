"""Each algorithm of paper A equals its pseudo-code, executed naively with cloned models, in both variants."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from transformers.optimization import Adafactor

from headstart.learn.gradient import PLAIN, row_losses
from headstart.learn.pretrain_loss import TaskRows, Trainee, row_weights
from headstart.learn.pretrain_settings import Pretrain
from headstart.learn.pretrain_step import (
    STEPS,
    fomaml_step,
    maml_step,
    multitask_step,
    reptile_step,
)
from headstart.learn.space import Space
from headstart.models.base import Encoded, Limits
from headstart.models.load import wrap
from headstart.models.tiny import tiny_causal, tiny_seq2seq
from headstart.ops.inner_loop import UPDATES
from headstart.prompts.bank import PromptBank
from headstart.tasks.example import Rendered

K, T, M, P = 3, 2, 4, 2
TARGETS = ("a", "bc", "def", "good", "is")
VARIANTS = ("paper-text", "released-code")
BUILD = {"tiny-causal": tiny_causal, "tiny-seq2seq": tiny_seq2seq}


@pytest.fixture(scope="module", params=BUILD)
def model(request):
    network, tokenizer = BUILD[request.param]()
    made = wrap(network.double(), tokenizer, request.param, {})
    made.network.requires_grad_(True)
    return made


def rows_of(model, count, seed):
    draw = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        size, target = torch.randint(1, 9, (2,), generator=draw).tolist()
        made.append(Rendered(f"{seed}:{i}", "ab"[i % 2] * size, (TARGETS[target % 5],), 0))
    return model.encode(made, Limits())


def tasks_of(model, settings):
    steps = T if settings.reading.support == "new" else 1
    return [
        TaskRows(
            [rows_of(model, M, 10 * k + t) for t in range(steps)], rows_of(model, M, 10 * k + 9)
        )
        for k in range(K)
    ]


def start_of(model, kind="shallow"):
    size = model.hidden_size if kind == "shallow" else model.deep_size
    return torch.randn(P, size, generator=torch.Generator().manual_seed(1)).double()


def trainee_of(model, kind="shallow"):
    weights = list(model.network.parameters())
    for weight in weights:
        weight.grad = None
    return Trainee(model, weights, start_of(model, kind), Space(kind))


def settings_of(method, variant="paper-text", **changes):
    told = {"inner_steps": T, "inner_lr": 0.01, "task_batch_size": M, "micro_batch_size": 2}
    return Pretrain(method=method, variant=variant, **{**told, **changes})


class NaiveAdafactor:
    """Adafactor with whole second moments, as paper A's own subclass has for small parameters."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr, self.state = list(parameters), lr, {}

    def step(self):
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters):
                if parameter.grad is None:
                    continue
                count, square = self.state.get(i, (0, torch.zeros_like(parameter)))
                keep = 1 - (count + 1) ** -0.8
                square = keep * square + (1 - keep) * (parameter.grad**2 + 1e-30)
                self.state[i] = count + 1, square
                change = parameter.grad / square.sqrt()
                parameter -= self.lr * change / max(1.0, float(change.pow(2).mean().sqrt()))


class NaiveSgd(NaiveAdafactor):
    def step(self):
        with torch.no_grad():
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter -= self.lr * parameter.grad


def optimizer_of(settings, parameters):
    if settings.inner_optimizer == "sgd":
        return NaiveSgd(parameters, settings.inner_lr)
    if settings.variant == "released-code":
        return NaiveAdafactor(parameters, settings.inner_lr)
    return Adafactor(
        parameters, lr=settings.inner_lr, scale_parameter=False, relative_step=False,
        warmup_init=False,
    )  # fmt: skip


def loss_of(model, prompt, rows, settings, kind="shallow"):
    """The loss as the reading says it: a row at a time, nothing shared."""
    bank = PromptBank.stack([prompt], kind)
    where = torch.tensor([0])
    losses = torch.cat([row_losses(model, [r], bank, where, "tokens", PLAIN) for r in rows])
    lengths = torch.tensor([float(len(row.candidates[0])) for row in rows])
    if settings.reading.micro_batches == "mean":
        return (losses * lengths).sum() / lengths.sum()
    pairs = zip(losses.split(2), lengths.split(2), strict=True)
    return sum((loss * length).sum() / length.sum() for loss, length in pairs)


def naive(model, tasks, settings, kind="shallow"):
    """Algorithms 1 and 2: clone everything for every task."""
    prompt = start_of(model, kind)
    names = [name for name, _ in model.network.named_parameters()]
    outer = {name: torch.zeros_like(p) for name, p in model.network.named_parameters()}
    outer_prompt = torch.zeros_like(prompt)
    optimizer = None
    for task in tasks:
        clone = wrap(deepcopy(model.network), model.tokenizer, "clone", {})
        clone.network.requires_grad_(True)
        own = prompt.clone().requires_grad_()
        parameters = [own, *clone.network.parameters()]
        if optimizer is None or settings.reading.inner_state == "fresh":
            optimizer = optimizer_of(settings, parameters)
        else:
            optimizer.parameters = parameters
        for t in range(T):
            loss = loss_of(clone, own, task.support[t % len(task.support)], settings, kind)
            own.grad = torch.autograd.grad(loss, own)[0]
            optimizer.step()
            own.grad = None
        clone.network.zero_grad()
        loss_of(clone, own, task.query, settings, kind).backward()
        if settings.method == "fomaml":
            found = {name: p.grad for name, p in clone.network.named_parameters()}
            outer_prompt += own.grad / K
        else:
            optimizer.step()
            scale = settings.inner_lr if settings.reading.displacement == "divided" else 1.0
            found = {
                name: (p.detach() - q.detach()) / scale
                for (name, p), q in zip(
                    model.network.named_parameters(), clone.network.parameters(), strict=True
                )
            }
            outer_prompt += (prompt - own.detach()) / scale / K
        for name in names:
            if found[name] is not None:
                outer[name] += found[name] / K
    return outer_prompt, outer


def same(found, expected, tolerance=2e-6):  # Llama's norms are float32 whatever the weights are
    return torch.allclose(found, expected, atol=tolerance * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", ["fomaml", "reptile"])
@pytest.mark.parametrize("inner_optimizer", ["adafactor", "sgd"])
def test_a_method_equals_its_pseudo_code(model, method, variant, inner_optimizer):
    settings = settings_of(method, variant, inner_optimizer=inner_optimizer)
    tasks, trainee = tasks_of(model, settings), trainee_of(model)
    found = STEPS[method](trainee, tasks, settings)
    prompt, outer = naive(model, tasks, settings)
    assert same(found.gradient_PX, prompt)
    for name, parameter in model.network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert same(gradient, outer[name]), name
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trainee.weights)


@pytest.mark.parametrize("kind", ["deep", "gated"])
@pytest.mark.parametrize("method", ["fomaml", "reptile"])
def test_so_it_does_with_prompts_in_every_layer(model, method, kind):
    settings = settings_of(method)
    tasks = tasks_of(model, settings)
    found = STEPS[method](trainee_of(model, kind), tasks, settings)
    prompt, outer = naive(model, tasks, settings, kind)
    assert same(found.gradient_PX, prompt)
    for name, parameter in model.network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert same(gradient, outer[name]), name


def test_the_model_is_where_it_was(model):
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    for method, step in STEPS.items():
        settings = settings_of(method)
        step(trainee_of(model), tasks_of(model, settings), settings)
        for name, parameter in model.network.named_parameters():
            assert torch.equal(parameter, before[name]) and parameter.requires_grad


@pytest.mark.parametrize("inner_optimizer", ["sgd", "adam", "adafactor"])
def test_exact_maml_equals_differentiating_the_whole_way(inner_optimizer):
    """The oracle keeps one graph over the inner steps, by prompt and weights; of a tiny T5."""
    network, tokenizer = tiny_seq2seq()
    network.set_attn_implementation("eager")  # the fused kernel has no second derivative
    model = wrap(network.double(), tokenizer, "t5", {})
    network.requires_grad_(True)
    settings = settings_of("maml", inner_optimizer=inner_optimizer, inner_lr=0.1)
    tasks, trainee = tasks_of(model, settings), trainee_of(model)
    found = maml_step(trainee, tasks, settings)
    prompt, update = start_of(model).requires_grad_(), UPDATES[inner_optimizer](0.1)
    total = 0.0
    for task in tasks:
        own, state = prompt[None], None
        for rows in task.support:
            loss = loss_of(model, own[0], rows, settings)
            (gradient,) = torch.autograd.grad(loss, own, create_graph=True)
            own, state = update(own, gradient, state)
        total = total + loss_of(model, own[0], task.query, settings) / K
    leaves = [prompt, *network.parameters()]
    expected = torch.autograd.grad(total, leaves, allow_unused=True)
    assert same(found.gradient_PX, expected[0])
    for (name, parameter), gradient in zip(network.named_parameters(), expected[1:], strict=True):
        if gradient is not None:
            assert same(parameter.grad, gradient), name
    first = fomaml_step(trainee_of(model), tasks, settings_of("fomaml", inner_lr=0.1))
    assert not same(found.gradient_PX, first.gradient_PX, 1e-4)


def test_zero_inner_steps_are_multi_task_training(model):
    for method in ("fomaml", "maml"):
        settings = settings_of(method, inner_steps=0)
        tasks = [TaskRows([], rows_of(model, M, k)) for k in range(K)]
        found = STEPS[method](trainee_of(model), tasks, settings)
        gradients = gradients_of(model)
        prompts, weights = [], []
        for task in tasks:
            each = multitask_step(trainee_of(model), task.query, settings_of("multitask"))
            prompts.append(each.gradient_PX)
            weights.append(gradients_of(model))
        assert same(found.gradient_PX, sum(prompts) / K)
        assert len(gradients) > 10
        for name, gradient in gradients.items():
            assert same(gradient, sum(each[name] for each in weights) / K)


def gradients_of(model):
    named = model.network.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


@pytest.mark.parametrize("how", ["tokens", "examples"])
@pytest.mark.parametrize("micro", [1, 3, 8])
def test_accumulation_equals_one_big_batch(model, how, micro, monkeypatch):
    """However the rows are grouped, the update is the true mean over tokens, or over examples."""
    rows, settings = rows_of(model, 8, 3), settings_of("multitask", mean_over=how)
    trainee = trainee_of(model)
    expected = multitask_step(trainee, rows, settings)
    gradients = [p.grad.clone() for p in trainee.weights if p.grad is not None]
    groups = [list(range(8))[i : i + micro] for i in range(0, 8, micro)]
    monkeypatch.setattr("headstart.learn.gradient.by_length", lambda sizes: groups)
    trainee = trainee_of(model)
    found = multitask_step(trainee, rows, settings)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert same(found.gradient_PX, expected.gradient_PX)
    again = [p.grad for p in trainee.weights if p.grad is not None]
    assert all(same(one, other) for one, other in zip(again, gradients, strict=True))


def test_multi_task_training_equals_plain_autograd(model):
    rows, settings = rows_of(model, 6, 4), settings_of("multitask")
    trainee = trainee_of(model)
    found = multitask_step(trainee, rows, settings)
    prompt = start_of(model).requires_grad_()
    loss = loss_of(model, prompt, rows, settings)
    leaves = [prompt, *model.network.parameters()]
    expected = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    assert same(found.gradient_PX, expected[0])
    for weight, gradient in zip(trainee.weights, expected[1:], strict=True):
        assert gradient is None or same(weight.grad, gradient)


def test_without_a_prompt_only_the_model_is_trained(model):
    rows, settings = rows_of(model, 6, 4), settings_of("multitask", trains="model")
    trainee = trainee_of(model)
    trainee.prompt_PX = None
    found = multitask_step(trainee, rows, settings)
    losses = torch.cat([row_losses(model, [row], None, None, "tokens", PLAIN) for row in rows])
    expected = (losses * row_weights(rows, settings)).sum()
    assert found.gradient_PX is None
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-6)
    gradients = torch.autograd.grad(expected, trainee.weights, allow_unused=True)
    for weight, gradient in zip(trainee.weights, gradients, strict=True):
        assert gradient is None or same(weight.grad, gradient)


def test_dropped_rows_are_read_without_the_prompt(model):
    rows, settings = rows_of(model, 4, 5), settings_of("multitask")
    every = multitask_step(trainee_of(model), rows, settings, [True] * 4)
    assert every.gradient_PX.abs().max() == 0
    bare = trainee_of(model)
    bare.prompt_PX = None
    assert every.loss == pytest.approx(multitask_step(bare, rows, settings).loss, rel=1e-6)
    half = multitask_step(trainee_of(model), rows, settings, [True, False, True, False])
    assert half.gradient_PX.abs().max() > 0


@pytest.mark.parametrize("method", ["fomaml", "reptile", "maml"])
def test_so_are_query_rows_of_the_methods_that_adapt(model, method):
    """With all of them bare, the query loss and the outer gradient of the weights know no prompt."""
    settings = settings_of(method, inner_steps=1)
    tasks = [TaskRows(task.support[:1], task.query) for task in tasks_of(model, settings)]
    found = STEPS[method](trainee_of(model), tasks, settings, [[True] * M] * K)
    gradients = gradients_of(model)
    bare = trainee_of(model)
    bare.prompt_PX = None
    losses = [multitask_step(bare, task.query, settings_of("multitask")).loss for task in tasks]
    assert found.loss == pytest.approx(sum(losses) / K, rel=1e-6)
    if method == "reptile":  # whose prompt still goes the way of its support rows
        assert found.gradient_PX.abs().max() > 0
        return
    assert found.gradient_PX.abs().max() == 0
    for name, gradient in gradients_of(model).items():
        assert same(gradients[name], gradient / K)


def test_readings_differ_where_they_say_so(model):
    """Every switch changes the gradient of some method: none is a name only."""
    base = {m: settings_of(m) for m in ("fomaml", "reptile")}

    def gradient(settings):
        trainee = trainee_of(model)
        tasks = [
            TaskRows(
                task.support[:1] if settings.reading.support == "same" else task.support, task.query
            )
            for task in tasks_of(model, settings_of(settings.method))
        ]
        return STEPS[settings.method](trainee, tasks, settings).gradient_PX

    for method, change in (
        ("fomaml", {"inner_state": "carried"}),
        ("fomaml", {"support": "same"}),
        ("fomaml", {"micro_batches": "sum"}),
        ("fomaml", {"micro_batches": "mean-of-means"}),
        ("fomaml", {"least_factored": 128}),
        ("reptile", {"displacement": "plain"}),
        ("reptile", {"inner_state": "carried"}),
    ):
        changed = settings_of(method, **change)
        assert not same(gradient(changed), gradient(base[method]), 1e-6), change


class Quadratic:
    """Losses ``a'Aa / 2 + b'a`` of everything there is, prompt and one weight vector: a toy for theory."""

    device = torch.device("cpu")
    network = SimpleNamespace(training=False)

    def __init__(self, size):
        self.size = size
        self.weight = torch.nn.Parameter(torch.randn(size, generator=draw(0)).double())

    def prefill(self, bank):
        return bank

    def score(self, rows, bank, prompt_of_row_B):
        prompts_BPH = bank.take(prompt_of_row_B).shallow.vectors_NPX
        out = []
        for row, prompt_PH in zip(rows, prompts_BPH, strict=True):
            everything = torch.cat([self.weight, prompt_PH.flatten()])
            matrix, vector = curvature(int(row.id), len(everything))
            out.append(-(everything @ matrix @ everything / 2 + vector @ everything))
        return torch.stack(out)[:, None], torch.ones(len(rows), 1, dtype=torch.long)


def draw(seed):
    return torch.Generator().manual_seed(seed)


def curvature(seed, size):
    root = torch.randn(size, size, generator=draw(seed)).double() / size**0.5
    return root @ root.T, torch.randn(size, generator=draw(seed + 1000)).double()


@pytest.mark.parametrize("support", ["same", "new"])
def test_the_theory_of_appendix_b_holds_on_a_quadratic(support):
    """Each gradient is its expansion in the step size, up to a rest of second order."""
    size, H, steps = 3, 4, 3
    model = Quadratic(size)
    prompt = torch.randn(1, H, generator=draw(1)).double()
    seeds = [5] * steps if support == "same" else [5, 6, 7]
    row = lambda seed: Encoded(str(seed), (), ((1,),), target=0)  # noqa: E731
    task = TaskRows([[row(s)] for s in seeds], [row(9)])
    everything = torch.cat([model.weight.detach(), prompt.flatten()])
    mask = torch.cat([torch.zeros(size), torch.ones(H)]).double()

    def gradient(seed):
        matrix, vector = curvature(seed, size + H)
        return matrix @ everything + vector, matrix

    g_query, h_query = gradient(9)
    supports = [gradient(seed) for seed in seeds]

    def rest(method, alpha):
        settings = settings_of(
            method, inner_optimizer="sgd", inner_lr=alpha, inner_steps=steps, support=support
        )
        model.weight.grad = None
        trainee = Trainee(model, [model.weight], prompt)
        found = STEPS[method](trainee, [task], settings)
        whole = torch.cat([model.weight.grad, found.gradient_PX.flatten()])
        inner = sum(mask * g for g, _ in supports)
        expected = g_query - alpha * h_query @ inner  # FOMAML
        if method == "maml":
            expected = expected - alpha * sum(h for _, h in supports) @ (mask * g_query)
        if method == "reptile":
            way = sum(
                mask * (g - alpha * h @ sum((mask * other for other, _ in supports[:i]), 0 * g))
                for i, (g, h) in enumerate(supports)
            )
            expected = expected + way
        return float((whole - expected).norm())

    for method in STEPS:
        coarse, fine = rest(method, 1e-2), rest(method, 1e-3)
        assert fine < 1e-4 and (fine < 1e-12 or coarse / fine == pytest.approx(100, rel=0.35))
        if method != "fomaml":
            assert rest(method, 1e-3) < 1e-3


def test_reptile_keeps_no_gradient_from_task_to_task(model, monkeypatch):
    """A weight's gradient is taken as it arrives and freed: there is never a second copy of the model."""
    trainee, settings = trainee_of(model), settings_of("reptile")
    left = []

    def watched(*arguments):
        left.append(sum(weight.grad is not None for weight in trainee.weights))
        return row_losses(*arguments)

    monkeypatch.setattr("headstart.learn.pretrain_step.row_losses", watched)
    reptile_step(trainee, tasks_of(model, settings), settings)
    assert left == [0] * K
