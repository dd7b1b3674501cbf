"""The figures: they draw what the records hold, and say what made them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from adapter_pruning import plots, statistics


@pytest.fixture(autouse=True)
def _closed():
    plots.use_style()
    yield
    plt.close("all")


def rows(methods: dict[str, list[float]], densities=(1.0,), majority=0.5) -> pd.DataFrame:
    """Records of each method at each density, one a seed, as `records.frame` gives them."""
    return pd.DataFrame(
        {
            "method": method,
            "seed": seed,
            "score": score - 0.1 * (1 - density),
            "density": density,
            "metric": "accuracy",
            "majority.accuracy": majority,
            "model": "minilm",
            "task": "stsb",
            "profile": "quick",
            "rows.train": 640,
            "rows.test": 1066,
            "history": [{"step": 10, "validation_loss": 0.6}, {"step": 20, "validation_loss": 0.5}],
        }
        for method, scores in methods.items()
        for seed, score in enumerate(scores)
        for density in densities
    )


CURVE = rows({"ticket": [0.78, 0.80, 0.82]}, densities=(1.0, 0.5, 0.2))
SEVERAL = rows({"ticket": [0.7, 0.8], "random mask": [0.6, 0.7]}, densities=(0.5, 0.2))
HISTORY = pd.DataFrame(
    [(1, 1e-3, 2, 0.6), (2, 5e-4, 1, 0.5), (3, 5e-4, 2, 0.7), (4, 1e-3, 2, 0.6)],
    columns=["trial", "learning_rate", "epochs", "score"],
).assign(best=[0.6, 0.6, 0.7, 0.7])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.score_by_density(CURVE),
        lambda: plots.score_by_method(SEVERAL),
        lambda: plots.compare_at_densities(SEVERAL),
        lambda: plots.validation_curves(CURVE),
        lambda: plots.tuning_history(HISTORY, CURVE),
    ],
)
def test_every_figure_says_its_model_data_seeds_and_profile(draw):
    signature = draw().get_supxlabel()
    for part in ("minilm", "stsb", "640 training and 1,066 test rows", "seed", "profile quick"):
        assert part in signature


def test_several_tasks_are_all_named_without_the_rows_of_one():
    frame = pd.concat([SEVERAL, SEVERAL.assign(task="glue/rte"), SEVERAL.assign(task="glue/cola")])
    signature = plots.sign(plt.figure(), frame).get_supxlabel()
    assert "minilm · stsb, glue/rte, glue/cola\n" in signature
    assert "640" not in signature


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (SEVERAL, "2 seeds · profile quick"),
        (SEVERAL[SEVERAL.seed == 1], "1 seed · profile quick"),
        (SEVERAL.assign(profile=""), "2 seeds · profile none"),
    ],
)
def test_the_last_line_under_a_figure_counts_the_seeds_and_names_the_profile(frame, said):
    assert plots.sign(plt.figure(), frame).get_supxlabel().splitlines()[-1] == said


def test_the_curve_is_the_mean_and_the_band_the_interval_over_seeds():
    axes = plots.score_by_density(CURVE).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "ticket")
    np.testing.assert_allclose(line.get_xdata(), [0.2, 0.5, 1.0])
    np.testing.assert_allclose(line.get_ydata(), [0.72, 0.75, 0.80])
    at_dense = statistics.interval([0.78, 0.80, 0.82])
    band = axes.collections[0].get_paths()[0].vertices
    band = band[np.isclose(band[:, 0], 1.0)][:, 1]
    assert (band.min(), band.max()) == pytest.approx((at_dense.low, at_dense.high))


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_a_curve_and_points_but_no_band(seeds):
    few = CURVE[CURVE.seed < seeds]
    axes = plots.score_by_density(few).axes[0]
    assert not axes.collections
    points = [line for line in axes.lines if line.get_marker() == "."]
    assert [sorted(line.get_ydata()) for line in points] == [sorted(few.score)]


@pytest.mark.parametrize(("seeds", "bars"), [(2, False), (3, True)])
@pytest.mark.parametrize("figure", [plots.score_by_method, plots.compare_at_densities])
def test_an_error_bar_needs_three_seeds(figure, seeds, bars):
    axes = figure(rows({"ticket": [0.7, 0.8, 0.9][:seeds]})).axes[0]
    assert {bar.has_xerr or bar.has_yerr for bar in axes.containers} == {bars}


def test_a_reference_is_marked_at_its_share_of_the_parameters():
    reference = rows({"small": [0.7, 0.8]}).assign(relative_density=0.21)
    figure = plots.score_by_density(CURVE, references=reference)
    marks = [bar.lines[0].get_xydata().tolist() for bar in figure.axes[0].containers]
    assert marks == [[[0.21, 0.75]]]


def test_a_majority_baseline_far_below_is_named_and_does_not_flatten_the_curve():
    axes = plots.score_by_density(CURVE).axes[0]
    assert axes.get_ylim()[0] > 0.6
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert "majority: 0.500, below" in labels


def test_a_majority_baseline_nearby_is_a_line():
    near = CURVE.assign(**{"majority.accuracy": 0.71})
    axes = plots.score_by_density(near).axes[0]
    assert [0.71, 0.71] in [list(line.get_ydata()) for line in axes.lines]


def test_each_method_and_density_gets_a_mean_and_an_error_bar():
    axes = plots.compare_at_densities(SEVERAL).axes[0]
    means = sorted(float(bar.lines[0].get_ydata()[0]) for bar in axes.containers)
    assert means == pytest.approx([0.57, 0.60, 0.67, 0.70])


@pytest.mark.parametrize(
    ("densities", "ticks"),
    [
        ((1, 0.5, 0.035), ["100%", "50%", "20%", "10%", "5%"]),
        ((1, 0.5, 0.2), ["100%", "50%", "20%"]),
        ((1, 0.8, 0.33), ["100%", "80%", "60%", "50%", "40%", "30%"]),
        ((1, 0.64), ["100%", "80%", "60%"]),
    ],
)
def test_the_density_axis_runs_from_dense_to_sparse_with_ticks_as_far_as_the_data(densities, ticks):
    axes = plt.figure().add_subplot()
    axes.plot(densities, densities)
    plots.density_axis(axes, densities)
    axes.figure.canvas.draw()
    left, right = axes.get_xlim()
    assert left > right
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks


def test_the_tuning_history_has_one_point_a_trial():
    axes = plots.tuning_history(HISTORY, CURVE).axes[0]
    points = [point for cloud in axes.collections for point in cloud.get_offsets().tolist()]
    assert sorted(points) == [[1, 0.6], [2, 0.5], [3, 0.7], [4, 0.6]]


def test_the_tuning_history_steps_along_the_best_so_far():
    axes = plots.tuning_history(HISTORY, CURVE).axes[0]
    (line,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert line.get_xydata().tolist() == [[1, 0.6], [2, 0.6], [3, 0.7], [4, 0.7]]
    assert line.get_drawstyle() == "steps-post"


def test_the_tuning_history_names_the_metric_and_every_setting():
    frame = CURVE.assign(metric="matthews", **{"majority.matthews": 0.0})
    figure = plots.tuning_history(HISTORY, frame)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "validation Matthews correlation")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    settings = ["0.0005, 1 epoch", "0.0005, 2 epochs", "0.001, 2 epochs"]
    assert labels == [*settings, "best so far"]
    assert axes.get_legend() is None


def test_the_trials_of_the_tuning_history_are_counted_in_whole_numbers():
    axes = plots.tuning_history(HISTORY[:2], CURVE).axes[0]
    axes.figure.canvas.draw()
    assert all(tick == round(tick) for tick in axes.get_xticks())
