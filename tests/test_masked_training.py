"""Training under a mask: what is pruned stays exactly zero, and survivors move as without it."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quick_training import QUICK, STEPS, fit, interrupt
from some_masks import mask_of
from torch.optim.optimizer import register_optimizer_step_post_hook

import adapter_pruning as ap
from adapter_pruning.errors import PruningError
from adapter_pruning.masks import Mask, hold
from adapter_pruning.training import trainable

# Training under a mask

OPTIMIZERS = {
    "sgd": lambda p, decay: torch.optim.SGD(p, lr=0.1, weight_decay=decay),
    "momentum": lambda p, decay: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=decay),
    "nesterov": lambda p, decay: torch.optim.SGD(
        p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=decay
    ),
    "adam": lambda p, decay: torch.optim.Adam(p, lr=0.1, weight_decay=decay),
    "amsgrad": lambda p, decay: torch.optim.Adam(p, lr=0.1, weight_decay=decay, amsgrad=True),
    "adamw": lambda p, decay: torch.optim.AdamW(p, lr=0.1, weight_decay=decay),
}
SHAPES = {"a": (3, 4), "b": (5,)}


class Problem:
    """Two parameters under a loss whose gradient is random and the same for the same step."""

    def __init__(self, optimizer: str, decay: float):
        generator = torch.Generator().manual_seed(0)
        self.parameters = {
            name: torch.nn.Parameter(torch.randn(shape, generator=generator))
            for name, shape in SHAPES.items()
        }
        self.optimizer = OPTIMIZERS[optimizer](list(self.parameters.values()), decay)

    def step(self, number: int, clear: bool = True) -> None:
        if clear:
            self.optimizer.zero_grad()
        self.backward(number)
        self.optimizer.step()

    def backward(self, number: int) -> None:
        generator = torch.Generator().manual_seed(100 + number)
        factors = [torch.randn(shape, generator=generator) for shape in SHAPES.values()]
        pairs = zip(self.parameters.values(), factors, strict=True)
        sum((p * f).sum() for p, f in pairs).backward()

    def values(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def state(self, name: str) -> list[torch.Tensor]:
        found = self.optimizer.state[self.parameters[name]].values()
        return [v for v in found if isinstance(v, torch.Tensor) and v.shape == SHAPES[name]]


runs = given(
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    decay=st.sampled_from([0.0, 0.1]),
    warm=st.integers(0, 3),
    bits=st.lists(st.booleans(), min_size=17, max_size=17),
)


def seventeen(bits: list[bool]) -> Mask:
    flat = torch.tensor(bits)
    return Mask({"a": flat[:12].view(SHAPES["a"]), "b": flat[12:]})


@runs
def test_pruned_entries_and_their_state_stay_exactly_zero(optimizer, decay, warm, bits):
    problem, mask = Problem(optimizer, decay), seventeen(bits)
    for number in range(warm):
        problem.step(number)
    hold(problem.parameters, mask, problem.optimizer)
    for number in range(warm, warm + 5):
        for name, value in problem.values().items():
            assert not value[~mask[name]].any()
            assert not any(state[~mask[name]].any() for state in problem.state(name))
        problem.step(number)
    for name, value in problem.values().items():
        assert not value[~mask[name]].any()
        assert not any(state[~mask[name]].any() for state in problem.state(name))


@runs
def test_survivors_move_as_if_there_were_no_mask(optimizer, decay, warm, bits):
    masked, free, mask = Problem(optimizer, decay), Problem(optimizer, decay), seventeen(bits)
    for number in range(warm):
        masked.step(number)
        free.step(number)
    hold(masked.parameters, mask, masked.optimizer)
    for number in range(warm, warm + 5):
        before = masked.values()
        masked.step(number)
        free.step(number)
        for name, value in masked.values().items():
            kept = mask[name]
            assert torch.equal(value[kept], free.values()[name][kept])
            assert (value != before[name])[kept].all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gradient_from_before_the_mask_moves_nothing_that_is_pruned(optimizer):
    problem, mask = Problem(optimizer, 0.0), seventeen([True, False] * 8 + [False])
    problem.backward(0)
    hold(problem.parameters, mask, problem.optimizer)
    problem.step(1, clear=False)
    for name, value in problem.values().items():
        assert not value[~mask[name]].any()


def test_the_mask_holds_at_once_without_an_optimizer_and_spares_what_it_does_not_name():
    problem = Problem("sgd", 0.0)
    before = problem.values()
    hold(problem.parameters, mask_of(b=[1, 0, 1, 0, 1]))
    assert torch.equal(problem.parameters["a"], before["a"])
    assert problem.parameters["b"][[1, 3]].tolist() == [0, 0]
    assert torch.equal(problem.parameters["b"][[0, 2, 4]], before["b"][[0, 2, 4]])


def test_a_gradient_that_is_not_finite_does_not_reach_pruned_entries():
    weight = torch.nn.Parameter(torch.ones(2))
    hold({"w": weight}, mask_of(w=[0, 1]))
    (weight * torch.tensor([float("nan"), 1.0])).sum().backward()
    assert weight.grad.tolist() == [0, 1]


def test_removed_hooks_let_go():
    problem, mask = Problem("adam", 0.0), seventeen([False] * 17)
    hooks = hold(problem.parameters, mask, problem.optimizer)
    problem.step(0)
    assert not any(value.any() for value in problem.values().values())
    for hook in hooks:
        hook.remove()
    problem.step(1)
    assert all(value.all() for value in problem.values().values())


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (mask_of(a=[1], stranger=[1]), "'stranger'"),
        (mask_of(b=[0] * 5, a=[0]), "'a' has shape (1,), the model has (3, 4)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_before_anything_changes(refused, mask, said):
    problem = Problem("sgd", 0.0)
    before = problem.values()
    with refused(said):
        hold(problem.parameters, mask, problem.optimizer)
    assert all(torch.equal(before[name], value) for name, value in problem.values().items())


# Masks


def test_a_mask_holds_after_every_step_of_the_optimizer(small, rotten, half):
    model, checks = small(), []
    parameters = trainable(model)

    def check(optimizer, *_):
        for name, kept in half.items():
            state = optimizer.state[parameters[name]]
            for value in (parameters[name].detach(), state["exp_avg"], state["exp_avg_sq"]):
                # As integers, so that -0.0 would not pass for 0.
                checks.append(not value[~kept].view(torch.int32).any())

    hook = register_optimizer_step_post_hook(check)
    try:
        fit(model, rotten, dataclasses.replace(QUICK, weight_decay=0.1), mask=half)
    finally:
        hook.remove()

    assert checks == [True] * STEPS * len(half) * 3


def test_what_a_mask_keeps_is_trained(small, rotten, half):
    model, before = small(), trainable(small())

    fit(model, rotten, mask=half)

    for name, kept in half.items():
        assert (trainable(model)[name] != before[name])[kept].float().mean() > 0.99


def test_a_mask_holds_no_longer_than_its_run(small, rotten, half):
    model = small()
    fit(model, rotten, mask=half)
    fit(model, rotten)

    assert all(trainable(model)[name][~kept].any() for name, kept in half.items())


def test_an_interrupted_run_lets_go_of_its_mask(small, rotten, half, monkeypatch):
    model = small()
    interrupt(monkeypatch, "evaluate", 1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, rotten, mask=half)

    assert not any(p._backward_hooks for p in model.parameters())


def test_a_mask_that_does_not_fit_is_refused(small, rotten):
    stranger = ap.Mask({"adapters.9.ffn.up.weight": torch.ones(2, dtype=torch.bool)})

    with pytest.raises(PruningError, match=r"'adapters\.9\.ffn\.up\.weight', which the model"):
        fit(small(), rotten, mask=stranger)
