"""Pruning at initialisation: exact totals, hand-made densities, and the loss's derivatives."""

import copy

import numpy as np
import pytest
import torch
from quick_training import QUICKER
from small_adapters import KINDS, randomise

import adapter_pruning as ap
from adapter_pruning import at_init
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.at_init import (
    CRITERIA,
    erdos_renyi,
    erdos_renyi_densities,
    kept_of,
    prune_at_init,
)
from adapter_pruning.masks import Mask, pack
from adapter_pruning.sensitivity import grasp, sample_losses, snip
from adapter_pruning.trials import hash_tensors
from adapter_pruning.units import UNITS

SAMPLE = {"rows": 12, "batch_size": 5, "max_length": 16}
MATRICES = ("Houlsby", "Pfeiffer", "Parallel", "LoRA", "MAM")


@pytest.fixture(scope="module")
def model(tiny_bert):
    """Two layers, adapters of three units: 768 weights, values as after training."""
    made = ap.attach(tiny_bert(), ap.Houlsby(bottleneck=3))
    randomise(made)
    return made.double()


@pytest.fixture(scope="module")
def every(model):
    return UNITS["weight"].all(adapter_parameters(model))


@pytest.fixture(scope="module")
def mean_loss(model, rotten):
    """mean_loss(name, index, value): the sample's loss in float64 with one weight changed."""
    twin = copy.deepcopy(model).eval()
    parameters = adapter_parameters(twin)

    def mean_loss(changes):
        before = {name: parameters[name].detach().clone() for name in changes}
        with torch.no_grad():
            for name, tensor in changes.items():
                parameters[name].copy_(tensor)
            loss = sum(in_double(twin, rotten))
            for name, tensor in before.items():
                parameters[name].copy_(tensor)
        return loss.item()

    return mean_loss


def in_double(model, task):
    """The sample's losses; the task's own loss rounds to float32, which differences cannot bear."""
    drawn = np.random.default_rng(0).permutation(len(task.train))[: SAMPLE["rows"]]
    texts = [task.train.texts[0][i] for i in drawn]
    labels = torch.from_numpy(task.train.labels[drawn])
    for text, label in zip(texts, labels, strict=True):
        tokens = model.tokenizer(
            text, truncation=True, max_length=SAMPLE["max_length"], return_tensors="pt"
        )
        logits = model(**tokens)
        yield -logits.log_softmax(-1)[0, label] / len(drawn)


# Against independent computations


def picked(every):
    """A few entries of every matrix."""
    generator = np.random.default_rng(1)
    for name, kept in every.items():
        for flat in generator.choice(kept.numel(), 4, replace=False):
            yield name, tuple(int(i) for i in np.unravel_index(flat, kept.shape))


def bumped(parameters, name, index, by):
    tensor = parameters[name].detach().clone()
    tensor[index] += by
    return {name: tensor}


def test_snip_is_the_size_of_weight_times_gradient_by_finite_differences(
    model, rotten, every, mean_loss
):
    scores, parameters = snip(model, rotten, every, **SAMPLE), adapter_parameters(model)
    step = 1e-5
    for name, index in picked(every):
        up, down = (mean_loss(bumped(parameters, name, index, by)) for by in (step, -step))
        expected = abs(parameters[name][index].item() * (up - down) / (2 * step))
        assert scores[name][index].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_grasp_is_weight_times_hessian_times_gradient_with_the_whole_hessian(tiny_bert, rotten):
    model = ap.attach(tiny_bert(), ap.LoRA(rank=1, targets=("query",)))
    randomise(model)
    model = model.double().eval()
    parameters = adapter_parameters(model)
    every = UNITS["weight"].all(parameters)

    def loss(*values):
        state = dict(zip(every, values, strict=True))
        return torch.func.functional_call(_Loss(model, rotten), _named(state), ())

    values = tuple(parameters[name].detach() for name in every)
    sizes = [value.numel() for value in values]
    blocks = torch.autograd.functional.hessian(loss, values)
    hessian = torch.cat(
        [
            torch.cat([b.reshape(n, m) for b, m in zip(row, sizes, strict=True)], dim=1)
            for row, n in zip(blocks, sizes, strict=True)
        ]
    )
    gradient = torch.autograd.functional.jacobian(loss, values)
    product = hessian @ torch.cat([g.flatten() for g in gradient])
    expected = torch.cat([v.flatten() for v in values]) * product
    scores = grasp(model, rotten, every, **SAMPLE)
    found = torch.cat([scores[name].flatten() for name in every])
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


class _Loss(torch.nn.Module):
    def __init__(self, model, task):
        super().__init__()
        self.inner, self.task = model, task

    def forward(self):
        return sum(in_double(self.inner, self.task))


def _named(state):
    return {f"inner.{name}": value for name, value in state.items()}


def test_the_loss_of_the_sample_is_the_mean_over_its_rows_whatever_the_batches(model, rotten):
    model.eval()
    with torch.no_grad():
        by_row = sum(in_double(model, rotten))
        for size in (1, 5, 12):
            total = sum(sample_losses(model, rotten, **(SAMPLE | {"batch_size": size})))
            torch.testing.assert_close(total.double(), by_row, rtol=1e-5, atol=0)


def test_scoring_leaves_the_model_as_it_was(model, rotten, every):
    state = copy.deepcopy(model.state_dict())
    model.train()
    snip(model, rotten, every, **SAMPLE)
    grasp(model, rotten, every, **SAMPLE)
    assert model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# Erdos-Renyi


def shaped(**shapes):
    return Mask.ones({name: torch.empty(shape) for name, shape in shapes.items()})


def test_erdos_renyi_densities_by_hand():
    # Ratios (n_in + n_out) / (n_in n_out): 12/20 = 3/5, and 20/100 = 1/5. Half of 120 are kept:
    # e (12 + 20) = 60, e = 1.875, so 1.125 and 0.375: the first is more than dense. Then
    # 40 are left for 100.
    densities = erdos_renyi_densities(shaped(a=(2, 10), b=(10, 10)), 60)
    assert densities == pytest.approx({"a": 1.0, "b": 0.4})
    # A third of 120: e = 1.25, nothing is more than dense.
    densities = erdos_renyi_densities(shaped(a=(2, 10), b=(10, 10)), 40)
    assert densities == pytest.approx({"a": 0.75, "b": 0.25})


def test_erdos_renyi_has_one_density_where_all_matrices_have_one_shape_or_its_transpose():
    densities = erdos_renyi_densities(shaped(a=(3, 32), b=(32, 3), c=(3, 32)), 101)
    assert densities == pytest.approx(dict.fromkeys("abc", 101 / 288))


@pytest.mark.parametrize("keep", [1, 7, 60, 119, 120])
def test_erdos_renyi_keeps_the_total_to_the_weight_and_each_matrix_to_one(keep):
    every = shaped(a=(2, 10), b=(10, 10))
    mask, densities = erdos_renyi(every, keep, seed=3), erdos_renyi_densities(every, keep)
    assert mask.kept == keep
    for name, kept in mask.items():
        assert abs(kept.sum().item() - densities[name] * kept.numel()) < 1


def test_erdos_renyi_draws_by_its_seed():
    every = shaped(a=(2, 10), b=(10, 10))
    assert erdos_renyi(every, 40, seed=1) == erdos_renyi(every, 40, seed=1)
    assert erdos_renyi(every, 40, seed=1) != erdos_renyi(every, 40, seed=2)


# Masks


@pytest.mark.parametrize(
    ("total", "sparsity", "kept"),
    [(768, 0.4, 460), (100, 0.07, 93), (10, 0.25, 7), (10, 0.0, 10), (3, 0.66, 1)],
)
def test_the_ceiling_of_sparsity_times_total_goes(total, sparsity, kept):
    assert kept_of(total, sparsity) == kept


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_prunes_every_adapter_with_matrices_to_the_weight(
    tiny_bert, rotten, kind, criterion
):
    model = ap.attach(tiny_bert(), KINDS[kind])
    mask = prune_at_init(model, rotten, criterion, 0.4, **SAMPLE)
    matrices = [n for n in adapter_parameters(model) if n.endswith("weight")]
    assert list(mask) == matrices
    assert mask.total - mask.kept == -(-4 * mask.total // 10)


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c != "erdos_renyi"])
def test_per_matrix_scope_takes_its_share_of_each(model, rotten, criterion):
    mask = prune_at_init(model, rotten, criterion, 0.4, scope="matrix", **SAMPLE)
    for kept in mask.values():
        assert kept.sum().item() == kept.numel() - -(-4 * kept.numel() // 10)


def test_global_magnitude_keeps_the_largest_of_all(model, rotten):
    mask = prune_at_init(model, rotten, "magnitude", 0.75)
    parameters = adapter_parameters(model)
    kept = torch.cat([parameters[n].detach().abs()[m] for n, m in mask.items()])
    gone = torch.cat([parameters[n].detach().abs()[~m] for n, m in mask.items()])
    assert kept.min() >= gone.max()


def test_nothing_is_pruned_at_sparsity_0(model, rotten):
    for criterion in CRITERIA:
        assert prune_at_init(model, rotten, criterion, 0.0, **SAMPLE).density == 1.0


# Bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterion": "synflow"}, ["criterion 'synflow'", *CRITERIA]),
        ({"scope": "layer"}, ["scope 'layer'", "global, matrix"]),
        ({"sparsity": 1.0}, ["sparsity is 1.0", "below 1"]),
        ({"sparsity": -0.1}, ["sparsity is -0.1", "at least 0"]),
        ({"sparsity": 0.9999}, ["leaves nothing of 768"]),
    ],
)
def test_bad_calls_are_refused(model, rotten, refused, options, said):
    call = {"criterion": "magnitude", "sparsity": 0.5} | options
    with refused(*said):
        prune_at_init(model, rotten, **call)


@pytest.fixture
def started_at_zero(tiny_bert):
    """LoRA as its authors start it: nothing in the up-projections."""
    model = ap.attach(tiny_bert(), ap.LoRA(rank=2))
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if name.endswith("up.weight"):
                parameter.zero_()
    return model


@pytest.mark.parametrize(("criterion", "scope"), [("snip", "global"), ("grasp", "matrix")])
def test_zero_initialised_up_projections_are_refused_with_the_reason(
    started_at_zero, rotten, refused, criterion, scope
):
    with refused("all scores are zero", "up-projections"):
        prune_at_init(started_at_zero, rotten, criterion, 0.5, scope=scope, **SAMPLE)


def test_zero_initialised_up_projections_leave_grasp_only_the_down_projections(
    started_at_zero, rotten
):
    # Its gradient is 0 too, but the Hessian couples it with the up-projection's, which is not.
    every = UNITS["weight"].all(adapter_parameters(started_at_zero))
    for name, scores in grasp(started_at_zero, rotten, every, **SAMPLE).items():
        assert scores.any() == name.endswith("down.weight")


def test_a_prefix_has_no_matrices_to_prune(tiny_bert, rotten, refused):
    with refused("Prefix has no matrices"):
        prune_at_init(ap.attach(tiny_bert(), KINDS["Prefix"]), rotten, "magnitude", 0.5)


def test_scores_that_are_not_finite_are_refused(tiny_bert, rotten, refused):
    model = ap.attach(tiny_bert(), KINDS["LoRA"])
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with refused("not all finite"):
        prune_at_init(model, rotten, "snip", 0.5, **SAMPLE)


# Pruned, trained, recorded


@pytest.fixture
def asked(monkeypatch):
    """The list of all computations of SNIP scores."""
    calls = []

    def counted(*args, **options):
        calls.append(options)
        return snip(*args, **options)

    monkeypatch.setattr(at_init, "snip", counted)
    return calls


def sparse(store, model, task, **changes):
    options = {"criterion": "snip", "sparsity": 0.5, "seed": 0, "rows": 12, "progress": False}
    return ap.run_sparse(store, model, task, QUICKER, **(options | changes))


def test_a_sparse_run_trains_under_the_criterions_mask(tmp_path, small, rotten):
    model = small()
    mask = prune_at_init(small(), rotten, "snip", 0.5, rows=12, max_length=QUICKER.max_length)
    record = sparse(ap.RecordStore(tmp_path), model, rotten, detail={"standard": 2})

    assert record["mask"] == hash_tensors(pack(mask))
    assert record["detail"] == {
        "criterion": "snip",
        "sparsity": 0.5,
        "scope": "global",
        "density_by_matrix": mask.densities(),
        "standard": 2,
    }
    assert record["method"] == "snip at initialisation"
    assert record["density"] == pytest.approx(0.5, abs=1e-3)
    trained = dict(model.named_parameters())
    for name, kept in mask.items():
        assert not trained[name][~kept].any()
        assert trained[name][kept].any()


def test_scores_are_computed_once_for_all_sparsities_and_calls(tmp_path, small, rotten, asked):
    store = ap.RecordStore(tmp_path)
    first = sparse(store, small(), rotten)
    again = sparse(ap.RecordStore(tmp_path), small(), rotten)
    sparser = sparse(store, small(), rotten, sparsity=0.9)

    assert len(asked) == 1
    assert again == first
    assert sparser["density"] == pytest.approx(0.1, abs=1e-2)
    assert len(store.all()) == 2


@pytest.mark.parametrize("change", [{"seed": 1}, {"rows": 8}])
def test_other_scores_are_computed_for_themselves(tmp_path, small, rotten, asked, change):
    store = ap.RecordStore(tmp_path)
    sparse(store, small(), rotten)
    sparse(store, small(), rotten, **change)
    assert len(asked) == 2


@pytest.mark.parametrize("criterion", ["random", "magnitude", "erdos_renyi"])
def test_what_needs_no_rows_keeps_no_scores(tmp_path, small, rotten, criterion):
    sparse(ap.RecordStore(tmp_path), small(), rotten, criterion=criterion)
    assert not (tmp_path / "scores").exists()
