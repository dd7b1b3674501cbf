"""Figures of the lottery tickets: what survives where, and every task side by side."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from . import survivors, tables
from .metrics import DISPLAY
from .plots import BASELINE, WIDTH, density_axis, legend, sign
from .statistics import summarise


def density_by_matrix(frame: pd.DataFrame, density: float) -> Figure:
    """Share of each adapter matrix that a mask of the given total density keeps, over seeds.

    Args:
        frame: rounds of a search; `density` picks the round that is nearest.
    """
    nearest = frame.loc[(frame.density - density).abs().idxmin(), "density"]
    rounds = frame[frame.density == nearest]
    kept = pd.DataFrame(list(rounds["detail.density_by_matrix"])).mean()
    kept = kept[kept.index.str.endswith("weight")]  # a neuron takes its bias along
    parts = kept.index.str.extract(r"adapters\.(\d+)\.(\w+)\.(\w+)\.weight").set_axis(
        ["layer", "position", "matrix"], axis=1
    )
    names = parts.position.map({"attention": "attention", "ffn": "FFN"})
    table = pd.DataFrame(
        {
            "layer": parts.layer.astype(int) + 1,
            "matrix": names + "\n" + parts.matrix,
            "kept": 100 * kept.to_numpy(),
        }
    ).pivot(index="layer", columns="matrix", values="kept")
    table = table.sort_index(axis=1, key=lambda names: names.str.lower())
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.38 * len(table)))
    spread = (table - 100 * nearest).abs().to_numpy().max() + 1
    sns.heatmap(
        table.sort_index(ascending=False),
        annot=True,
        fmt=".0f",
        cmap="vlag",
        vmin=100 * nearest - spread,
        vmax=100 * nearest + spread,
        ax=axes,
        cbar_kws={"label": "kept (%)"},
        annot_kws={"fontsize": "small"},
    )
    axes.set(xlabel="", ylabel="encoder layer (1 is lowest)")
    axes.tick_params(left=False, bottom=False, rotation=0, labelsize="small")
    axes.set_title(f"whole mask: {100 * nearest:.1f}% kept", loc="left")
    return sign(figure, rounds)


def survivor_map(values: pd.DataFrame, frame: pd.DataFrame) -> Figure:
    """Our adapters by layer and position, beside the authors': darker is kept for longer.

    Args:
        values: `survivors.lifetimes` of the searches.
        frame: the records of those searches.
    """
    ours = survivors.by_layer(values)
    theirs = 100 * survivors.authors(None, 12)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.2))
    for panel, table, title, form, colours in (
        (axes[0], ours, "ours: last round", ".1f", "Blues"),
        (axes[1], theirs, "authors: % of\n9 tasks that keep it", ".0f", "Greens"),
    ):
        sns.heatmap(
            table.rename(index=lambda layer: layer + 1).sort_index(ascending=False),
            annot=True,
            fmt=form,
            cmap=colours,
            vmin=0,
            cbar=False,
            linewidths=1,
            ax=panel,
            annot_kws={"fontsize": "small"},
        )
        panel.set(xlabel="", ylabel="")
        panel.set_title(title, fontsize="small")
        panel.tick_params(left=False, bottom=False, rotation=0, labelsize="small")
        panel.set_xticks([0.5, 1.5], ["after\nattention", "after\nFFN"])
    axes[0].set_ylabel("encoder layer (1 is lowest)")
    return sign(figure, frame)


def agreement(table: pd.DataFrame, frame: pd.DataFrame) -> Figure:
    """Concordance of our survival with each of the authors' masks, over the range of chance.

    Args:
        table: what `survivors.agreement` returns.
        frame: the records of our searches.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.32 * len(table)))
    rows = table.sort_values("concordance").reset_index(drop=True)
    axes.hlines(rows.index, rows.low, rows.high, color="0.8", linewidth=9, label="95% of chance")
    axes.plot(rows.concordance, rows.index, "o", color="C0", label="our survival")
    axes.axvline(0.5, **BASELINE)
    axes.set_yticks(rows.index, rows.task)
    axes.set(xlim=(0, 1), xlabel="pairs of adapters in the same order", ylabel="authors' mask")
    legend(figure)
    return sign(figure, frame)


def score_by_task(frame: pd.DataFrame, unit: str) -> Figure:
    """Score against density for each task of the records, as Figures 2 to 4 of the paper.

    Mean and single seeds (of few seeds an interval would fill the panel), and the majority
    baseline.
    """
    rounds = tables.tickets(frame, unit).sort_values("detail.round")
    if rounds.empty:
        figure = plt.figure(figsize=(WIDTH, 1.2))
        figure.text(0.5, 0.6, f"no search for {unit}s was run", ha="center")
        return sign(figure, frame)
    tasks = list(rounds.task.unique())
    figure, grid = plt.subplots(
        len(tasks), 1, figsize=(WIDTH, 0.8 + 2.3 * len(tasks)), sharex=True, squeeze=False
    )
    for axes, task in zip(grid[:, 0], tasks, strict=True):
        _task_panel(axes, rounds[rounds.task == task])
    density_axis(grid[-1, 0], rounds["detail.unit_density"])
    grid[-1, 0].set_xlabel(f"density: share of {unit}s kept")
    legend(figure)
    return sign(figure, rounds)


def _task_panel(axes: plt.Axes, rounds: pd.DataFrame) -> None:
    line = summarise(rounds, ["detail.unit_density"]).sort_values("detail.unit_density")
    for _, group in rounds.groupby("seed"):
        axes.plot(
            group["detail.unit_density"],
            group.score,
            color="C0",
            alpha=0.35,
            linewidth=1,
            label="single seeds",
        )
    axes.plot(line["detail.unit_density"], line["mean"], "o-", markersize=4, label="mean")
    first = rounds.iloc[0]
    axes.axhline(first[f"majority.{first.metric}"], label="majority", **BASELINE)
    axes.set_title(first.task, fontsize="small", loc="left")
    axes.set_ylabel(DISPLAY[first.metric])
