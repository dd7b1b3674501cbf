"""Figures of attention heads: importance maps, their stability, and models that were cut."""

from collections.abc import Sequence
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from . import records
from .gates import heads_of
from .head_importance import normalise
from .head_runs import scores_of
from .plots import FEWEST, WIDTH, legend, majority_line, score_axis, sign
from .statistics import summarise


def maps(found: Sequence[dict], names: Sequence[str]) -> Figure:
    """One panel a record: layers from below, heads from the left, darker is more important.

    Args:
        found: records of `run_importance`.
        names: a title for each.
    """
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, 0.9 + 2.0 * rows), squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    for axes, record, name in zip(grid.flat, found, names, strict=False):
        table = heads_of(normalise(scores_of(record))).numpy()
        image = axes.imshow(table, cmap="Blues", vmin=0, vmax=1, origin="lower", aspect="auto")
        axes.set_title(name, fontsize="small")
        axes.set_xticks(range(0, table.shape[1], 3), range(1, table.shape[1] + 1, 3))
        axes.set_yticks(range(0, len(table), 2), range(1, len(table) + 1, 2))
    for axes in grid[:, 0]:
        axes.set_ylabel("layer")
    for axes in grid[-1]:
        axes.set_xlabel("head")
    figure.colorbar(image, ax=grid, shrink=0.6, label="importance, 0 to 1")
    return sign(figure, records.frame(found))


def agreement(found: Sequence[dict]) -> pd.DataFrame:
    """Spearman's rank correlation of every two maps with one head and as many rows.

    Returns:
        One row a pair: `head`, `rows`, `correlation`, and `draws` (two of `seed.draw`).
    """
    pairs = []
    for one, other in combinations(found, 2):
        same = [record["detail"][k] for k in ("head", "rows", "form") for record in (one, other)]
        if same[0::2] == same[1::2] and one["task"] == other["task"]:
            flat = [heads_of(normalise(scores_of(r))).flatten() for r in (one, other)]
            pairs.append(
                {
                    "task": one["task"],
                    "head": one["detail"]["head"],
                    "form": one["detail"]["form"],
                    "rows": one["detail"]["rows"],
                    "draws": [f"{r['seed']}.{r['detail']['draw']}" for r in (one, other)],
                    "correlation": float(spearmanr(*flat).statistic),
                }
            )
    return pd.DataFrame(pairs)


def stability(pairs: pd.DataFrame, frame: pd.DataFrame) -> Figure:
    """Agreement of two maps against the number of rows; a line for each kind of head.

    The line is the mean over pairs, the band from the lowest to the highest pair: pairs share
    maps, so that an interval over them would be too narrow.
    """
    figure, axes = plt.subplots()
    for colour, (head, group) in zip(sns.color_palette(), pairs.groupby("head"), strict=False):
        table = group.groupby("rows").correlation.agg(["mean", "min", "max"])
        axes.plot(table.index, table["mean"], "o-", color=colour, label=f"{head} head")
        axes.fill_between(table.index, table["min"], table["max"], color=colour, alpha=0.15, lw=0)
    axes.set_xscale("log", base=2)
    sizes = sorted(pairs.rows.unique())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set(xlabel="training rows that score the heads", ylabel="Spearman, two maps")
    axes.set_ylim(top=1.02)
    legend(figure)
    return sign(figure, frame)


def score_by_encoder_density(frame: pd.DataFrame) -> Figure:
    """Test score against the share of the layers' parameters that is left, heads and FFN cut."""
    figure, axes = plt.subplots()
    line = summarise(frame, ["detail.density"]).sort_values("detail.density")
    place = 100 * line["detail.density"]
    axes.plot(place, line["mean"], "o-", color="C0", label="mean over seeds")
    axes.plot(100 * frame["detail.density"], frame.score, ".", color="0.6", label="single seeds")
    if (line.n >= FEWEST).all():
        axes.fill_between(place, line.low, line.high, color="C0", alpha=0.2, lw=0)
    axes.invert_xaxis()
    axes.set_xticks(place, [f"{p:.0f}%" for p in place])
    axes.set_xlabel("density: share of the layers' parameters kept")
    score_axis(axes, frame)
    majority_line(axes, frame)
    legend(figure)
    return sign(figure, frame)


def kept_by_layer(kept: dict[str, np.ndarray], frame: pd.DataFrame) -> Figure:
    """Heads that each way of cutting leaves in each layer: one line a way, lowest layer left."""
    figure, axes = plt.subplots()
    for colour, (name, counts) in zip(sns.color_palette(), kept.items(), strict=False):
        axes.plot(range(1, len(counts) + 1), counts, "o-", color=colour, label=name, alpha=0.8)
    axes.set(xlabel="layer", ylabel="heads kept", xticks=range(1, len(counts) + 1))
    axes.set_ylim(bottom=0)
    legend(figure)
    return sign(figure, frame)
