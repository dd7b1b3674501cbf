"""Controls: each lacks one thing that a ticket has, and nothing else."""

import copy
import dataclasses
import functools

import pytest
import torch

import adapter_pruning as ap
from adapter_pruning import training, trials
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.controls import same_size
from adapter_pruning.masks import pack
from adapter_pruning.training import trainable
from adapter_pruning.trials import hash_tensors
from adapter_pruning.units import UNITS

QUICK = ap.TrainConfig(
    epochs=1,
    batch_size=16,
    evaluations_per_epoch=2,
    max_length=16,
    precision="fp32",
    learning_rate=0.01,
)
BOTTLENECK, SEED = 4, 3
CONTROLS = ["random mask", "re-initialised", "one-shot", "dense, same size"]
# Of 1024 weights, 16 neurons and 4 adapters. The default drop leaves all 4 adapters.
SEARCHES = {
    "weight": {"rounds": 2, "drop": 0.2},
    "neuron": {"rounds": 2, "drop": 0.2},
    "adapter": {"rounds": 1, "drop": 0.5},
}


@pytest.fixture(scope="module")
def make(tiny_bert):
    """make(bottleneck, seed): the tiny BERT with adapters; the seed draws them and the head."""

    @functools.cache
    def loaded(bottleneck, seed):
        return ap.attach(tiny_bert(seed=seed), ap.Houlsby(bottleneck=bottleneck), seed=seed)

    def make(bottleneck, seed):
        model = loaded(bottleneck, seed)
        return copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})

    return make


@dataclasses.dataclass
class Training:
    """What one training started from and was held to."""

    start: dict
    mask: ap.Mask | None

    @property
    def hashes(self):
        """As a record has them."""
        mask = hash_tensors(pack(self.mask)) if self.mask is not None else None
        return hash_tensors(self.start), mask


@dataclasses.dataclass
class Case:
    """A search of one unit, the controls of its last round, and the trainings of these."""

    unit: str
    store: ap.RecordStore
    rounds: list
    controls: dict
    trainings: dict

    @property
    def ticket(self):
        return self.rounds[-1].record

    def training(self, name):
        """The training of a control."""
        record = self.controls[name]
        return self.trainings[record["start"], record["mask"]]


@pytest.fixture(scope="module")
def trained():
    """All trainings since the last `clear()`; they are real."""
    calls = []

    def spy(model, *args, **options):
        start = {name: p.detach().clone() for name, p in trainable(model).items()}
        calls.append(Training(start, options["mask"]))
        return training.fit(model, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "fit", spy)
        yield calls


@pytest.fixture(scope="module")
def control(make, rotten):
    """control(store, unit, found, **options): the controls of one round."""

    def control(store, unit, found, **options):
        options = {"config": QUICK, "seed": SEED, "progress": False} | options
        common = {"unit": unit, "bottleneck": BOTTLENECK, "store": store}
        return ap.run_controls(make, rotten, found, **common, **options)

    return control


@pytest.fixture(scope="module", params=SEARCHES)
def case(request, make, rotten, control, trained, tmp_path_factory):
    unit, store = request.param, ap.RecordStore(tmp_path_factory.mktemp("controls"))
    options = {"config": QUICK, "seed": SEED, "store": store, "progress": False}
    model = make(BOTTLENECK, SEED)
    rounds = list(ap.find_tickets(model, rotten, unit=unit, **SEARCHES[unit], **options))
    trained.clear()
    drop = SEARCHES[unit]["drop"]
    controls = control(store, unit, rounds[-1], profile="smoke", drop=drop)
    return Case(unit, store, rounds, controls, {one.hashes: one for one in trained})


def units_of(unit, mask):
    """The kept units of a mask over weights, which has to be made of whole units."""
    if unit == "weight":
        assert all(name.endswith(".weight") for name in mask)
        return {(name, *place) for name in mask for place in mask[name].nonzero().tolist()}
    adapters = sorted({name.rsplit(".", 2)[0] for name in mask})
    if unit == "adapter":
        for name, kept in mask.items():
            assert kept.all() == kept.any(), name
        return {a for a in adapters if all(k.all() for n, k in mask.items() if n.startswith(a))}
    for a in adapters:
        bias = mask[f"{a}.down.bias"]
        assert torch.equal(mask[f"{a}.down.weight"], bias[:, None].expand(-1, 32))
        assert torch.equal(mask[f"{a}.up.weight"], bias.expand(32, -1))
        assert torch.equal(mask[f"{a}.up.bias"], bias.any().expand(32))
    return {(a, i) for a in adapters for (i,) in mask[f"{a}.down.bias"].nonzero().tolist()}


def scores_of(unit, parameters):
    """Every unit's score by plain loops over numbers (Wu & Chen 2022, section 2.4)."""
    matrices = {n: p.tolist() for n, p in parameters.items() if n.endswith("weight")}
    if unit == "weight":
        return {
            (name, i, j): abs(value)
            for name, rows in matrices.items()
            for i, row in enumerate(rows)
            for j, value in enumerate(row)
        }
    ups = {n.removesuffix(".up.weight"): rows for n, rows in matrices.items() if ".up." in n}
    if unit == "neuron":
        return {(a, i): sum(r[i] ** 2 for r in ups[a]) for a in ups for i in range(BOTTLENECK)}
    return {
        a: sum(abs(v) for m in ("down", "up") for row in matrices[f"{a}.{m}.weight"] for v in row)
        for a in ups
    }


def test_there_are_four_controls(case):
    assert list(case.controls) == CONTROLS
    assert case.rounds[-1].density < 1


def test_each_control_is_trained_as_the_ticket_was(case):
    for record in case.controls.values():
        for fact in ("task", "model", "config", "seed", "data_revision", "rows"):
            assert record[fact] == case.ticket[fact], fact
        assert record["profile"] == "smoke"


def test_each_control_is_in_the_store_beside_the_search(case):
    stored = {record["key"]: record for record in case.store.all()}

    assert len(stored) == len(case.rounds) + 4
    for record in case.controls.values():
        assert stored[record["key"]] == record


def test_the_masked_controls_say_whose_they_are(case):
    found = case.rounds[-1]
    for name in CONTROLS[:3]:
        record = case.controls[name]
        assert record["method"] == name
        assert record["detail"] == {
            "unit": case.unit,
            "round": found.index,
            "unit_density": found.density,
        }


def test_a_masked_control_and_its_ticket_have_the_share_of_units_as_their_density(case):
    found = case.rounds[-1]
    for record in (case.ticket, *(case.controls[name] for name in CONTROLS[:3])):
        assert record["density"] == found.density == found.units.kept / found.units.total


def test_the_random_mask_keeps_as_many_units_with_the_tickets_initial_values(case):
    kept = units_of(case.unit, case.training("random mask").mask)

    assert len(kept) == case.rounds[-1].units.kept
    assert case.controls["random mask"]["start"] == case.ticket["start"]
    if case.unit != "adapter":  # of 4 adapters, chance may draw the ticket's
        assert kept != units_of(case.unit, case.rounds[-1].mask)


def test_another_seed_draws_another_random_mask(make, control, tmp_path):
    parameters, unit = adapter_parameters(make(BOTTLENECK, 0)), UNITS["weight"]
    half = ap.random_mask(unit.all(parameters), 512, seed=0)
    found = ap.tickets.Round(1, half, half, {})
    store = ap.RecordStore(tmp_path)

    drawn = {control(store, unit, found, seed=seed)["random mask"]["mask"] for seed in (0, 1)}

    assert len(drawn) == 2


def test_the_reinitialised_control_has_the_tickets_mask_and_other_values(case, make):
    record = case.controls["re-initialised"]

    assert record["mask"] == case.ticket["mask"]
    assert record["start"] != case.ticket["start"]
    start = case.training("re-initialised").start
    for name, value in trainable(make(BOTTLENECK, SEED)).items():
        if name.endswith("weight"):
            assert (start[name] != value).any(), name


def test_the_one_shot_mask_keeps_the_highest_scores_of_the_trained_dense_adapter(
    case, rotten, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    dense = ap.load_ticket(case.store, case.rounds[0].record, rotten)
    scores = scores_of(case.unit, adapter_parameters(dense))
    keep = case.rounds[-1].units.kept
    best = sorted(scores, key=scores.get, reverse=True)[:keep]

    assert units_of(case.unit, case.training("one-shot").mask) == set(best)
    assert len(best) == keep
    assert case.controls["one-shot"]["start"] == case.ticket["start"]


def test_the_dense_control_has_no_mask_and_the_width_of_the_tickets_size(case, make):
    record = case.controls["dense, same size"]
    width = max(1, round(case.rounds[-1].density * BOTTLENECK))

    assert record["mask"] is None
    assert record["density"] == 1
    assert record["adapter"]["bottleneck"] == width < BOTTLENECK
    assert record["method"] == f"dense adapter of {width}"
    assert record["start"] == hash_tensors(trainable(make(width, SEED)))


def test_a_control_is_no_ticket_to_load(case, rotten, refused):
    for record in case.controls.values():
        with refused(record["key"]):
            ap.load_ticket(case.store, record, rotten)


def test_a_second_call_trains_nothing(case, control, trained):
    trained.clear()
    store, drop = ap.RecordStore(case.store.folder), SEARCHES[case.unit]["drop"]
    again = control(store, case.unit, case.rounds[-1], drop=drop)

    assert again == case.controls
    assert not trained


@pytest.mark.parametrize(("unit", "drop"), [("weight", 0.2), ("neuron", 0.5)])
def test_the_dense_adapter_of_the_search_is_not_trained_again(
    unit, drop, make, rotten, control, trained, tmp_path
):
    store, options = ap.RecordStore(tmp_path), {"config": QUICK, "seed": SEED, "progress": False}
    model, common = make(BOTTLENECK, SEED), {"unit": unit, "drop": drop, "store": store}
    _, found = ap.find_tickets(model, rotten, rounds=1, **common, **options)
    trained.clear()

    control(store, unit, found, drop=drop)

    assert len(trained) == 4


def test_a_unit_of_ones_own_has_controls_too(make, rotten, control, tmp_path):
    store, unit = ap.RecordStore(tmp_path), ap.units.weights(prune_bias=True)
    options = {"config": QUICK, "seed": SEED, "store": store, "progress": False}
    _, found = ap.find_tickets(make(BOTTLENECK, SEED), rotten, unit=unit, rounds=1, **options)

    controls = control(store, unit, found)

    assert list(controls) == CONTROLS
    for name in CONTROLS[:3]:
        assert controls[name]["density"] == found.mask.density
        assert controls[name]["detail"]["unit"] == "weight and bias"


@pytest.mark.parametrize(
    ("bottleneck", "density", "width"),
    [
        (128, 0.21, 27),  # the dense adapter of Wu & Chen (2022), Table 2
        (64, 0.2097152, 13),
        (64, 1.0, 64),
        (12, 0.5, 6),
        (10, 0.26, 3),
        (10, 0.24, 2),
        (8, 0.01, 1),
        (1, 0.2, 1),
    ],
)
def test_the_same_size_is_the_nearest_whole_bottleneck_and_at_least_1(bottleneck, density, width):
    assert same_size(bottleneck, density) == width


def test_an_unknown_unit_is_refused_before_anything_is_trained(case, control, trained, refused):
    trained.clear()
    with refused("unknown unit 'nueron'", "weight, neuron, adapter"):
        control(case.store, "nueron", case.rounds[-1])

    assert not trained
