"""The book's figures: one look, legible on a phone, drawn from records and nothing else."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .metrics import DISPLAY
from .statistics import summarise

WIDTH = 4.8  # inches: fills the book's text column, and stays readable on a phone
FEWEST = 3  # seeds from which an interval is drawn: of two it would fill the figure
BASELINE = {"color": "0.45", "linestyle": ":", "linewidth": 1.6}


def use_style() -> None:
    """Set fonts, colours and resolution for every figure that follows."""
    sns.set_theme(style="ticks", palette="colorblind", font_scale=1.0)
    plt.rcParams |= {
        "figure.figsize": (WIDTH, 3.5),
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "axes.titlesize": "medium",
    }


def sign(figure: Figure, frame: pd.DataFrame) -> Figure:
    """Say under the figure which model, data, seeds and profile made it."""
    first, seeds = frame.iloc[0], frame["seed"].nunique()
    data = (
        f"{first['task']} · {first['rows.train']:,} training and {first['rows.test']:,} test rows"
    )
    if frame["task"].nunique() > 1:
        data = ", ".join(frame["task"].unique())
    figure.supxlabel(
        f"{first['model']} · {data}\n"
        f"{seeds} seed{'s' if seeds > 1 else ''} · profile {first['profile'] or 'none'}",
        fontsize=9,
        color="0.35",
    )
    return figure


def legend(figure: Figure) -> None:
    """One legend above the axes, where it can hide nothing."""
    entries = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=2,
        fontsize="small",
        columnspacing=1.2,
        handlelength=1.6,
    )


def score_axis(axes: Axes, frame: pd.DataFrame) -> None:
    """Name the task's metric."""
    axes.set_ylabel(f"test {DISPLAY[frame['metric'].iloc[0]]}")


def majority_line(axes: Axes, frame: pd.DataFrame) -> None:
    """The majority baseline: a line where it fits the scale, else a note on where it lies."""
    first = frame.iloc[0]
    value = first[f"majority.{first['metric']}"]
    low, high = axes.get_ylim()
    if value > low - 0.6 * (high - low):
        axes.axhline(value, label=f"majority: {value:.3f}", **BASELINE)
    else:
        axes.plot([], [], label=f"majority: {value:.3f}, below", **BASELINE)


def density_axis(axes: Axes, densities: Sequence[float]) -> None:
    """From dense on the left to sparse on the right, logarithmic, in percent."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    far = (1, 0.5, 0.2, 0.1, 0.05, 0.02)
    near = (1, 0.8, 0.6, 0.5, 0.4, 0.3)
    ticks = [t for t in (far if min(densities) < 0.3 else near) if t >= 0.85 * min(densities)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
    axes.set_xlabel("density: share kept")


def score_by_density(curves: pd.DataFrame, references: pd.DataFrame | None = None) -> Figure:
    """Mean score against density with a 95% band over seeds, for each method.

    Args:
        curves: a `records.frame` with several densities for each method.
        references: records of dense models to mark at their share of the parameters, one marker
            with an error bar for each method; `relative_density` says where.
    """
    figure, axes = plt.subplots()
    for colour, (method, group) in zip(
        sns.color_palette(), curves.groupby("method", sort=False), strict=False
    ):
        line = summarise(group, ["density"]).sort_values("density")
        axes.plot(line.density, line["mean"], marker="o", markersize=4, color=colour, label=method)
        if (line.n >= FEWEST).all():
            axes.fill_between(line.density, line.low, line.high, color=colour, alpha=0.2, lw=0)
        else:
            axes.plot(group.density, group.score, ".", color=colour, alpha=0.35, markersize=4)
    if references is not None:
        _mark(axes, references)
    density_axis(axes, curves.density)
    score_axis(axes, curves)
    majority_line(axes, curves)
    legend(figure)
    return sign(figure, curves)


def _mark(axes: Axes, references: pd.DataFrame) -> None:
    markers = iter("sD^v")
    for method, group in references.groupby("method", sort=False):
        row = summarise(group.assign(all="all"), ["all"]).iloc[0]
        spread = [[row["mean"] - row.low], [row.high - row["mean"]]] if row.n >= FEWEST else None
        axes.errorbar(
            group.relative_density.mean(),
            row["mean"],
            yerr=spread,
            color="black",
            capsize=3,
            fmt=next(markers),
            markersize=6,
            label=method,
        )


def score_by_method(frame: pd.DataFrame) -> Figure:
    """Mean score and 95% interval of each method, the single seeds behind it as faint points."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.5 * frame.method.nunique()))
    table = summarise(frame, ["method"])
    sns.stripplot(frame, x="score", y="method", color="0.6", size=4, jitter=False, ax=axes)
    for place, row in table.iterrows():
        spread = [[row["mean"] - row.low], [row.high - row["mean"]]] if row.n >= FEWEST else None
        axes.errorbar(row["mean"], place, xerr=spread, fmt="o", color="C0", capsize=4)
    axes.set(ylabel="", xlabel=f"test {DISPLAY[frame['metric'].iloc[0]]}")
    first = frame.iloc[0]
    baseline = first[f"majority.{first['metric']}"]
    axes.axvline(baseline, **BASELINE)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_title(f"dotted: majority baseline {baseline:.3f}", fontsize="small", color="0.35")
    return sign(figure, frame)


def compare_at_densities(frame: pd.DataFrame) -> Figure:
    """Methods side by side at a few densities: mean and 95% interval, single seeds as points."""
    figure, axes = plt.subplots()
    densities = sorted(frame.density.unique(), reverse=True)
    methods = list(frame.method.unique())
    for number, (colour, method) in enumerate(zip(sns.color_palette(), methods, strict=False)):
        rows = frame[frame.method == method]
        shift = 0.22 * (number - (len(methods) - 1) / 2)
        places = [densities.index(density) + shift for density in rows.density]
        axes.plot(places, rows.score, ".", color=colour, alpha=0.35, zorder=1)
        for density, group in rows.groupby("density"):
            row = summarise(group, ["density"]).iloc[0]
            spread = (
                [[row["mean"] - row.low], [row.high - row["mean"]]] if row.n >= FEWEST else None
            )
            axes.errorbar(
                densities.index(density) + shift,
                row["mean"],
                yerr=spread,
                fmt="o",
                capsize=3,
                color=colour,
                label=method if density == densities[0] else None,
            )
    axes.set_xticks(range(len(densities)), [f"{100 * d:.1f}%" for d in densities])
    axes.set_xlabel("density: share kept")
    score_axis(axes, frame)
    majority_line(axes, frame)
    legend(figure)
    return sign(figure, frame)


def validation_curves(frame: pd.DataFrame) -> Figure:
    """Validation loss against optimizer steps: one line a seed, one colour a method."""
    figure, axes = plt.subplots()
    history = frame[["method", "seed", "history"]].explode("history").reset_index(drop=True)
    points = pd.concat([history, pd.json_normalize(history["history"])], axis=1)
    sns.lineplot(
        points,
        x="step",
        y="validation_loss",
        hue="method",
        units="seed",
        estimator=None,
        marker="o",
        ax=axes,
    )
    axes.set(xlabel="optimizer steps", ylabel="validation loss")
    axes.get_legend().remove()
    legend(figure)
    return sign(figure, frame)


def tuning_history(history: pd.DataFrame, frame: pd.DataFrame) -> Figure:
    """Validation score of each trial of a search, by its setting, and the best so far.

    Args:
        history: that of `tune`.
        frame: records of the search.
    """
    figure, axes = plt.subplots()
    settings = history.assign(
        setting=[
            f"{r.learning_rate:g}, {r.epochs} epoch{'s' * (r.epochs > 1)}"
            for r in history.itertuples()
        ]
    ).sort_values(["learning_rate", "epochs"])
    sns.scatterplot(settings, x="trial", y="score", hue="setting", style="setting", s=45, ax=axes)
    axes.plot(history.trial, history.best, color="0.4", drawstyle="steps-post", label="best so far")
    axes.set(xlabel="trial", ylabel=f"validation {DISPLAY[frame['metric'].iloc[0]]}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.get_legend().remove()
    legend(figure)
    return sign(figure, frame)
