"""The figures of heads show the numbers of their records."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from test_sparse_plots import FACTS

from adapter_pruning import head_plots, records


def made(scores, *, seed=0, draw=0, rows=8, head="trained", task="t"):
    return {
        "task": task,
        "seed": seed,
        "model": "minilm",
        "profile": "smoke",
        "rows": {"train": 64, "test": 64},
        "detail": {"rows": rows, "draw": draw, "head": head, "form": "example"},
        "scores": {f"{i}.heads": list(row) for i, row in enumerate(scores)},
    }


def drawn(number, layers=3):
    return np.random.default_rng(number).random((layers, 4)).tolist()


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_a_map_shows_each_head_in_its_place_between_0_and_1():
    found = [made([[3.0, 4.0], [0.0, 5.0]]), made([[1.0, 0.0], [0.0, 1.0]])]
    figure = head_plots.maps(found, ["one", "two"])
    one, two, *_ = figure.axes
    np.testing.assert_allclose(one.images[0].get_array(), [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)
    assert one.images[0].origin == "lower"
    assert [axes.get_title() for axes in (one, two)] == ["one", "two"]


def test_an_odd_number_of_maps_leaves_no_empty_frame():
    found = [made(drawn(i)) for i in range(3)]
    figure = head_plots.maps(found, list("abc"))
    assert [axes.axison for axes in figure.axes[:4]] == [True, True, True, False]


def test_agreement_is_spearman_over_all_heads_for_pairs_with_one_head_and_size():
    same = [made(drawn(i), draw=i) for i in range(3)]
    others = [made(drawn(8), head="untrained"), made(drawn(9), rows=16), made(drawn(7), task="u")]
    pairs = head_plots.agreement([*same, *others])
    assert pairs.draws.tolist() == [["0.0", "0.1"], ["0.0", "0.2"], ["0.1", "0.2"]]

    def flat(record):
        table = np.array(list(record["scores"].values()))
        return (table / np.linalg.norm(table, axis=1, keepdims=True)).ravel()

    expected = [
        spearmanr(flat(same[i]), flat(same[j])).statistic for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    np.testing.assert_allclose(pairs.correlation, expected, atol=1e-6)


def test_stability_has_a_line_a_head_with_mean_and_range_at_each_size():
    pairs = pd.DataFrame(
        [
            {"head": head, "rows": rows, "correlation": value + (0.1 if head == "trained" else 0)}
            for head in ("trained", "untrained")
            for rows in (3, 64)
            for value in (0.2, 0.6)
        ]
    )
    found = [made(drawn(0))]
    axes = head_plots.stability(pairs, records.frame(found)).axes[0]
    lines = {
        line.get_label(): line.get_ydata() for line in axes.lines if "head" in line.get_label()
    }
    np.testing.assert_allclose(lines["trained head"], [0.5, 0.5])
    np.testing.assert_allclose(lines["untrained head"], [0.4, 0.4])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [0.3, 0.7])


def runs(seeds):
    return pd.DataFrame(
        {
            "method": f"at {density}",
            "task": "t",
            "seed": seed,
            "score": density + seed / 100,
            "detail.density": density,
        }
        for density in (1.0, 0.9, 0.5)
        for seed in range(seeds)
    ).assign(**FACTS)


@pytest.mark.parametrize("seeds", [2, 3])
def test_scores_stand_at_their_density_with_a_band_from_three_seeds(seeds):
    axes = head_plots.score_by_encoder_density(runs(seeds)).axes[0]
    line = axes.lines[0]
    np.testing.assert_allclose(line.get_xdata(), [50, 90, 100])
    np.testing.assert_allclose(line.get_ydata(), np.array([0.5, 0.9, 1.0]) + (seeds - 1) / 200)
    assert len(axes.collections) == (seeds >= 3)
    assert axes.xaxis_inverted()


def test_kept_heads_have_a_line_a_way_from_the_first_layer():
    kept = {"a": np.array([3, 1]), "b": np.array([2, 2])}
    axes = head_plots.kept_by_layer(kept, runs(1)).axes[0]
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert axes.lines[0].get_ydata().tolist() == [3, 1]
    assert axes.lines[0].get_xdata()[0] == 1
