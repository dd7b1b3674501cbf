import copy
import dataclasses
import itertools
import re
from functools import partial

import numpy as np
import pytest
import torch

import adapter_pruning as ap
from adapter_pruning import tickets, training, trials
from adapter_pruning.errors import PruningError
from adapter_pruning.importance import neuron_norm
from adapter_pruning.records import comparable
from adapter_pruning.training import Progress, trainable
from adapter_pruning.units import UNITS

# 64 rows make 4 steps, with an evaluation after the second and the fourth.
QUICK = ap.TrainConfig(
    epochs=1, batch_size=16, evaluations_per_epoch=2, max_length=16, precision="fp32"
)
WEIGHTS = 4 * 2 * 32 * 4  # 4 adapters of two matrices each, 32 wide with a bottleneck of 4


@pytest.fixture(scope="module")
def small(tiny_bert):
    """small(): the tiny BERT with adapters, the same at every call."""
    model = ap.attach(tiny_bert(), ap.Houlsby(bottleneck=4))
    return lambda: copy.deepcopy(model)


@pytest.fixture
def store(tmp_path):
    return ap.RecordStore(tmp_path / "runs")


@pytest.fixture
def search(small, rotten):
    """search(store, **options): all rounds of a search from the same initial values."""

    def search(store=None, model=None, **options):
        options = {"rounds": 3, "config": QUICK, "progress": False} | options
        model = model or small()
        return list(ap.find_tickets(model, rotten, store=store, **options))

    return search


def bits(parameters):
    return {name: p.detach().numpy().tobytes() for name, p in parameters.items()}


def values(model):
    return {name: p.detach().clone() for name, p in trainable(model).items()}


@dataclasses.dataclass
class Trained:
    """What one training of a search started from, was held to, and ended with."""

    start: dict
    mask: ap.Mask
    end: dict


@pytest.fixture
def trained(monkeypatch):
    """The list of all trainings; they are real."""
    calls = []

    def spy(model, *args, **options):
        start = values(model)
        progress = training.fit(model, *args, **options)
        calls.append(Trained(start, options["mask"], values(model)))
        return progress

    monkeypatch.setattr(trials, "fit", spy)
    return calls


@pytest.fixture
def coarse(monkeypatch):
    """The list of all trainings; each only rounds the weights, which makes many ties."""
    calls = []

    def rounding(model, task, config, *, mask, **options):
        start = values(model)
        generator = torch.Generator().manual_seed(len(calls))
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                change = torch.randn(parameter.shape, generator=generator) / 50
                parameter.copy_(((parameter + change) * 50).round() / 50)
                if name in mask:
                    parameter.masked_fill_(~mask[name], 0)
        calls.append(Trained(start, mask, values(model)))
        return Progress(step=1, best_loss=1.0, best_step=1)

    monkeypatch.setattr(trials, "fit", rounding)
    return calls


def no_training(*args, **options):
    raise AssertionError("something was trained")


# The schedule


def test_every_round_drops_its_share_of_the_survivors(search, coarse):
    rounds = search(rounds=4, drop=0.2)

    kept = [WEIGHTS]
    for _ in range(4):
        kept.append(kept[-1] - kept[-1] * 2 // 10)
    assert [found.units.kept for found in rounds] == kept
    assert [found.index for found in rounds] == [0, 1, 2, 3, 4]
    assert [found.density for found in rounds] == [count / WEIGHTS for count in kept]


def test_no_rounds_means_the_unpruned_adapter_alone(search, coarse):
    (only,) = search(rounds=0)

    assert (only.index, only.density, len(coarse)) == (0, 1, 1)


@pytest.mark.parametrize("rounds", [10, 11, 15])
def test_the_search_ends_when_there_is_nothing_left_to_drop(search, coarse, rounds):
    found = search(rounds=rounds, drop=0.5)

    assert [one.units.kept for one in found] == [2**power for power in range(10, -1, -1)]
    assert len(coarse) == 11


@pytest.mark.parametrize(
    ("unit", "drop", "kept"),
    [
        ("neuron", 0.2, [16, 13, 11, 9, 8, 7, 6, 5, 4]),
        ("neuron", 0.5, [16, 8, 4, 2, 1]),
        ("adapter", 0.2, [4]),
        ("adapter", 0.5, [4, 2, 1]),
    ],
)
def test_a_search_of_neurons_or_adapters_ends_by_the_schedule(search, coarse, unit, drop, kept):
    found = search(unit=unit, rounds=15, drop=drop)

    assert [one.units.kept for one in found] == kept
    assert [one.units.total for one in found] == kept[:1] * len(kept)
    assert len(coarse) == len(kept)


# What a round trains


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_gone_stays_gone(search, unit):
    rounds = search(unit=unit, drop=0.4)

    assert len(rounds) > 1
    for one, following in itertools.pairwise(rounds):
        assert (one.units & following.units) == following.units != one.units
        assert (one.mask & following.mask) == following.mask != one.mask


def ranked(masks, trained, drop_tenths):
    """The next masks by brute force: sort every survivor, drop the floor of its share."""
    survivors = [
        (abs(float(trained[name][index])), place, index)
        for place, name in enumerate(masks)
        for index in zip(*np.nonzero(masks[name].numpy()), strict=True)
    ]
    survivors.sort()  # equal scores: the earlier matrix, then the earlier entry
    following = {name: kept.numpy().copy() for name, kept in masks.items()}
    names = list(masks)
    for _, place, index in survivors[: len(survivors) * drop_tenths // 10]:
        following[names[place]][index] = False
    return ap.Mask({name: torch.from_numpy(kept) for name, kept in following.items()})


@pytest.mark.parametrize("drop_tenths", [2, 7])
def test_the_next_mask_ranks_all_trained_weights_together(search, trained, drop_tenths):
    rounds = search(drop=drop_tenths / 10)

    for one, following, training_run in zip(rounds, rounds[1:], trained, strict=False):
        assert following.mask == ranked(one.mask, training_run.end, drop_tenths)


def test_ties_fall_to_the_entry_that_comes_first(search, coarse):
    rounds = search(rounds=5, drop=0.3)

    for one, following, training_run in zip(rounds, rounds[1:], coarse, strict=False):
        assert following.mask == ranked(one.mask, training_run.end, 3)


def test_biases_and_the_head_are_never_pruned(search, coarse):
    last = search(rounds=15, drop=0.5)[-1]

    assert all(re.fullmatch(r"adapters\..*\.(down|up)\.weight", name) for name in last.mask)


@pytest.mark.parametrize("unit", UNITS)
def test_every_round_starts_from_the_initial_values(search, small, trained, unit):
    search(unit=unit, drop=0.4)

    for run in trained:
        assert bits(run.start) == bits(values(small()))


@pytest.mark.parametrize("unit", UNITS)
def test_pruned_entries_are_zero_in_the_trained_model(search, trained, unit):
    rounds = search(unit=unit, drop=0.4)

    assert [run.mask for run in trained] == [found.mask for found in rounds]
    for run in trained:
        for name, kept in run.mask.items():
            assert not run.end[name][~kept].any()
            assert run.end[name][kept].all()


def test_the_model_ends_with_the_trained_weights_of_the_last_round(search, small, trained):
    model = small()
    search(model=model)

    assert bits(trainable(model)) == bits(trained[-1].end)


LOW = "adapters.0.ffn"


def low_score(parameters, mask):
    """Neurons of one adapter rank below all others; in their order, so that none is zero."""
    scores = neuron_norm(parameters, mask)
    scores[LOW] = scores[LOW] * 1e-9
    return scores


@pytest.fixture
def emptied(small, rotten):
    """A model whose one adapter has lost its neurons, trained, and the round that left it so."""
    model = small()
    unit = dataclasses.replace(UNITS["neuron"], name="neuron, one adapter first", score=low_score)
    config = dataclasses.replace(QUICK, learning_rate=0.01, warmup_epochs=0.0)
    options = {"rounds": 2, "drop": 0.25, "config": config, "progress": False}
    *_, emptying, last = ap.find_tickets(model, rotten, unit=unit, **options)
    for found in (emptying, last):
        assert [name for name, kept in found.units.items() if not kept.any()] == [LOW]
    return model, last


def output_of(model, hidden):
    layer, position = LOW.split(".")[1:]
    with torch.no_grad():
        return model.eval().adapters[layer][position](hidden)


def test_a_ticket_with_an_adapter_that_lost_all_neurons_still_trains(emptied, small):
    model, last = emptied
    start = values(small())

    assert last.units.kept == 9
    for name, kept in last.mask.items():
        moved = trainable(model)[name] != start[name]
        assert moved[kept].all(), name


def test_an_adapter_that_lost_all_neurons_adds_nothing(emptied):
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))

    assert not output_of(emptied[0], hidden).any()


def test_without_rewinding_the_head_goes_on_from_its_last_training(search, small, trained):
    search(rewind_head=False)

    initial = bits(values(small()))
    for before, run in itertools.pairwise(trained):
        for name, content in bits(run.start).items():
            expected = bits(before.end) if name.startswith("head.") else initial
            assert content == expected[name], name


def test_rewind_sets_everything_back_to_the_bit(small):
    model, initial = small(), values(small())
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(1)

    tickets.rewind(model, initial, head=True)

    assert bits(trainable(model)) == bits(initial)


def test_another_seed_finds_other_tickets(search):
    assert search(rounds=1, seed=0)[1].mask != search(rounds=1, seed=1)[1].mask


# Records


def test_every_round_has_a_record(search, store):
    rounds = search(store, profile="smoke")

    assert store.all() == [found.record for found in rounds]
    for found in rounds:
        record = found.record
        assert record["method"] == "weight ticket"
        assert record["profile"] == "smoke"
        assert record["density"] == found.mask.density
        assert found.score == record["score"] == record["metrics"]["accuracy"]
        assert record["detail"] == {
            "unit": "weight",
            "round": found.index,
            "kept": found.units.kept,
            "total": WEIGHTS,
            "unit_density": found.density,
            "density_by_matrix": found.mask.densities(),
        }


def test_without_a_store_the_search_runs_in_memory(search, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_memory = search()

    assert not list(tmp_path.rglob("*"))
    assert_same(in_memory, search(store))


def assert_same(rounds, others):
    assert len(rounds) == len(others)
    for one, other in zip(rounds, others, strict=True):
        assert (one.index, one.units, one.mask) == (other.index, other.units, other.mask)
        assert comparable(one.record) == comparable(other.record)


# Going on


@pytest.mark.parametrize("unit", UNITS)
def test_a_finished_search_is_read_and_not_trained_again(search, store, monkeypatch, unit):
    first = search(store, unit=unit)
    monkeypatch.setattr(trials, "fit", no_training)
    second = search(ap.RecordStore(store.folder), unit=unit)

    assert [found.record for found in second] == [found.record for found in first]
    assert_same(second, first)


def test_a_search_that_is_extended_trains_only_the_new_rounds(search, store, trained):
    two = search(store, rounds=2)
    four = search(store, rounds=4)

    assert len(trained) == 5
    assert_same(four[:3], two)
    assert_same(four, search(rounds=4))


def test_a_search_that_is_cut_short_has_stored_what_it_yielded(
    small, rotten, store, search, trained
):
    some = ap.find_tickets(small(), rotten, rounds=3, config=QUICK, store=store, progress=False)
    first = [next(some), next(some)]
    assert len(trained) == 2
    some.close()

    assert_same(search(store)[:2], first)
    assert len(trained) == 4


def test_extending_without_rewinding_the_head_finds_the_head_again(search, store):
    search(store, rounds=1, rewind_head=False)

    assert_same(search(store, rewind_head=False), search(rewind_head=False))


@pytest.mark.parametrize(
    "change",
    [{"drop": 0.5}, {"seed": 1}, {"rewind_head": False}, {"config": ap.TrainConfig(epochs=1)}],
    ids=lambda change: next(iter(change)),
)
def test_another_search_in_the_same_store_is_kept_apart(search, store, change):
    first = search(store, rounds=2)
    search(store, rounds=2, **change)

    assert_same(search(store, rounds=2), first)
    assert len(list((store.folder / "searches").iterdir())) == 2


@pytest.mark.parametrize("unit", UNITS)
def test_a_round_that_is_read_leaves_the_trained_weights_in_the_model_to_the_bit(
    small, rotten, store, trained, monkeypatch, unit
):
    options = {"unit": unit, "rounds": 2, "drop": 0.5, "config": QUICK, "progress": False}
    rounds = list(ap.find_tickets(small(), rotten, store=store, **options))
    monkeypatch.setattr(trials, "fit", no_training)
    model = small()

    again = ap.find_tickets(model, rotten, store=store, **options)

    assert len(rounds) == len(trained) == 3
    for run, _ in zip(trained, again, strict=True):
        assert bits(trainable(model)) == bits(run.end)


def test_another_score_under_the_same_name_is_another_search(search, store, trained):
    search(store, unit="neuron", rounds=1)
    backwards = dataclasses.replace(
        UNITS["neuron"], score=lambda p, mask: {n: -s for n, s in neuron_norm(p, mask).items()}
    )

    found = search(store, unit=backwards, rounds=1)

    assert_same(found, search(unit=backwards, rounds=1))
    assert len(list((store.folder / "searches").iterdir())) == 2


def test_a_score_that_is_rounded_differently_is_the_same_search(search, store, trained):
    # Sums over large tensors do so on another device or with another number of threads.
    def rounded(parameters, mask):
        scores = neuron_norm(parameters, mask)
        return {name: torch.nextafter(score, 2 * score) for name, score in scores.items()}

    search(store, unit="neuron", rounds=1)
    search(store, unit=dataclasses.replace(UNITS["neuron"], score=rounded), rounds=1)

    assert len(trained) == 2


EVALUATIONS = 2 * 3 + 3  # two in each training, and one of the trained model


@pytest.mark.parametrize("rewind_head", [True, False])
@pytest.mark.parametrize("evaluation", range(1, EVALUATIONS + 1))
def test_an_interrupted_search_goes_on_to_the_same_end(
    search, store, monkeypatch, evaluation, rewind_head
):
    options = {"rounds": 2, "rewind_head": rewind_head}
    whole = search(**options)
    calls, predict = itertools.count(1), training.predict

    def interrupted(*args):
        if next(calls) == evaluation:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(trials, "fit", partial(training.fit, checkpoint_seconds=0))
    monkeypatch.setattr(training, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(store, **options)

    assert_same(search(store, **options), whole)
    # One evaluation was begun twice, and no other.
    assert next(calls) == EVALUATIONS + 2
    assert not list(store.folder.rglob("*.pt"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\0" * len(content),
        lambda content: content + b"more",
    ],
    ids=["cut off", "empty", "zeros", "too long"],
)
def test_a_damaged_round_is_refused_in_a_sentence(search, store, damage):
    search(store, rounds=1)
    (file,) = store.folder.rglob("round_00.safetensors")
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(PruningError, match=refusal(file)):
        search(store, rounds=1)


def refusal(file):
    return rf"^the (round )?file {re.escape(repr(str(file)))} is damaged.*; delete it to [^;\n]+$"


def test_a_round_with_one_changed_byte_is_refused(search, store):
    search(store, rounds=1)
    (file,) = store.folder.rglob("round_00.safetensors")
    content = file.read_bytes()

    for place in range(0, len(content), len(content) // 40):
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(PruningError, match=refusal(file)):
            search(store, rounds=1)


def test_a_deleted_round_is_trained_again(search, store, trained):
    whole = search(store, rounds=2)
    (file,) = store.folder.rglob("round_01.safetensors")
    file.unlink()

    assert_same(search(store, rounds=2), whole)
    assert len(trained) == 4
    assert len(store.all()) == 3


def test_a_record_lost_from_the_store_is_restored_from_its_round(search, store, monkeypatch):
    rounds = search(store, rounds=2)
    store.file(rounds[0].record).unlink()
    monkeypatch.setattr(trials, "fit", no_training)

    search(store, rounds=2)

    assert store.all() == [found.record for found in rounds]


# Tickets from their records


@pytest.fixture
def on_cpu(monkeypatch):
    """`load_ticket` takes the device that is there; bits are compared on one kind."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("unit", UNITS)
def test_a_ticket_is_loaded_from_its_record_as_it_was_trained(
    search, store, rotten, trained, monkeypatch, unit
):
    rounds = search(store, unit=unit, rounds=2, drop=0.5)
    monkeypatch.setattr(trials, "fit", no_training)

    for found, run in zip(rounds, trained, strict=True):
        model = ap.load_ticket(ap.RecordStore(store.folder), found.record, rotten)
        assert bits(trainable(model)) == bits(run.end)
        assert ap.evaluate(model, rotten, QUICK) == found.record["metrics"]


@pytest.mark.usefixtures("on_cpu")
def test_a_loaded_ticket_predicts_what_the_trained_model_predicted(search, store, rotten, small):
    model = small()
    last = search(store, model, rounds=1)[-1]

    loaded = ap.load_ticket(store, last.record, rotten)

    expected = training.predict(model, rotten, "test", QUICK)
    for found, known in zip(training.predict(loaded, rotten, "test", QUICK), expected, strict=True):
        np.testing.assert_array_equal(found, known)
    assert not any(p.requires_grad for p in loaded.encoder.parameters())
    assert (loaded.pooling, loaded.name) == (model.pooling, model.name)
    assert loaded.adapter_config == model.adapter_config


@pytest.mark.usefixtures("on_cpu")
def test_a_loaded_ticket_has_the_records_pooling_dropout_and_adapters(
    tiny_bert, rotten, search, store
):
    config = ap.Houlsby(bottleneck=3, activation="relu", init_std=0.05)
    model = ap.attach(tiny_bert(pooling="mean", dropout=0.25), config)
    last = search(store, model, rounds=1)[-1]

    loaded = ap.load_ticket(store, last.record, rotten)

    assert (loaded.pooling, loaded.dropout.p) == ("mean", 0.25)
    assert loaded.adapter_config == config
    assert bits(trainable(loaded)) == bits(trainable(model))
    assert ap.evaluate(loaded, rotten, QUICK) == last.record["metrics"]


@pytest.mark.usefixtures("on_cpu")
def test_of_two_searches_in_one_store_the_records_own_round_is_loaded(
    search, store, rotten, trained
):
    slow = search(store, rounds=1, drop=0.2)
    fast = search(store, rounds=1, drop=0.7)

    dense, slower, faster = trained  # both searches begin with the same round
    for found, run in zip(slow + fast, [dense, slower, dense, faster], strict=True):
        model = ap.load_ticket(store, found.record, rotten)
        assert bits(trainable(model)) == bits(run.end)


@pytest.mark.parametrize(("index", "gone"), [(0, 0), (1, 1), (2, 2), (2, 1)])
def test_a_record_whose_round_file_is_gone_is_refused(search, store, rotten, refused, index, gone):
    record = search(store, rounds=2)[index].record
    (file,) = store.folder.rglob(f"round_0{gone}.safetensors")
    file.unlink()

    with refused(str(store.folder), record["key"] if index == gone else file.name):
        ap.load_ticket(store, record, rotten)


def test_a_record_of_another_store_is_refused(search, store, rotten, tmp_path, refused):
    record = search(store, rounds=0)[0].record
    elsewhere = ap.RecordStore(tmp_path / "elsewhere")

    with refused(record["key"], str(elsewhere.folder), "run its search again there"):
        ap.load_ticket(elsewhere, record, rotten)


def test_a_ticket_from_a_damaged_round_is_refused(search, store, rotten):
    record = search(store, rounds=0)[0].record
    (file,) = store.folder.rglob("round_00.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(PruningError, match=refusal(file)):
        ap.load_ticket(store, record, rotten)


def test_a_ticket_for_a_task_with_another_number_of_outputs_is_refused(search, store, refused):
    record = search(store, rounds=0)[0].record
    task = ap.load_task("stsb", train_size=8, validation_size=4, test_size=4)

    with refused("'rotten_tomatoes' with 2 output(s)", "'stsb' has 1"):
        ap.load_ticket(store, record, task)


def test_a_record_of_no_search_is_refused_in_a_sentence(store, small, rotten, refused):
    options = {"seed": 0, "method": "adapter", "progress": False}
    record = ap.run_once(store, small(), rotten, QUICK, **options)

    with refused(record["key"]):
        ap.load_ticket(store, record, rotten)


# Bad calls


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"unit": "wait"}, r"unknown unit 'wait'; choose one of: weight.*"),
        (
            {"drop": 0.0},
            r"drop is 0\.0; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": 1.0},
            r"drop is 1\.0; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": 20},
            r"drop is 20; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": float("nan")},
            r"drop is nan; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": "0.2"},
            r"drop is '0\.2'; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        ({"rounds": -1}, r"rounds is -1; it must be a whole number, at least 0"),
        ({"rounds": 2.0}, r"rounds is 2\.0; it must be a whole number, at least 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_by_the_call_itself(small, rotten, store, options, sentence):
    with pytest.raises(PruningError, match=f"^{sentence}$"):
        ap.find_tickets(small(), rotten, store=store, **options)

    assert not store.folder.exists()


def test_a_model_without_adapters_is_refused_by_the_call_itself(tiny_bert, rotten):
    with pytest.raises(PruningError, match=r"^the model has no adapters; attach some first$"):
        ap.find_tickets(tiny_bert(), rotten)
