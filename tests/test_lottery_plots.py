"""The tickets' figures: they draw what the records hold, and say what made them."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from adapter_pruning import lottery_plots, plots, survivors


@pytest.fixture(autouse=True)
def _closed():
    plots.use_style()
    yield
    plt.close("all")


PLACES = list(itertools.product(range(2), ("attention", "ffn")))
GAINS = {0: 0.0, 1: 0.02, 2: 0.1}  # by seed: the mean is not the median


def search(unit: str, densities=(1.0, 0.5, 0.2), task="glue/rte", metric="accuracy", seeds=3):
    """Records of a search: scores fall with density; layer 1 keeps twice what layer 0 does."""
    return pd.DataFrame(
        {
            "method": f"{unit} ticket",
            "task": task,
            "seed": seed,
            "score": 0.6 + 0.1 * density + GAINS[seed],
            "metric": metric,
            f"majority.{metric}": 0.527,
            "model": "minilm",
            "profile": "quick",
            "rows.train": 2490,
            "rows.test": 277,
            "density": density,
            "detail.round": number,
            "detail.unit": unit,
            "detail.unit_density": density,
            "detail.density_by_matrix": {
                f"adapters.{layer}.{position}.{matrix}": density * (layer + 1) / 2
                for layer, position in PLACES
                for matrix in ("down.weight", "down.bias", "up.weight", "up.bias")
            },
        }
        for seed in range(seeds)
        for number, density in enumerate(densities)
    )


WEIGHTS = search("weight")
ADAPTERS = search("adapter")
AGREEMENT = pd.DataFrame(
    [("rte", 0.7, 0.3, 0.68, 0.01), ("cola", 0.2, 0.35, 0.65, 0.99), ("mrpc", 0.6, 0.2, 0.8, 0.2)],
    columns=["task", "concordance", "low", "high", "p"],
)


def lifetimes(layers: int) -> pd.DataFrame:
    """Two searches in which attention of layer l lived l and l + 1 rounds, FFN 10 longer."""
    return pd.DataFrame(
        [
            ("glue/rte", seed, layer, position, layer + seed + more)
            for seed in (0, 1)
            for layer in range(layers)
            for position, more in (("attention", 0), ("ffn", 10))
        ],
        columns=["task", "seed", "layer", "position", "rounds"],
    )


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: lottery_plots.density_by_matrix(WEIGHTS, 0.2),
        lambda: lottery_plots.survivor_map(lifetimes(2), ADAPTERS),
        lambda: lottery_plots.agreement(AGREEMENT, ADAPTERS),
        lambda: lottery_plots.score_by_task(WEIGHTS, "weight"),
    ],
)
def test_every_figure_says_its_model_data_seeds_and_profile(draw):
    signature = draw().get_supxlabel()
    assert signature == (
        "minilm · glue/rte · 2,490 training and 277 test rows\n3 seeds · profile quick"
    )


# Matrices


def test_the_heat_map_shows_percent_kept_of_the_nearest_round():
    axes = lottery_plots.density_by_matrix(WEIGHTS, density=0.21).axes[0]
    assert [text.get_text() for text in axes.texts] == ["20"] * 4 + ["10"] * 4
    assert "20.0% kept" in axes.get_title(loc="left")


def test_the_heat_map_is_the_mean_over_seeds_of_the_weights_without_the_biases():
    frame = search("weight", densities=(0.5,), seeds=2)
    for row, share in zip(frame["detail.density_by_matrix"], (0.25, 0.75), strict=True):
        row["adapters.1.ffn.down.weight"] = share
        row["adapters.1.ffn.down.bias"] = 0.99
    frame["detail.density_by_matrix"][0]["adapters.0.attention.up.weight"] = 0.35
    axes = lottery_plots.density_by_matrix(frame, density=0.5).axes[0]
    shown = np.array([text.get_text() for text in axes.texts]).reshape(2, 4)
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == ["attention\ndown", "attention\nup", "FFN\ndown", "FFN\nup"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2", "1"]
    assert shown.tolist() == [["50", "50", "50", "50"], ["25", "30", "25", "25"]]


# Adapters


def texts(axes) -> np.ndarray:
    """The numbers in a heat map's cells, lowest layer first."""
    return np.array([text.get_text() for text in axes.texts]).reshape(-1, 2)[::-1]


def test_the_survivor_map_has_our_mean_last_rounds():
    axes = lottery_plots.survivor_map(lifetimes(6), ADAPTERS).axes[0]
    ours = survivors.by_layer(lifetimes(6)).to_numpy()
    assert ours[2].tolist() == [2.5, 12.5]
    assert texts(axes).tolist() == [[f"{value:.1f}" for value in row] for row in ours]
    assert [label.get_text() for label in axes.get_yticklabels()] == list("654321")


def test_the_survivor_map_has_the_authors_percentages_beside_ours():
    axes = lottery_plots.survivor_map(lifetimes(6), ADAPTERS).axes[1]
    theirs = 100 * survivors.authors(None, 12).to_numpy()
    assert texts(axes).tolist() == [[f"{value:.0f}" for value in row] for row in theirs]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        str(layer) for layer in range(12, 0, -1)
    ]


def test_both_halves_of_the_survivor_map_say_what_they_are():
    left, right = lottery_plots.survivor_map(lifetimes(2), ADAPTERS).axes
    assert left.get_title() == "ours: last round"
    assert right.get_title() == "authors: % of\n9 tasks that keep it"
    assert left.get_ylabel() == "encoder layer (1 is lowest)"
    for axes in (left, right):
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            "after\nattention",
            "after\nFFN",
        ]


def test_what_was_kept_for_longer_is_darker():
    for axes in lottery_plots.survivor_map(lifetimes(6), ADAPTERS).axes:
        cells = axes.collections[0]
        values = np.asarray(cells.get_array()).ravel()
        light = cells.get_facecolor()[:, :3].mean(axis=1)
        assert light[values.argmax()] < light[values.argmin()]


# Agreement


def test_the_agreement_draws_its_tables_points_over_chance_in_rising_order():
    axes = lottery_plots.agreement(AGREEMENT, ADAPTERS).axes[0]
    points = next(line for line in axes.lines if line.get_label() == "our survival")
    assert points.get_xydata().tolist() == [[0.2, 0], [0.6, 1], [0.7, 2]]
    assert points.get_linestyle() == "None"
    bars = [np.array(segment).tolist() for segment in axes.collections[0].get_segments()]
    assert bars == [[[0.35, 0], [0.65, 0]], [[0.2, 1], [0.8, 1]], [[0.3, 2], [0.68, 2]]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cola", "mrpc", "rte"]


def test_the_agreement_marks_a_half_and_names_points_and_bars():
    figure = lottery_plots.agreement(AGREEMENT, ADAPTERS)
    axes = figure.axes[0]
    assert [0.5, 0.5] in [list(line.get_xdata()) for line in axes.lines]
    assert legend_of(figure) == ["95% of chance", "our survival"]
    assert axes.get_xlim() == (0, 1)
    assert axes.get_xlabel() == "pairs of adapters in the same order"


# Scores


TWO = pd.concat(
    [
        search("neuron", seeds=2),
        search("neuron", (1.0, 0.4), "glue/cola", "matthews", seeds=1),
        search("weight", task="glue/sst2"),
    ],
    ignore_index=True,
)


def test_there_is_one_panel_for_each_task_of_the_unit():
    panels = lottery_plots.score_by_task(TWO, "neuron").axes
    assert [axes.get_title(loc="left") for axes in panels] == ["glue/rte", "glue/cola"]
    assert [axes.get_ylabel() for axes in panels] == ["accuracy", "Matthews correlation"]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_panel_has_the_mean_in_order_of_density_and_every_seed_behind_it(order):
    frame = pd.concat([WEIGHTS[WEIGHTS["detail.round"] == number] for number in order])
    axes = lottery_plots.score_by_task(frame, "weight").axes[0]
    *seeds, mean, majority = axes.lines
    np.testing.assert_allclose(mean.get_xdata(), [0.2, 0.5, 1.0])
    np.testing.assert_allclose(mean.get_ydata(), [0.66, 0.69, 0.74])
    for line, gain in zip(seeds, GAINS.values(), strict=True):
        drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        assert drawn == pytest.approx({d: 0.6 + 0.1 * d + gain for d in (1.0, 0.5, 0.2)})
        assert line.get_alpha() < 1
    assert list(majority.get_ydata()) == [0.527, 0.527]


def test_a_panel_draws_the_seeds_of_its_own_task_and_its_own_majority():
    frame = TWO.assign(**{"majority.matthews": 0.0})
    rte, cola = lottery_plots.score_by_task(frame, "neuron").axes
    assert [len(rte.lines), len(cola.lines)] == [2 + 2, 1 + 2]
    np.testing.assert_allclose(cola.lines[-2].get_xdata(), [0.4, 1.0])
    assert list(rte.lines[-1].get_ydata()) == [0.527, 0.527]
    assert list(cola.lines[-1].get_ydata()) == [0.0, 0.0]


def test_the_panels_share_one_axis_from_dense_to_sparse_that_names_the_unit():
    panels = lottery_plots.score_by_task(TWO, "neuron").axes
    for axes in panels:
        assert axes.get_xscale() == "log"
        left, right = axes.get_xlim()
        assert left > 1 > 0.2 > right
    assert [axes.get_xlabel() for axes in panels] == ["", "density: share of neurons kept"]


def test_each_kind_of_line_stands_once_in_the_legend():
    figure = lottery_plots.score_by_task(WEIGHTS, "weight")
    assert legend_of(figure) == ["single seeds", "mean", "majority"]


def test_several_tasks_are_named_under_the_figure():
    signature = lottery_plots.score_by_task(TWO, "neuron").get_supxlabel()
    assert "glue/rte, glue/cola" in signature
    assert "2 seeds" in signature


def test_a_unit_that_was_not_run_is_said_to_be_missing():
    figure = lottery_plots.score_by_task(WEIGHTS[WEIGHTS["detail.unit"] == "weight"], "adapter")
    assert next(text.get_text() for text in figure.texts) == "no search for adapters was run"
