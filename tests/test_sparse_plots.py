"""The figures of the sparse adapters show the numbers of their records."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_sparse_claims import CRITERIA, rows, sparse

from adapter_pruning import sparse_plots, statistics

FACTS = {
    "rows.train": 64,
    "rows.test": 64,
    "model": "minilm",
    "profile": "smoke",
    "metric": "accuracy",
    "majority.accuracy": 0.5,
}


def table(records: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(records).assign(**FACTS)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def pruned():
    densities = {
        f"adapters.{layer}.{place}.{matrix}.weight": (layer + 1) / 10 + (matrix == "up") / 100
        for layer in range(3)
        for place in ("attention", "ffn")
        for matrix in ("down", "up")
    }
    return table(
        [
            row
            for criterion in CRITERIA
            for sparsity in (0.4, 0.8)
            for row in sparse(
                criterion,
                sparsity,
                -sparsity / 10 if criterion == "snip" else 0.0,
                density=1 - sparsity,
                **{"detail.density_by_matrix": densities},
            )
        ]
    )


@pytest.fixture
def dense():
    return table(
        [row for width in (64, 38, 13) for row in rows(f"dense adapter of {width}", 0.01, width)]
    )


def test_each_criterion_is_a_line_of_means_that_begins_at_the_dense_adapter(pruned, dense):
    axes = sparse_plots.score_by_density(pruned, dense).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    whole = dense[dense["adapter.bottleneck"] == 64].score.mean()
    for criterion, name in sparse_plots.NAMES.items():
        runs = pruned[pruned["detail.criterion"] == criterion]
        expected = [whole, *(runs[np.isclose(runs.density, d)].score.mean() for d in (0.6, 0.2))]
        np.testing.assert_allclose(lines[name].get_xdata(orig=False), [1, 0.6, 0.2])
        np.testing.assert_allclose(lines[name].get_ydata(orig=False), expected)


def test_the_bands_are_the_intervals_over_seeds(pruned, dense):
    axes = sparse_plots.score_by_density(pruned, dense).axes[0]
    bands = [band for band in axes.collections if band.get_alpha() == 0.12]
    assert len(bands) == len(CRITERIA)
    order = list(sparse_plots.NAMES)
    for criterion, band in zip(order, bands, strict=True):
        runs = pruned[pruned["detail.criterion"] == criterion]
        edge = band.get_paths()[0].vertices
        edge = edge[np.isclose(edge[:, 0], 0.2)][:, 1]
        sparse_ones = statistics.interval(runs[np.isclose(runs.density, 0.2)].score)
        assert (edge.min(), edge.max()) == pytest.approx((sparse_ones.low, sparse_ones.high))
    few = sparse_plots.score_by_density(pruned[pruned.seed < 2], dense).axes[0]
    assert not [band for band in few.collections if band.get_alpha() == 0.12]


def test_dense_adapters_stand_at_their_share_of_the_width(pruned, dense):
    axes = sparse_plots.score_by_density(pruned, dense).axes[0]
    (marks,) = axes.containers
    np.testing.assert_allclose(sorted(marks.lines[0].get_xdata(orig=False)), [13 / 64, 38 / 64, 1])


def test_a_wider_dense_adapter_is_no_reference(pruned, dense):
    wider = table(rows("dense adapter of 128", 0.2, 128))
    axes = sparse_plots.score_by_density(pruned, pd.concat([dense, wider])).axes[0]
    assert max(axes.containers[0].lines[0].get_xdata(orig=False)) == 1


def test_a_colour_is_a_criterion_whichever_ones_were_run(pruned, dense):
    def colours(frame):
        axes = sparse_plots.score_by_density(frame, dense).axes[0]
        return [line.get_label() for line in axes.lines]

    order = [name for name in sparse_plots.NAMES.values() if name in colours(pruned[::-1])]
    assert [name for name in colours(pruned[::-1]) if name in order] == order


def test_density_by_layer_averages_over_places_and_keeps_the_matrices_apart(pruned):
    figure = sparse_plots.density_by_layer(pruned, 0.8)
    down, up = figure.axes
    for axes, extra in ((down, 0), (up, 1)):
        line = next(line for line in axes.lines if line.get_label() == "SNIP")
        np.testing.assert_allclose(line.get_xdata(orig=False), [1, 2, 3])
        np.testing.assert_allclose(line.get_ydata(orig=False), [10 + extra, 20 + extra, 30 + extra])
    assert [axes.get_title() for axes in figure.axes] == ["down-projection", "up-projection"]


def test_large_sparse_names_width_and_sparsity_of_each_row(dense):
    large = table(
        [
            row
            for width, sparsity in ((48, 0.67), (32, 0.5))
            for row in sparse("snip", sparsity, 0.0, width)
        ]
    )
    full = table(rows("full fine-tuning", 0.0, 0))
    standard = dense[dense["adapter.bottleneck"] == 13]
    axes = sparse_plots.large_sparse(large, standard, full).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "full fine-tuning",
        "dense adapter of 13",
        "32 units, 50% sparse",
        "48 units, 67% sparse",
    ]


def test_variants_has_a_panel_a_task_and_a_pair_a_kind():
    frame = table(
        [
            row
            for task, metric in (("a", 0.0), ("b", 0.1))
            for kind in ("LoRA", "MAM")
            for row in rows(f"dense {kind} adapter", metric, 8, kind, task)
            + sparse("snip", 0.4, metric - 0.05, 8, kind=kind, task=task)
        ]
    )
    figure = sparse_plots.variants(frame)
    about = "minilm, 64 training rows; baseline 0.500"
    assert [axes.get_title("left") for axes in figure.axes] == [f"a, {about}", f"b, {about}"]
    for axes, task in zip(figure.axes, "ab", strict=True):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["LoRA", "MAM"]
        for container, is_sparse in zip(axes.containers, (False, True), strict=True):
            runs = frame[(frame.task == task) & (frame["detail.sparsity"].notna() == is_sparse)]
            means = runs.groupby("adapter.kind").score.mean()
            np.testing.assert_allclose(container.lines[0].get_ydata(orig=False), means)


def test_one_seed_has_points_and_no_bars(pruned, dense):
    first = pruned[pruned.seed == 0], dense[dense.seed == 0]
    axes = sparse_plots.score_by_density(*first).axes[0]
    assert not axes.containers[0].has_yerr
