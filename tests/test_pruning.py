"""Pruning: the lowest scores go, ties by order; and the control, a random mask."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_masks import mask_of, masks

from adapter_pruning.masks import Mask, prune, prune_to, random_mask

# Pruning


def brute_force(mask, scores, fraction, scope) -> dict[str, list[bool]]:
    """The definition in plain lists: sort (score, place) of the survivors, drop the first ones."""
    flat = {name: tensor.flatten().tolist() for name, tensor in mask.items()}
    groups = [list(flat)] if scope == "global" else [[name] for name in flat]
    for names in groups:
        alive = [
            (scores[name].flatten().tolist()[i], place, i, name)
            for place, name in enumerate(names)
            for i, kept in enumerate(flat[name])
            if kept
        ]
        alive.sort(key=lambda entry: (entry[0], entry[1], entry[2]))
        share = Fraction(round(fraction * 1000), 1000)
        for _, _, i, name in alive[: int(share * len(alive))]:
            flat[name][i] = False
    return flat


@st.composite
def prunings(draw):
    """A mask with a survivor, scores with many ties and at least one that is not 0, a fraction."""
    mask = draw(masks(least=1))
    levels = st.sampled_from([-1.5, 0.0, 1e-8, 0.25, 0.25, 1.0, 3.0])
    scores = {
        name: torch.tensor(
            draw(st.lists(levels, min_size=kept.numel(), max_size=kept.numel()))
        ).view(kept.shape)
        for name, kept in mask.items()
    }
    if not any(scores[name][mask[name]].any() for name in mask):
        scores = {name: score + 1 for name, score in scores.items()}
    return mask, scores, draw(st.integers(0, 999)) / 1000


@given(prunings(), st.sampled_from(["global", "tensor"]))
@settings(max_examples=200)
def test_prune_equals_the_definition_in_plain_lists(pruning, scope):
    mask, scores, fraction = pruning
    pruned = prune(mask, scores, fraction, scope)
    found = {name: tensor.flatten().tolist() for name, tensor in pruned.items()}
    assert found == brute_force(mask, scores, fraction, scope)
    assert {n: t.shape for n, t in pruned.items()} == {n: t.shape for n, t in mask.items()}


@given(prunings(), st.sampled_from(["global", "tensor"]))
def test_prune_never_resurrects_and_leaves_its_inputs_as_they_were(pruning, scope):
    mask, scores, fraction = pruning
    mask_before = Mask(dict(mask))
    scores_before = {name: score.clone() for name, score in scores.items()}
    pruned = prune(mask, scores, fraction, scope)
    assert (pruned & mask) == pruned
    assert mask == mask_before
    assert all(torch.equal(scores[name], scores_before[name]) for name in scores)


def test_ties_fall_to_the_entry_that_comes_first():
    mask = mask_of(b=[1, 0, 1, 1], a=[1, 1])
    scores = {"a": torch.ones(2), "b": torch.ones(4)}
    assert prune(mask, scores, 0.6) == mask_of(b=[0, 0, 0, 0], a=[1, 1])


def test_global_scope_may_empty_a_tensor_and_tensor_scope_drops_from_each():
    mask = mask_of(low=[1, 1, 1, 1], high=[1, 1, 1, 1])
    scores = {"low": torch.tensor([1.0, 2, 3, 4]), "high": torch.tensor([5.0, 6, 7, 8])}
    assert prune(mask, scores, 0.5) == mask_of(low=[0, 0, 0, 0], high=[1, 1, 1, 1])
    assert prune(mask, scores, 0.5, "tensor") == mask_of(low=[0, 0, 1, 1], high=[0, 0, 1, 1])


def test_fractions_are_of_the_survivors_of_the_round():
    mask = mask_of(a=[1] * 10 + [0] * 90)
    assert prune(mask, {"a": torch.arange(100.0)}, 0.2).kept == 8


def test_scores_of_pruned_entries_do_not_matter():
    mask = mask_of(a=[0, 1, 1, 0])
    scores = {"a": torch.tensor([float("nan"), 2, 1, float("-inf")])}
    assert prune(mask, scores, 0.5) == mask_of(a=[0, 1, 0, 0])


def test_scores_that_differ_only_in_double_precision_are_told_apart():
    scores = {"a": torch.tensor([1 + 1e-12, 1.0], dtype=torch.float64)}
    assert prune(mask_of(a=[1, 1]), scores, 0.5) == mask_of(a=[1, 0])


def test_scores_may_be_of_low_precision_and_need_gradients():
    scores = {"a": torch.tensor([2.0, 1.0], dtype=torch.bfloat16, requires_grad=True)}
    assert prune(mask_of(a=[1, 1]), scores, 0.5) == mask_of(a=[1, 0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_named(refused, value):
    with refused("'b'", "not all finite"):
        prune(mask_of(a=[1], b=[1, 1]), {"a": torch.ones(1), "b": torch.tensor([1.0, value])}, 0.5)


def test_scores_that_are_all_zero_are_refused_with_the_likely_cause(refused):
    mask = mask_of(a=[1, 0])
    with refused("all scores are zero", "up-projections"):
        prune(mask, {"a": torch.tensor([0.0, 5.0])}, 0.5)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"a": torch.ones(3)}, "'a' has shape (3,)"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, "'b'"),
        ({"b": torch.ones(2)}, "'b'"),
    ],
)
def test_scores_that_do_not_fit_the_mask_are_named(refused, scores, said):
    with refused(said):
        prune(mask_of(a=[1, 1]), scores, 0.5)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_named_with_what_is_allowed(refused, fraction):
    with refused(f"fraction is {fraction}", "at least 0 and below 1"):
        prune(mask_of(a=[1, 1]), {"a": torch.ones(2)}, fraction)


def test_an_unknown_scope_is_answered_with_the_known_ones(refused):
    with refused("unknown scope 'layer'", "global, tensor"):
        prune(mask_of(a=[1, 1]), {"a": torch.ones(2)}, 0.5, "layer")


# Pruning to a number


@given(prunings(), st.data())
@settings(max_examples=200)
def test_prune_to_keeps_exactly_the_highest_scores_ties_by_order(pruning, data):
    mask, scores, _ = pruning
    keep = data.draw(st.integers(1, mask.kept))
    alive = [
        (scores[name].flatten().tolist()[i], place, i)
        for place, name in enumerate(mask)
        for i, kept in enumerate(mask[name].flatten().tolist())
        if kept
    ]
    expected = sorted(alive)[len(alive) - keep :]
    left = prune_to(mask, scores, keep)
    found = {
        (place, i)
        for place, kept in enumerate(left.values())
        for i in kept.flatten().nonzero().flatten().tolist()
    }
    assert found == {(place, i) for _, place, i in expected}
    assert {n: t.shape for n, t in left.items()} == {n: t.shape for n, t in mask.items()}


def test_of_equal_scores_prune_to_keeps_the_last():
    mask, scores = mask_of(b=[1, 0, 1, 1], a=[1, 1]), {"a": torch.ones(2), "b": torch.ones(4)}
    assert prune_to(mask, scores, 3) == mask_of(b=[0, 0, 0, 1], a=[1, 1])
    assert prune_to(mask, scores, 5) == mask


@given(prunings())
def test_prune_to_the_size_of_a_round_is_that_round(pruning):
    mask, scores, fraction = pruning
    pruned = prune(mask, scores, fraction)
    assert prune_to(mask, scores, pruned.kept) == pruned


@pytest.mark.parametrize("keep", [0, -1, 3, 4])
def test_more_than_there_are_or_none_cannot_be_kept(refused, keep):
    with refused(f"cannot keep {keep} of 2 survivors"):
        prune_to(mask_of(a=[1, 1, 0]), {"a": torch.ones(3)}, keep)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"a": torch.zeros(2)}, "all scores are zero"),
        ({"a": torch.tensor([1.0, float("nan")])}, "the scores of 'a' are not all finite"),
        ({"a": torch.ones(3)}, "'a' has shape (3,)"),
        ({"b": torch.ones(2)}, "'b'"),
    ],
)
def test_prune_to_refuses_scores_that_rank_nothing_or_do_not_fit(refused, scores, said):
    with refused(said):
        prune_to(mask_of(a=[1, 1]), scores, 1)


# The control: a random mask


@given(masks(), st.data())
def test_a_random_mask_keeps_exactly_as_many_as_asked(like, data):
    keep = data.draw(st.integers(1, like.total))
    mask = random_mask(like, keep, seed=0)
    assert mask.kept == keep
    assert {n: t.shape for n, t in mask.items()} == {n: t.shape for n, t in like.items()}


def test_a_random_mask_is_of_its_seed_alone():
    like, state = mask_of(a=[1] * 50, b=[0] * 50), torch.get_rng_state()
    assert random_mask(like, 30, seed=1) == random_mask(like, 30, seed=1)
    assert random_mask(like, 30, seed=1) != random_mask(like, 30, seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_random_mask_keeps_every_entry_equally_often():
    like, seeds = mask_of(a=[1, 0, 1], b=[[1, 1], [0, 0]], c=[1]), 2000
    counts = torch.zeros(like.total)
    for seed in range(seeds):
        drawn = random_mask(like, 2, seed)
        counts += torch.cat([tensor.flatten() for tensor in drawn.values()])
    # Five standard deviations of a binomial with p = 2 / 8.
    assert (counts / seeds - 2 / 8).abs().max() < 5 * (0.25 * 0.75 / seeds) ** 0.5


@pytest.mark.parametrize("keep", [0, -1, 4])
def test_a_random_mask_of_an_impossible_size_is_refused(refused, keep):
    with refused(f"cannot keep {keep} of 3"):
        random_mask(mask_of(a=[1, 1, 1]), keep, seed=0)
