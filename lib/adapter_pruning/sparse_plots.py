"""Figures of the sparse adapters: scores and masks of several criteria, and Large-Sparse."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from . import plots
from .plots import BASELINE, FEWEST, WIDTH, density_axis, legend, majority_line, score_axis, sign
from .statistics import summarise

NAMES = {
    "random": "random",
    "magnitude": "magnitude",
    "erdos_renyi": "Erdos-Renyi",
    "snip": "SNIP",
    "grasp": "GraSP",
}


def _criteria(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Criterion -> its runs, in the order of the book, so that a colour is always the same."""
    groups = dict(list(frame.groupby("detail.criterion")))
    return [(criterion, groups[criterion]) for criterion in NAMES if criterion in groups]


def score_by_density(pruned: pd.DataFrame, dense: pd.DataFrame) -> Figure:
    """Mean score of each criterion against density; dense adapters of the same sizes in black.

    Bands and bars are 95% intervals over seeds, where there are enough seeds.

    Args:
        pruned: runs with `detail.criterion`, of one width.
        dense: runs of dense adapters, of that width and narrower ones.
    """
    figure, axes = plt.subplots()
    width = pruned["adapter.bottleneck"].max()
    dense = dense[dense["adapter.bottleneck"] <= width]
    whole = dense[dense["adapter.bottleneck"] == width].score.mean()
    for colour, (criterion, runs) in zip(sns.color_palette(), _criteria(pruned), strict=False):
        line = summarise(runs, ["density"]).sort_values("density", ascending=False)
        means = [whole, *line["mean"]]
        axes.plot([1, *line.density], means, ".-", color=colour, label=NAMES[criterion])
        if (line.n >= FEWEST).all():
            axes.fill_between(line.density, line.low, line.high, color=colour, alpha=0.12, lw=0)
    rows = summarise(dense, ["adapter.bottleneck"])
    spread = (
        [rows["mean"] - rows.low, rows.high - rows["mean"]] if (rows.n >= FEWEST).all() else None
    )
    axes.errorbar(
        rows["adapter.bottleneck"] / width,
        rows["mean"],
        yerr=spread,
        fmt="ks",
        capsize=3,
        markersize=4,
        label="dense, as many weights",
    )
    density_axis(axes, [*pruned.density, *(rows["adapter.bottleneck"] / width)])
    score_axis(axes, pruned)
    majority_line(axes, pruned)
    legend(figure)
    return sign(figure, pruned)


def density_by_layer(pruned: pd.DataFrame, sparsity: float) -> Figure:
    """What each criterion keeps in each encoder layer, for down- and up-projections.

    Args:
        pruned: runs with `detail.criterion` and `detail.density_by_matrix`.
        sparsity: picks the runs with this sparsity.
    """
    runs = pruned[pruned["detail.sparsity"] == sparsity]
    figure, grid = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharey=True)
    for colour, (criterion, group) in zip(sns.color_palette(), _criteria(runs), strict=False):
        kept = pd.DataFrame(list(group["detail.density_by_matrix"])).mean()
        parts = kept.index.str.extract(r"adapters\.(\d+)\.\w+\.(\w+)\.weight")
        layer, matrix = parts[0].astype(int).to_numpy() + 1, parts[1].to_numpy()
        table = 100 * kept.groupby([layer, matrix]).mean().unstack()
        for axes, matrix in zip(grid, ("down", "up"), strict=True):
            label = NAMES[criterion]
            axes.plot(table.index, table[matrix], ".-", color=colour, label=label, alpha=0.8)
    for axes, matrix in zip(grid, ("down", "up"), strict=True):
        axes.axhline(100 * (1 - sparsity), **BASELINE)
        axes.set(xlabel="encoder layer", xticks=table.index)
        axes.set_title(f"{matrix}-projection", fontsize="small")
    grid[0].set_ylabel("kept (%)")
    legend(figure)
    return sign(figure, runs)


def large_sparse(large: pd.DataFrame, dense: pd.DataFrame, full: pd.DataFrame) -> Figure:
    """Adapters with as many weights, narrow and dense or wide and sparse, and full fine-tuning."""
    wide = large.sort_values("adapter.bottleneck")
    named = wide.assign(
        method=[
            f"{units:.0f} units, {sparsity:.0%} sparse"
            for units, sparsity in zip(
                wide["adapter.bottleneck"], wide["detail.sparsity"], strict=True
            )
        ]
    )
    return plots.score_by_method(pd.concat([full, dense, named]))


def variants(frame: pd.DataFrame) -> Figure:
    """Every kind of adapter, dense and sparse, one panel for each task."""
    tasks = list(frame.task.unique())
    figure, grid = plt.subplots(
        len(tasks), 1, figsize=(WIDTH, 1.2 + 2.2 * len(tasks)), squeeze=False
    )
    for axes, task in zip(grid[:, 0], tasks, strict=True):
        _variant_panel(axes, frame[frame.task == task])
    legend(figure)
    return sign(figure, frame)


def _variant_panel(axes: plt.Axes, runs: pd.DataFrame) -> None:
    kinds = list(runs["adapter.kind"].unique())
    sparse = runs["detail.sparsity"].notna()
    for shift, colour, label, group in (
        (-0.12, "C0", "dense", runs[~sparse]),
        (0.12, "C1", "sparse", runs[sparse]),
    ):
        table = summarise(group, ["adapter.kind"]).set_index("adapter.kind").reindex(kinds)
        places = [number + shift for number in range(len(kinds))]
        points = [kinds.index(kind) + shift for kind in group["adapter.kind"]]
        axes.plot(points, group.score, ".", color=colour, alpha=0.35)
        spread = [table["mean"] - table.low, table.high - table["mean"]]
        bars = spread if (table.n >= FEWEST).all() else None
        axes.errorbar(
            places, table["mean"], yerr=bars, fmt="o", capsize=3, color=colour, label=label
        )
    axes.set_xticks(range(len(kinds)), kinds, fontsize="small")
    first = runs.iloc[0]
    baseline = first[f"majority.{first['metric']}"]
    axes.axhline(baseline, label="baseline", **BASELINE)
    about = f"{first['task']}, {first['model']}, {first['rows.train']:,} training rows"
    axes.set_title(f"{about}; baseline {baseline:.3f}", fontsize="small", loc="left")
    score_axis(axes, runs)
