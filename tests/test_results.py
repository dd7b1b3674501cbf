"""The recorded runs: whole, with their provenance, and what the book's claims rest on."""

from pathlib import Path

import pytest

from adapter_pruning import schedule, tables
from adapter_pruning.papers import recorded, recorded_maps
from adapter_pruning.parameters import load_profile

ROOT = Path(__file__).parents[1]
MAPS = "maps"  # importance maps, of models that were not trained
RESULTS = {file.stem for file in (ROOT / "book" / "results").glob("*.jsonl")} - {MAPS}
NOTEBOOKS = {"weight": "02_weight_tickets", "neuron": "03_neuron_tickets"}
PROVENANCE = (
    "task",
    "data_revision",
    "model",
    "model_revision",
    "seed",
    "density",
    "parameters_trained",
    "parameters_stored",
    "score",
    "seconds",
    "peak_memory_mib",
    "versions.torch",
    "hardware.device",
    "library",
    "profile",
)


def test_the_default_book_has_a_recorded_run():
    assert "long" in RESULTS


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_every_recorded_model_says_where_it_comes_from(name):
    assert recorded(name)[list(PROVENANCE)].notna().all(axis=None)


def test_every_recorded_map_says_where_it_comes_from():
    of_trained = ("density", "parameters_", "score", "seconds", "peak_memory")
    facts = [name for name in PROVENANCE if not name.startswith(of_trained)]
    assert recorded(MAPS)[facts].notna().all(axis=None)
    assert all(len(record["scores"]) == 6 for record in recorded_maps(MAPS))


@pytest.mark.parametrize("name", sorted(RESULTS | {MAPS}))
def test_a_recorded_run_comes_from_one_version_of_the_library(name):
    assert recorded(name).groupby("library").ngroups == 1


def test_an_unknown_recorded_run_is_refused_with_the_known_ones(refused):
    with refused("unknown recorded run 'nope'", "long"):
        recorded("nope")


def test_the_default_books_dense_adapter_is_well_above_the_majority_for_every_seed():
    search = recorded("long").query("method == 'weight ticket' and task == 'rotten_tomatoes'")
    dense = search[search["detail.round"] == 0]
    assert dense.seed.nunique() >= 3
    assert (dense.score > dense["majority.accuracy"] + 0.15).all()


def test_the_default_books_searches_have_every_round_for_every_seed():
    frame, profile = recorded("long"), load_profile("long", ROOT / "profiles")
    rounds = {u: profile.of(n, ["rounds"])["rounds"] for u, n in NOTEBOOKS.items()} | {"adapter": 6}
    for unit, last in rounds.items():
        searches = tables.tickets(frame, unit).groupby("seed")
        assert sorted(searches.groups) == profile.seeds
        for _, found in searches:
            assert sorted(found["detail.round"]) == list(range(last + 1))


def test_the_glue_run_has_both_tasks_all_schemes_and_two_seeds():
    last = tables.reached(recorded("glue_cpu"))
    assert {("glue/mrpc", 0), ("glue/mrpc", 1), ("glue/cola", 0), ("glue/cola", 1)} <= set(
        last.index
    )
    assert last.notna().all(axis=None)


def test_the_glue_run_skips_no_round_and_fills_none_in():
    frame = recorded("glue_cpu")
    searches = frame[frame.method.str.endswith(" ticket")].groupby(["task", "seed", "method"])
    for _, found in searches:
        assert sorted(found["detail.round"]) == list(range(len(found)))
        kept = found.sort_values("detail.round")["detail.kept"].astype(int)
        assert list(kept) == schedule(int(found["detail.total"].iloc[0]), len(found) - 1)


def test_every_round_of_the_glue_run_has_the_setting_that_the_search_chose():
    for _, found in recorded("glue_cpu").groupby("task"):
        chosen = tables.tuned(found[(found.method == "dense adapter of 64") & (found.seed == 0)])
        rounds = found[found.method.str.endswith(" ticket")]
        for setting in ("config.learning_rate", "config.epochs"):
            assert (rounds[setting] == chosen[setting].item()).all()
