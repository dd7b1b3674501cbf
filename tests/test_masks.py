"""Masks: what they are, what pruning makes of them, and that training cannot escape them."""

import itertools
import json
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adapter_pruning as ap
from adapter_pruning import files
from adapter_pruning.masks import (
    Mask,
    check_fit,
    hold,
    load_mask,
    prune,
    prune_to,
    random_mask,
    save_mask,
    schedule,
    survivors_to_drop,
)


def mask_of(**rows) -> Mask:
    """A mask from lists of 0 and 1."""
    return Mask({name: torch.tensor(row, dtype=torch.bool) for name, row in rows.items()})


@st.composite
def masks(draw, names=("a", "b.weight", "c/é"), least=0) -> Mask:
    """Masks of one to three tensors of up to three dimensions, scalars and single rows too."""
    kept = {}
    for name in names[: draw(st.integers(1, len(names)))]:
        shape = draw(st.lists(st.integers(1, 5), max_size=3))
        size = int(torch.Size(shape).numel())
        bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        kept[name] = torch.tensor(bits, dtype=torch.bool).view(shape)
    if sum(int(tensor.sum()) for tensor in kept.values()) < least:
        kept[names[0]] = torch.ones_like(kept[names[0]])
    return Mask(kept)


# What a mask is


def test_a_mask_is_a_mapping_in_the_order_it_was_made_in():
    mask = mask_of(z=[1, 0], a=[0])
    assert list(mask) == ["z", "a"]
    assert len(mask) == 2
    assert "z" in mask
    assert mask["z"].tolist() == [True, False]


def test_a_mask_does_not_follow_the_tensor_it_was_made_from():
    source = torch.tensor([True, True])
    mask = Mask({"a": source})
    source[0] = False
    assert mask["a"].all()


def test_what_a_mask_hands_out_cannot_change_it():
    mask = mask_of(a=[1, 1], b=[1])
    mask["a"][0] = False
    for tensor in mask.values():
        tensor.zero_()
    assert mask == mask_of(a=[1, 1], b=[1])


def test_a_mask_takes_no_assignment():
    mask = mask_of(a=[1])
    with pytest.raises(TypeError):
        mask["a"] = torch.tensor([False])
    with pytest.raises(TypeError):
        del mask["a"]


def test_a_mask_cannot_be_hashed():
    # Equal masks would need equal hashes, and tensors have none that goes by value.
    with pytest.raises(TypeError):
        hash(mask_of(a=[1]))


@pytest.mark.parametrize("entry", [torch.ones(2), torch.ones(2, dtype=torch.uint8), [True], None])
def test_an_entry_that_is_no_bool_tensor_is_named(refused, entry):
    with refused("'b'", "bool tensor"):
        Mask({"a": torch.tensor([True]), "b": entry})


def test_an_empty_mask_is_refused(refused):
    with refused("at least one tensor"):
        Mask({})


def test_density_counts_entries_and_not_tensors():
    mask = mask_of(a=[1, 1, 1, 0, 0, 0], b=[[1], [1]])
    assert (mask.kept, mask.total) == (5, 8)
    assert mask.density == 5 / 8
    assert mask.densities() == {"a": 0.5, "b": 1.0}


def test_ones_keeps_everything_in_the_shapes_given():
    mask = Mask.ones({"w": torch.nn.Parameter(torch.zeros(2, 3)), "s": torch.tensor(0.0)})
    assert mask == mask_of(w=[[1, 1, 1], [1, 1, 1]], s=1)


@given(masks())
def test_set_algebra_has_its_laws(mask):
    everything, nothing = mask | ~mask, mask & ~mask
    assert everything == Mask.ones(mask)
    assert nothing.kept == 0
    assert ~~mask == mask
    assert (mask & everything) == mask == (mask | nothing)
    assert mask.density + (~mask).density == pytest.approx(1)


def test_set_algebra_equals_the_hand_computed():
    a, b = mask_of(x=[1, 1, 0, 0]), mask_of(x=[1, 0, 1, 0])
    assert (a & b) == mask_of(x=[1, 0, 0, 0])
    assert (a | b) == mask_of(x=[1, 1, 1, 0])
    assert ~a == mask_of(x=[0, 0, 1, 1])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (mask_of(x=[1, 1], y=[1]), "'y'"),
        (mask_of(y=[1, 1]), "'y'"),
        (mask_of(x=[1]), "shape (1,), the mask has (2,)"),
    ],
)
def test_masks_that_do_not_fit_cannot_be_combined(refused, other, said):
    with refused(said):
        mask_of(x=[1, 1]) & other
    with refused(said):
        mask_of(x=[1, 1]) | other


@pytest.mark.parametrize(
    "other",
    [
        mask_of(x=[1, 1], y=[1]),
        mask_of(x=[1, 0], y=[1], z=[1]),
        mask_of(x=[1, 0]),
        mask_of(x=[[1, 0]], y=[1]),
        mask_of(y=[1], x=[1, 0]),  # ties go by order, so order is part of what a mask is
        {"x": torch.tensor([True, False]), "y": torch.tensor([True])},
    ],
)
def test_masks_are_equal_only_in_names_order_shapes_and_values(other):
    mask = mask_of(x=[1, 0], y=[1])
    assert mask == mask_of(x=[1, 0], y=[1])
    assert mask != other


def test_check_fit_names_what_the_target_has_and_the_mask_has_not(refused):
    with refused("the model has 'b'", "the mask has not"):
        check_fit(mask_of(a=[1]), {"a": torch.ones(1), "b": torch.ones(1)}, "model")


# Files


@given(mask=masks())
def test_a_mask_comes_back_from_its_file_as_it_was(tmp_path_factory, mask):
    file = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    save_mask(mask, file)
    assert load_mask(file) == mask


def test_a_mask_file_takes_one_bit_an_entry(tmp_path):
    file = tmp_path / "mask.safetensors"
    save_mask(Mask.ones({"w": torch.empty(1000, 800)}), file)
    assert 100_000 <= file.stat().st_size < 101_000


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_mask_file_is_named(tmp_path, refused, keep):
    file = tmp_path / "mask.safetensors"
    save_mask(mask_of(a=[1, 0, 1]), file)
    file.write_bytes(file.read_bytes()[:keep])
    with refused(str(file), "damaged"):
        load_mask(file)


@given(data=st.data())
@settings(max_examples=200)
def test_a_mask_file_with_a_wrong_byte_gives_a_mask_or_an_error_that_names_it(
    tmp_path_factory, data
):
    file = tmp_path_factory.getbasetemp() / "wrong-byte.safetensors"
    save_mask(mask_of(first=[1, 0, 1], second=[[1], [1]]), file)
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        found = load_mask(file)
    except ap.PruningError as error:
        found = str(error)
    assert isinstance(found, Mask) or str(file) in found


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"shapes": "{"},
        {"shapes": json.dumps({"b": [8]})},
        {"shapes": json.dumps({"a": [2, 9]})},
        {"shapes": json.dumps({"a": [3]})},
        {"shapes": json.dumps({})},
    ],
)
def test_a_mask_file_whose_shapes_do_not_fit_its_bits_is_damaged(tmp_path, refused, about):
    file = tmp_path / "mask.safetensors"
    files.save_tensors(file, {"a": torch.zeros(2, dtype=torch.uint8)}, {"kind": "mask"} | about)
    with refused(str(file), "damaged"):
        load_mask(file)


def test_a_file_of_something_else_is_not_a_mask_file(tmp_path, refused):
    files.save_tensors(tmp_path / "weights", {"a": torch.ones(3)}, {})
    with refused(str(tmp_path / "weights"), "not a mask file"):
        load_mask(tmp_path / "weights")


# How many are dropped


@pytest.mark.parametrize(
    ("survivors", "drop", "expected"),
    [(100, 0.29, 29), (100, 0.57, 57), (1000, 0.001, 1), (24, 0.2, 4), (4, 0.2, 0), (10, 0.0, 0)],
)
def test_the_number_to_drop_is_exact_for_the_decimal_that_was_written(survivors, drop, expected):
    # 0.29 * 100 and 0.57 * 100 lie below 29 and 57 in floating point.
    assert survivors_to_drop(survivors, drop) == expected


@given(st.integers(0, 10**9), st.integers(0, 999))
def test_the_number_to_drop_is_the_floor_of_the_exact_product(survivors, thousandths):
    expected = survivors * thousandths // 1000
    assert survivors_to_drop(survivors, thousandths / 1000) == expected


NEURONS = [3072, 2458, 1967, 1574, 1260, 1008, 807, 646, 517, 414, 332, 266, 213, 171, 137, 110]


@pytest.mark.parametrize(
    ("units", "rounds", "left"),
    [
        (24, 15, [24, 20, 16, 13, 11, 9, 8, 7, 6, 5, 4]),
        (12, 15, [12, 10, 8, 7, 6, 5, 4]),
        (3072, 15, NEURONS),
        (24, 3, [24, 20, 16, 13]),
        (4, 15, [4]),
        (24, 0, [24]),
    ],
)
def test_the_schedule_is_that_of_the_published_tickets(units, rounds, left):
    assert schedule(units, rounds) == left


def test_the_weight_schedule_leaves_the_published_percentages():
    weights = 24 * 2 * 768 * 128  # both matrices of 24 adapters of bert-base-uncased
    percent = [round(100 * left / weights, 2) for left in schedule(weights, 15)]
    expected = [100, 80, 64, 51.2, 40.96, 32.77, 26.21, 20.97, 16.78, 13.42, 10.74]
    assert percent == [*expected, 8.59, 6.87, 5.50, 4.40, 3.52]


@pytest.mark.parametrize("pruned", range(16))
def test_every_round_of_weights_leaves_four_fifths_but_for_rounding(pruned):
    weights = 24 * 2 * 768 * 128
    # A floor keeps less than one weight too many, and the next rounds keep four fifths of that.
    surplus = schedule(weights, 15)[pruned] - weights * Fraction(4, 5) ** pruned
    assert 0 <= surplus < 5


@given(st.integers(1, 10**6), st.integers(1, 999))
def test_a_schedule_falls_and_never_empties_the_model(units, thousandths):
    drop = thousandths / 1000
    left = schedule(units, 10_000, drop)
    assert left[0] == units
    assert all(now > following >= 1 for now, following in itertools.pairwise(left))
    assert left[-1] * thousandths < 1000  # less than one is left to drop


@pytest.mark.parametrize("drop", [0.0, 1.0, -0.2, 1.5, float("nan"), 0, 1, 20, "0.2", None, True])
def test_a_drop_that_is_no_number_between_0_and_1_is_refused(refused, drop):
    with refused(f"drop is {drop!r}", "above 0 and below 1", "empties the model"):
        schedule(24, 15, drop)


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
