"""Recipes, plans and exact sizes of Wang et al. (2023)."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

import adapter_pruning as ap
from adapter_pruning.backbones import Model
from adapter_pruning.gates import heads_of
from adapter_pruning.papers import published
from adapter_pruning.recipes import Plan, layer_ranks, uniform_rank
from adapter_pruning.training import trainable

RELEASED, FIXED = ap.RECIPES["as_released"], ap.RECIPES["fixed"]
# papers.md, 2.2: what the released code trains for each task with stored ranks.
TRAINABLE = {"rte": 308_736, "mnli": 311_808, "mrpc": 294_144, "qnli": 291_840, "sst2": 325_632}


def bert_base():
    return Model(BertModel(BertConfig()), None, 2, "pooler", "bert-base")


def numbers(model):
    """(trainable, all)"""
    trained = sum(p.numel() for p in trainable(model).values())
    return trained, sum(p.numel() for p in model.parameters())


def scored(*rows):
    return {f"{i}.heads": torch.tensor(row, dtype=torch.float) for i, row in enumerate(rows)}


@pytest.fixture(scope="module")
def stored():
    """stored(task): scores that order the heads as the authors' own file does."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "reference"
    folder = Path(os.environ.get("ADAPTER_PRUNING_REFERENCE") or beside) / "head_ranks"

    def read(task):
        if not folder.is_dir():
            pytest.skip(f"no stored head ranks: {folder} is not a folder")
        table = [[int(n) for n in row] for row in csv.reader((folder / f"{task}.csv").open())]
        return scored(*[[143 - rank for rank in row] for row in table])

    return read


def plan_of(scores):
    """The released plan of given ranks: they are ranked already, so no norm comes in between."""
    return ap.plan(replace(RELEASED, norm="none"), scores)


@pytest.mark.parametrize("task", [*TRAINABLE, "cola"])
def test_the_released_code_is_reproduced_to_the_parameter_for_every_task(stored, task):
    made = plan_of(stored(task))
    model = ap.prune_lora(bert_base(), RELEASED, made)
    assert made.heads.kept == 101
    heads = heads_of(made.heads).sum(1).tolist()
    lora = sum(3 * r * (768 + 64 * h) for r, h in zip(made.ranks, heads, strict=True))
    assert numbers(model) == (38_400 + lora, 109_483_778 - 43 * 196_800 + lora)
    assert 38_400 + lora == TRAINABLE.get(task, 38_400 + lora)  # CoLA is not in the paper


def test_rte_has_the_heads_and_the_ranks_that_the_book_ships(stored):
    made, shipped = plan_of(stored("rte")), published("pruning_adapter_rte")
    assert heads_of(made.heads).sum(1).tolist() == shipped.heads_kept.tolist()
    assert list(made.ranks) == shipped.lora_rank.tolist()


def test_what_the_book_ships_gives_the_papers_figures_without_the_stored_ranks():
    shipped = published("pruning_adapter_rte")
    kept = {f"{i}.heads": torch.arange(12) < n for i, n in enumerate(shipped.heads_kept)}
    made = Plan(ap.Mask(kept), tuple(map(int, shipped.lora_rank)))
    assert numbers(ap.prune_lora(bert_base(), RELEASED, made)) == (308_736, 101_291_714)


def test_plain_lora_has_the_papers_count():
    assert numbers(ap.add_lora(bert_base(), RELEASED, 4)) == (259_584, 109_483_778 + 221_184)


def test_without_the_naming_mistake_and_by_the_text_rte_would_be_of_another_size(stored):
    scores = stored("rte")
    right = replace(RELEASED, by_substring=False, norm="none")
    assert numbers(ap.prune_lora(bert_base(), right, ap.plan(right, scores)))[0] == 294_144
    text = replace(right, targets=ap.RECIPES["as_written"].targets)
    for kept, expected in ((101, 379_392), (100, 378_368)):
        recipe = replace(text, kept=kept)
        assert numbers(ap.prune_lora(bert_base(), recipe, ap.plan(recipe, scores)))[0] == expected


def test_a_smaller_model_keeps_the_same_share_of_its_heads():
    scores = scored(*torch.arange(72).view(6, 12).tolist())
    kept = {name: ap.plan(recipe, scores).heads.kept for name, recipe in ap.RECIPES.items()}
    assert kept == {"as_written": 50, "as_released": 51, "fixed": 50}


def test_the_high_rank_goes_to_the_layers_whose_heads_matter_most():
    scores = scored([1, 2], [9, 8], [5, 1], [0, 0], [7, 7], [2, 2])
    assert layer_ranks(FIXED, scores) == (4, 8, 4, 4, 8, 4)


def test_a_norm_of_each_layer_ranks_layers_by_how_evenly_their_heads_share():
    even, loud = [1, 1, 1, 1], [100, 0, 0, 0]
    scores = scored(even, loud, [1, 0, 0, 0])
    assert layer_ranks(FIXED, scores) == (4, 8, 4)
    assert layer_ranks(ap.RECIPES["as_written"], scores) == (8, 4, 4)


def test_sums_of_ranks_count_the_heads_that_go_too():
    # The second layer has the best head, and the lowest sum of places belongs to the first.
    scores = scored([8, 7, 6], [9, 2, 1], [5, 4, 3])
    assert layer_ranks(replace(RELEASED, norm="none"), scores) == (8, 4, 4)


def test_layer_one_of_twelve_takes_ten_and_eleven_with_it():
    scores = scored(*([float(i in (1, 4, 6, 9))] * 2 for i in range(12)))
    scores["0.heads"] = torch.tensor([0.0, 0.1])
    by_name = replace(RELEASED, norm="none")
    assert [i for i, r in enumerate(layer_ranks(by_name, scores)) if r == 8] == [1, 4, 6, 9, 10, 11]
    by_number = replace(by_name, by_substring=False)
    assert [i for i, r in enumerate(layer_ranks(by_number, scores)) if r == 8] == [1, 4, 6, 9]


@pytest.mark.parametrize(("name", "head"), [("as_written", 0), ("as_released", 0), ("fixed", 1)])
def test_lora_and_layer_norms_train_and_the_head_only_in_fixed(tiny_bert, name, head):
    recipe = ap.RECIPES[name]
    made = Plan(ap.random_mask(ap.units_of(tiny_bert(), ("heads",)), 5, seed=1), (8, 4))
    names = trainable(ap.prune_lora(tiny_bert(), recipe, made))
    assert {n for n in names if "LayerNorm" not in n and not n.startswith("adapters.")} == (
        {"head.weight", "head.bias"} if head else set()
    )
    assert sum("LayerNorm" in n for n in names) == 2 * (1 + 2 * 2)
    targets = {n.split(".")[2] for n in names if n.startswith("adapters.")}
    assert targets == set(recipe.targets)


def test_fixed_has_one_scale_for_both_ranks_and_the_released_code_has_one_over_r(tiny_bert):
    for name, scales in {
        "fixed": {4.0},
        "as_written": {1.0},
        "as_released": {1 / 8, 1 / 4},
    }.items():
        model = ap.add_lora(tiny_bert(), ap.RECIPES[name], (8, 4))
        changes = [change for placed in model.adapters.values() for change in placed.values()]
        assert {change.scale for change in changes} == scales
        assert all((change.up.weight == 0).all() for change in changes)
        assert all((change.down.weight != 0).any() for change in changes)


def test_one_rank_for_all_layers_is_the_nearest_in_size(tiny_bert):
    kept = ap.Mask({"0.heads": torch.tensor([1, 1, 1, 1]) > 0, "1.heads": torch.arange(4) < 1})
    made = Plan(kept, (8, 4))
    rank = uniform_rank(made)

    def size(ranks):
        model = ap.prune_lora(tiny_bert(), FIXED, made._replace(ranks=ranks))
        return sum(p.numel() for p in model.adapters.parameters())

    gaps = {r: abs(size((r, r)) - size(made.ranks)) for r in range(1, 9)}
    assert rank == min(gaps, key=gaps.get)


def test_lora_merges_into_the_cut_matrices(tiny_bert, inputs):
    made = Plan(ap.random_mask(ap.units_of(tiny_bert(), ("heads",)), 5, seed=1), (8, 4))
    model = ap.prune_lora(tiny_bert(), FIXED, made).eval()
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    before = model(**inputs)
    merged = ap.merge(model)
    torch.testing.assert_close(merged(**inputs), before, rtol=0, atol=1e-5)
    assert merged.adapter_config is None
    bare = ap.cut(tiny_bert(), made.heads).eval()
    assert not torch.allclose(before, bare(**inputs), atol=1e-3)
    assert numbers(merged)[1] == numbers(bare)[1]


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [({"kept": 145}, ("kept", "144")), ({"high": 0}, ("high", "0")), ({"norm": "l1"}, ("norm",))],
)
def test_a_recipe_out_of_range_is_refused(refused, recipe, parts):
    with refused(*parts):
        ap.Recipe(**recipe)


def test_a_plan_for_another_model_is_refused(tiny_bert, refused):
    made = ap.plan(FIXED, scored(*[[3, 1, 2]] * 3))
    with refused("the importance map has '2.heads', which the model has not"):
        ap.prune_lora(tiny_bert(), FIXED, made)
    made = ap.plan(FIXED, scored([3, 1, 2], [5, 4, 6]))
    with refused("importance map entry '0.heads' has shape (3,), the model has (4,)"):
        ap.prune_lora(tiny_bert(), FIXED, made)


@pytest.mark.parametrize(
    ("ranks", "parts"),
    [
        ((4, 0), ("LoRA: rank.1 is 0", "greater than or equal to 1")),
        ((4, 33), ("rank 33 is above", "layer 1")),
        ((4, 4, 4), ("3 ranks", "2 layers")),
    ],
)
def test_ranks_that_cannot_be_are_refused_and_leave_no_adapters(tiny_bert, refused, ranks, parts):
    model = tiny_bert()
    with refused(*parts):
        ap.add_lora(model, FIXED, ranks)
    assert model.adapter_config is None
    ap.add_lora(model, FIXED, (4, 4))
