"""Importance of heads and columns: against differences and gradients taken without any gate."""

import copy

import numpy as np
import pytest
import torch
from strong_models import load_strong

from adapter_pruning.batches import collate
from adapter_pruning.gates import units_of
from adapter_pruning.head_importance import unit_importance

SAMPLE = {"rows": 6, "batch_size": 4, "max_length": 16}
BOTH = ("heads", "ffn")
READERS = {"heads": "attention_output", "ffn": "ffn_out"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded(folder, rotten):
    """pooling -> the model in float64."""
    made = load_strong(folder, rotten).double()

    def pooled(pooling):
        model = copy.deepcopy(made)
        if pooling == "pooler" and model.encoder.pooler is None:
            pytest.skip("only BERT has a trained pooler")
        model.pooling = pooling
        return model

    return pooled


@pytest.fixture(params=["pooler", "cls", "mean"])
def model(request, loaded):
    return loaded(request.param)


@pytest.fixture
def bert(tiny_folder, rotten):
    return load_strong(tiny_folder, rotten)


def each_alone(model, task, seed=0):
    """(inputs, label) of each row of the sample, in float64 and without padding."""
    drawn = np.random.default_rng(seed).permutation(len(task.train))[: SAMPLE["rows"]]
    rows = task.encode(model.tokenizer, SAMPLE["max_length"])["train"]
    for i in drawn:
        yield collate([rows[i]], model.tokenizer.pad_token_id, CPU), rows[i]["labels"]


def losses(model, rows):
    """Each row's own loss; the task's rounds to float32, which differences cannot bear."""
    with torch.no_grad():
        logits = torch.cat([model(**inputs) for inputs, _ in rows])
    labels = torch.tensor([label for _, label in rows])
    return -logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]


def readers(model):
    """(name of `units_of`, the matrix that reads them, numbers a unit)."""
    for layer in model.layers():
        for kind, part in READERS.items():
            yield f"{layer.index}.{kind}", layer.part(part), 8 if kind == "heads" else 1


def tokens(rows):
    return sum(inputs["attention_mask"].sum().item() for inputs, _ in rows)


# Against independent computations


def by_differences(model, reader, columns, rows):
    """dL/d gate of each row: central differences, with the gate on the matrix that reads it."""
    step, whole, ends = 1e-4, reader.weight.detach().clone(), []
    for gate in (1 + step, 1 - step):
        with torch.no_grad():
            reader.weight[:, columns] *= gate
            ends.append(losses(model, rows))
            reader.weight.copy_(whole)
    return (ends[0] - ends[1]) / (2 * step)


def test_example_is_the_size_of_each_examples_derivative_by_differences(model, rotten):
    scores = unit_importance(model, rotten, kinds=BOTH, **SAMPLE)
    rows = list(each_alone(model, rotten))
    for name, reader, size in readers(model):
        for unit in range(4):  # all heads, and as many columns
            columns = slice(unit * size, (unit + 1) * size)
            expected = by_differences(model, reader, columns, rows).abs().sum() / tokens(rows)
            assert scores[name][unit].item() == pytest.approx(expected.item(), rel=1e-6, abs=0)


def by_values(model, rows):
    """Sum over tokens of |<values, dL/d values>|, without any division."""
    read, totals = {}, {name: 0.0 for name, _, _ in readers(model)}

    def keep(name, args):
        args[0].retain_grad()
        read[name] = args[0]

    for name, reader, _ in readers(model):
        reader.register_forward_pre_hook(lambda module, args, name=name: keep(name, args))
    for inputs, label in rows:
        (-model(**inputs).log_softmax(-1)[0, label]).backward()
        for name, _, size in readers(model):
            products = (read[name] * read[name].grad).unflatten(-1, (-1, size)).sum(-1)
            totals[name] = totals[name] + products.abs().sum((0, 1)).detach()
    return totals


def test_position_is_values_times_gradient_and_divides_by_what_the_head_reads(model, rotten):
    scores = unit_importance(model, rotten, form="position", kinds=BOTH, **SAMPLE)
    rows = list(each_alone(model, rotten))
    for name, total in by_values(copy.deepcopy(model), rows).items():
        # With the mean, every token of the last layer has a say; else only the first of each text.
        first_only = name.startswith("1.") and model.pooling != "mean"
        expected = total / (len(rows) if first_only else tokens(rows))
        torch.testing.assert_close(scores[name].double(), expected, rtol=1e-6, atol=0)


def test_in_the_last_layer_one_token_an_example_makes_both_forms_one_but_for_the_division(
    loaded, rotten
):
    model = loaded("cls")
    example, position = (
        unit_importance(model, rotten, form=form, kinds=BOTH, **SAMPLE)
        for form in ("example", "position")
    )
    rows = list(each_alone(model, rotten))
    for name in ("1.heads", "1.ffn"):
        torch.testing.assert_close(example[name] * tokens(rows), position[name] * len(rows))
    assert (position["0.heads"] > example["0.heads"]).all()  # sizes that cannot cancel


# What does not matter, and what does


@pytest.mark.parametrize("form", ["example", "position"])
def test_the_batch_size_does_not_matter(model, rotten, form):
    one, eight = (
        unit_importance(model, rotten, form=form, kinds=BOTH, **(SAMPLE | {"batch_size": size}))
        for size in (1, 8)
    )
    for name, scores in one.items():
        torch.testing.assert_close(scores, eight[name], rtol=1e-5, atol=0)


def test_a_seed_draws_its_rows(bert, rotten):
    first, same, other = (unit_importance(bert, rotten, seed=seed, **SAMPLE) for seed in (0, 0, 1))
    assert all(torch.equal(scores, same[name]) for name, scores in first.items())
    assert not any(torch.equal(scores, other[name]) for name, scores in first.items())


def test_scores_fit_the_units_and_are_float32_and_not_negative(bert, rotten):
    for kinds in (("heads",), ("ffn",), BOTH):
        scores = unit_importance(bert, rotten, kinds=kinds, **SAMPLE)
        shapes = {name: kept.shape for name, kept in units_of(bert, kinds).items()}
        assert {name: score.shape for name, score in scores.items()} == shapes
        assert all(score.dtype == torch.float32 for score in scores.values())
        assert all((score >= 0).all() and score.any() for score in scores.values())


@pytest.mark.parametrize("training", [True, False])
def test_scoring_has_no_dropout_and_leaves_the_model_as_it_was(bert, rotten, training):
    expected = unit_importance(copy.deepcopy(bert), rotten, **SAMPLE)
    state = copy.deepcopy(bert.state_dict())
    bert.train(training)
    scores = unit_importance(bert, rotten, **SAMPLE)
    assert all(torch.equal(score, expected[name]) for name, score in scores.items())
    assert bert.training == training
    assert all(torch.equal(tensor, state[name]) for name, tensor in bert.state_dict().items())
    assert all(p.grad is None for p in bert.parameters())
    assert not [m for m in bert.modules() if m._forward_pre_hooks]


def test_a_frozen_model_has_the_same_scores(bert, rotten):
    before = unit_importance(bert, rotten, **SAMPLE)
    scores = unit_importance(bert.requires_grad_(False), rotten, **SAMPLE)
    assert all(torch.equal(score, before[name]) for name, score in scores.items())


def test_training_mode_comes_back_after_an_error(bert, rotten, refused):
    bert.train()
    bert.pooling = "tokens"
    with refused("pooling 'tokens'"):
        unit_importance(bert, rotten, **SAMPLE)
    assert bert.training


# Refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"form": "token"}, ["form 'token'", "example, position"]),
        ({"kinds": ("neurons",)}, ["kind of unit 'neurons'", "heads, ffn"]),
    ],
)
def test_an_unknown_form_or_kind_is_refused(bert, rotten, refused, options, said):
    with refused(*said):
        unit_importance(bert, rotten, **SAMPLE, **options)


def test_scores_that_are_not_finite_are_refused(bert, rotten, refused):
    with torch.no_grad():
        bert.head.weight[0, 0] = torch.nan
    with refused("'0.heads'", "not finite"):
        unit_importance(bert, rotten, **SAMPLE)
