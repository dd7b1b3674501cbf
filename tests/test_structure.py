"""Which heads and columns stay."""

import pytest
import torch

import adapter_pruning as ap
from adapter_pruning.structure import unit_sizes


def scored(*rows):
    return {f"{i}.heads": torch.tensor(row, dtype=torch.float) for i, row in enumerate(rows)}


def kept(mask):
    return [[int(k) for k in tensor] for tensor in mask.values()]


def test_the_highest_scores_stay_and_ties_go_to_the_first():
    scores = scored([3, 1, 1], [1, 5, 0])
    assert kept(ap.keep_heads(scores, 4)) == [[1, 1, 1], [0, 1, 0]]


def test_at_least_so_many_stay_in_every_layer_and_the_total_is_the_same():
    scores = scored([9, 8, 7], [1, 2, 0])
    assert kept(ap.keep_heads(scores, 3)) == [[1, 1, 1], [0, 0, 0]]
    assert kept(ap.keep_heads(scores, 3, at_least=1)) == [[1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("keep", "at_least", "parts"),
    [
        (7, 0, ("cannot keep 7 of 6 heads",)),
        (0, 0, ("cannot keep 0 of 6 heads",)),
        (3, 2, ("at least 2", "2 layers", "3 are kept")),
        (6, 4, ("at least 4 of 3 heads",)),
    ],
)
def test_more_heads_than_there_are_is_refused(refused, keep, at_least, parts):
    with refused(*parts):
        ap.keep_heads(scored([3, 1, 2], [1, 5, 0]), keep, at_least)


def test_a_map_with_layers_of_unequal_size_or_with_nan_is_refused(refused):
    with refused("same number of heads"):
        ap.keep_heads(scored([1, 2], [1, 2, 3]), 2)
    with refused("'0.heads' are not all finite"):
        ap.keep_heads(scored([1, float("nan")], [1, 2]), 2)


def test_the_sizes_of_units_are_what_cutting_one_removes(tiny_bert):
    model = tiny_bert()
    whole, sizes = ap.units_of(model), unit_sizes(model)
    for name in ("0.heads", "1.ffn"):
        one = whole[name]
        one[0] = False
        before = sum(p.numel() for p in model.encoder.parameters())
        cut = ap.cut(tiny_bert(), ap.Mask({name: one}))
        assert before - sum(p.numel() for p in cut.encoder.parameters()) == sizes[name]


def of_layers(model):
    return sum(p.numel() for layer in model.layers() for p in layer.module.parameters())


@pytest.mark.parametrize("density", [0.9, 0.75, 0.5, 0.3])
def test_the_layers_get_the_density_to_one_unit(tiny_bert, density):
    model = tiny_bert()
    total, sizes = of_layers(model), unit_sizes(model)
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.rand(k.shape, generator=generator) for n, k in ap.units_of(model).items()}
    left = of_layers(ap.cut(model, ap.keep_density(model, scores, density)))
    assert density * total - max(sizes.values()) < left <= density * total + 0.5


def test_at_full_density_everything_stays(tiny_bert):
    model = tiny_bert()
    whole = ap.units_of(model)
    scores = {n: torch.arange(len(k)).float() for n, k in whole.items()}
    assert ap.keep_density(model, scores, 1.0) == whole


def test_both_kinds_lose_the_same_share_and_each_its_weakest(tiny_bert):
    model = tiny_bert()
    scores = {n: torch.arange(len(k)).float() for n, k in ap.units_of(model).items()}
    scores["1.heads"] += 10  # of the heads those of layer 0 are the weakest
    scores["0.ffn"] += 1000  # and of the columns those of layer 1
    kept = ap.keep_density(model, scores, 0.75)
    share = {
        kind: sum(int(t.sum()) for n, t in kept.items() if n.endswith(kind)) / total
        for kind, total in {"heads": 8, "ffn": 128}.items()
    }
    assert abs(share["heads"] - share["ffn"]) <= 1 / 8
    assert not kept["0.heads"][0] and kept["1.heads"].all()
    assert not kept["1.ffn"][0] and kept["0.ffn"].all()
    for tensor in kept.values():  # what is kept are the highest
        assert tensor.tolist() == sorted(tensor.tolist())


@pytest.mark.parametrize(
    ("density", "parts"),
    [(0, ("density is 0",)), (1.5, ("density is 1.5",)), (0.01, ("0.01 cannot be reached",))],
)
def test_a_density_that_cannot_be_is_refused(tiny_bert, refused, density, parts):
    model = tiny_bert()
    scores = {n: torch.ones(k.shape) for n, k in ap.units_of(model).items()}
    with refused(*parts):
        ap.keep_density(model, scores, density)


def test_scores_of_another_model_are_refused(tiny_bert, refused):
    model = tiny_bert()
    with refused("importance map", "0.ffn"):
        ap.keep_density(model, {n: torch.ones(4) for n in ap.units_of(model, ("heads",))}, 0.5)
