"""AdaLoRA: PEFT's allotment inside our training loop, and nothing of it left afterwards."""

import copy
import itertools
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from quick_training import fit
from small_adapters import SMALL, logits
from some_masks import mask_of
from strong_models import load_strong
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

import adapter_pruning as ap
from adapter_pruning.adalora import adalora_parameters, allocating, attach_adalora, irregularity
from adapter_pruning.surgery import cut
from adapter_pruning.training import TrainConfig, trainable

TARGETS = ("query", "ffn_in")
TRIPLET = {"query": 32 + 1 + 32, "ffn_in": 32 + 1 + 64}  # numbers
STEPS = 8
OPTIONS = {"rank": 2, "targets": TARGETS, "total_steps": STEPS}
BUDGETS = [12, 9, 8, 8, 8, 8, 8, 8]  # triplets in four matrices, after each step


@pytest.fixture
def model(base):
    """The tiny BERT with AdaLoRA: from three triplets a matrix to two."""
    return attach_adalora(base, **OPTIONS)


@pytest.fixture
def train(inputs):
    """train(model, steps, after): with Adam on two texts, calling after() at every step."""

    def train(model, steps=STEPS, after=lambda: None):
        optimizer = torch.optim.Adam(trainable(model).values(), lr=0.01)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(**inputs), torch.tensor([0, 1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            after()

    return train


def values(model):
    """Lambda of every matrix, by name."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_E." in n}


def left(model):
    return sum(int(tensor.count_nonzero()) for tensor in values(model).values())


def alive(model):
    """Which triplets are left, (matrices, triplets)."""
    return torch.stack([tensor.flatten() != 0 for tensor in values(model).values()])


def test_it_starts_from_the_outputs_of_the_encoder(folder, rotten, inputs):
    bare = load_strong(folder, rotten)
    model = attach_adalora(copy.deepcopy(bare), **OPTIONS)
    assert torch.equal(logits(model, inputs), logits(bare, inputs))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(".lora_E." in name)
    assert not torch.equal(logits(model, inputs), logits(bare, inputs))


@pytest.mark.parametrize("norms", [False, True])
def test_only_what_should_trains(base, train, norms):
    model = attach_adalora(base, train_norms=norms, **OPTIONS)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with allocating(model):
        train(model)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trainable(model).keys()
    lora = {name for name in changed if ".lora_" in name}
    assert len(lora) == 3 * 4
    beside = {name.rpartition(".")[0].rpartition(".")[2] for name in changed - lora}
    assert beside == ({"head", "LayerNorm"} if norms else {"head"})


def test_the_seed_fixes_the_start_and_nothing_else(base):
    state = torch.get_rng_state()
    one, same, other = (
        next(
            p
            for n, p in attach_adalora(copy.deepcopy(base), seed=s, **OPTIONS).named_parameters()
            if ".lora_A." in n
        )
        for s in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_budget_falls_to_the_rank(model, train):
    history = []
    with allocating(model):
        train(model, after=lambda: history.append(left(model)))
    assert history == BUDGETS


def test_ranks_are_allotted_anew_while_the_budget_falls(base, train):
    model = attach_adalora(base, **(OPTIONS | {"total_steps": 24}))
    history = []
    with allocating(model):
        train(model, 24, after=lambda: history.append(alive(model)))
    falling, settled = history[3:12], history[11:]  # from an eighth to a half
    assert any((late & ~early).any() for early, late in itertools.pairwise(falling))
    assert all(torch.equal(one, settled[0]) for one in settled)
    assert len(set(settled[0].sum(1).tolist())) > 1  # not one rank everywhere


def test_a_training_is_the_one_that_peft_describes(model, train, inputs):
    """Its own words: the regulariser is in the loss, and the allotment comes after the step."""
    other = copy.deepcopy(model)
    with allocating(model):
        train(model)
    optimizer = torch.optim.Adam(trainable(other).values(), lr=0.01)
    (tuner,) = other.adalora
    for step in range(1, STEPS + 1):
        loss = with_regulariser(
            tuner, nn.functional.cross_entropy(other(**inputs), torch.tensor([0, 1]))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tuner.update_and_allocate(step)
    torch.testing.assert_close(trainable(other), trainable(model))


def with_regulariser(tuner, loss):
    """What PEFT makes of the loss that a model returns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner.model, "forward", lambda: SimpleNamespace(loss=loss))
        return tuner().loss


def test_the_regulariser_is_pefts_and_has_a_gradient_in_training(model, train):
    expected = with_regulariser(model.adalora[0], torch.zeros(())).item()
    assert 0.5 * irregularity(model).item() == pytest.approx(expected)
    vectors = [p for n, p in model.named_parameters() if ".lora_A." in n or ".lora_B." in n]
    with allocating(model):
        # With Lambda at 0 the loss has no gradient for P and Q.
        train(model, 1)
    assert all(p.grad.any() for p in vectors)
    for parameter in vectors:
        nn.init.orthogonal_(parameter)
    assert irregularity(model).item() == pytest.approx(0, abs=1e-5)


def test_no_hook_outlives_the_context(model, train):
    with allocating(model):
        train(model)
    with pytest.raises(KeyboardInterrupt), allocating(model):
        raise KeyboardInterrupt
    assert not _global_optimizer_pre_hooks
    assert not _global_optimizer_post_hooks
    train(model, 1)
    assert left(model) == BUDGETS[0]


def test_other_models_are_left_alone(model, plain, train):
    other, alone = plain().eval(), plain().eval()
    train(alone)
    with allocating(model):
        train(other)
        train(model)
    torch.testing.assert_close(trainable(other), trainable(alone), rtol=0, atol=0)
    assert left(model) == BUDGETS[-1]


def test_a_training_that_stops_early_leaves_more_than_the_budget(model, train):
    with allocating(model):
        train(model, 2)
    assert left(model) == BUDGETS[1] > BUDGETS[-1]


def test_the_parameters_are_those_that_are_left(model, train):
    assert adalora_parameters(model) == 0
    with allocating(model):
        train(model)
    names = [name for name, tensor in values(model).items() for _ in range(len(tensor.nonzero()))]
    sizes = [TRIPLET["query" if ".query." in name else "ffn_in"] for name in names]
    assert adalora_parameters(model) == sum(sizes) > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_in_our_loop(base, rotten, precision):
    frozen = {name: p.detach().clone() for name, p in base.encoder.named_parameters()}
    model = attach_adalora(base, **OPTIONS)
    config = TrainConfig(
        epochs=1, batch_size=8, evaluations_per_epoch=1, max_length=16, precision=precision
    )
    with allocating(model):
        assert fit(model, rotten, config).step == STEPS
    assert left(model) == BUDGETS[-1]
    after = {n.replace(".base_layer", ""): p for n, p in model.encoder.named_parameters()}
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())


def test_a_layer_without_heads_has_none(base, train):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        cut(base, mask_of(**{"0.heads": [0] * 4, "1.heads": [1, 0, 0, 1]}))
    model = attach_adalora(base, **OPTIONS)
    with allocating(model):
        train(model)
    assert alive(model).shape == (3, 3)
    assert left(model) == 6


BAD = {
    "no rank": ({"rank": 0}, ["rank", "is 0"]),
    "a high rank": ({"rank": 22}, ["rank 22 starts at 33, above 32", "query in layer 0"]),
    "a target": ({"targets": ("head",)}, ["targets.0 is 'head'"]),
    "too short": ({"total_steps": 7}, ["total_steps is 7", "at least 8"]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_options_are_refused(base, refused, what):
    options, said = BAD[what]
    with refused(*said):
        attach_adalora(base, **(OPTIONS | options))


def test_what_has_adapters_gets_none_and_what_has_none_allots_nothing(base, refused, monkeypatch):
    for call in (adalora_parameters, irregularity, lambda model: allocating(model).__enter__()):
        with refused("no AdaLoRA", "attach"):
            call(base)
    for attach in (attach_adalora, lambda model, **_: ap.attach(model, SMALL)):
        model = attach(copy.deepcopy(base), **OPTIONS)
        with refused("already has adapters"):
            attach_adalora(model, **OPTIONS)
    monkeypatch.setitem(sys.modules, "peft", None)
    with refused("adapter-pruning[notebooks]"):
        attach_adalora(base, **OPTIONS)
