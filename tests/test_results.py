"""The recorded runs: whole, with their provenance, and what the book's claims rest on."""

from pathlib import Path

import pytest

from adapter_pruning.papers import recorded

RESULTS = sorted(
    file.stem for file in (Path(__file__).parents[1] / "book" / "results").glob("*.jsonl")
)
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
    assert "quick" in RESULTS


@pytest.mark.parametrize("name", RESULTS)
def test_every_recorded_model_says_where_it_comes_from(name):
    assert recorded(name)[list(PROVENANCE)].notna().all(axis=None)


@pytest.mark.parametrize("name", RESULTS)
def test_a_recorded_run_comes_from_one_version_of_the_library(name):
    assert recorded(name).groupby("library").ngroups == 1


def test_an_unknown_recorded_run_is_refused_with_the_known_ones(refused):
    with refused("unknown recorded run 'nope'", "quick"):
        recorded("nope")


def test_the_default_books_dense_adapter_is_well_above_the_majority_for_every_seed():
    search = recorded("quick").query("method == 'weight ticket' and task == 'rotten_tomatoes'")
    dense = search[search["detail.round"] == 0]
    assert dense.seed.nunique() >= 3
    assert (dense.score > dense["majority.accuracy"] + 0.15).all()


def test_the_default_books_search_has_every_round_for_every_seed():
    search = recorded("quick").query("method == 'weight ticket'")
    for _, rounds in search.groupby("seed"):
        assert sorted(rounds["detail.round"]) == list(range(16))
