"""Rows of Wu & Chen's (2022) tables, taken from records; what was not run stays blank."""

import pandas as pd

from .statistics import Interval, interval

# The paper's column -> our task; Large is its mean over the five tasks with most rows.
TASKS = {
    "CoLA": "glue/cola",
    "SST-2": "glue/sst2",
    "MRPC": "glue/mrpc",
    "STS-B": "glue/stsb",
    "QQP": "glue/qqp",
    "MNLI-m": "glue/mnli",
    "MNLI-mm": "glue/mnli-mm",
    "QNLI": "glue/qnli",
    "RTE": "glue/rte",
}
LARGE = ("SST-2", "QQP", "MNLI-m", "MNLI-mm", "QNLI")
# Table 2's levels: 0.8^7 of the weights, 0.8^6 of the neurons, 9 of 24 adapters.
LEVELS = {"weight": 0.2097, "neuron": 0.2621, "adapter": 0.375}


def tickets(frame: pd.DataFrame, unit: str) -> pd.DataFrame:
    """All rounds of the searches for one unit."""
    return frame[frame.method == f"{unit} ticket"]


def dense(frame: pd.DataFrame) -> pd.DataFrame:
    """The unpruned adapter: round 0, which every search of a task and seed shares."""
    searches = frame[frame.method.str.endswith(" ticket") & (frame["detail.round"] == 0)]
    return searches.drop_duplicates(["task", "seed"])


def at_level(frame: pd.DataFrame, unit: str, density: float) -> pd.DataFrame:
    """For each task and seed the round nearest to a density of units.

    No row where the search did not come within 15% of it.
    """
    rounds = tickets(frame, unit)
    return nearest(rounds[(rounds["detail.unit_density"] / density - 1).abs() < 0.15], density)


def nearest(runs: pd.DataFrame, density: float) -> pd.DataFrame:
    """For each task and seed the run nearest to a density of units, the denser of equals."""
    runs = runs.sort_values("detail.unit_density", ascending=False, ignore_index=True)
    off = (runs["detail.unit_density"] / density - 1).abs().round(6)
    return runs.loc[off.groupby([runs.task, runs.seed]).idxmin()]


def best_round(frame: pd.DataFrame, unit: str) -> pd.DataFrame:
    """For each task and seed the pruned round with the best validation score (A6)."""
    pruned = tickets(frame, unit)
    pruned = pruned[pruned["detail.round"] > 0].reset_index(drop=True)
    return pruned.loc[pruned.groupby(["task", "seed"], sort=False).validation_score.idxmax()]


def tuned(runs: pd.DataFrame) -> pd.DataFrame:
    """For each task the runs with the setting that its search chose, one a seed.

    A search tries every setting with its first seed, and takes the one with the best validation
    score, the first of equals. Runs of other seeds with another setting are left out.
    """
    runs = runs.reset_index(drop=True)  # rows of tables that were put together share labels
    setting = [name for name in runs if name.startswith("config.")]
    tried = runs[runs.seed == runs.groupby("task").seed.transform("min")]
    choice = tried.loc[tried.groupby("task").validation_score.idxmax(), ["task", *setting]]
    return runs.merge(choice, on=["task", *setting]).drop_duplicates(["task", "seed"])


def small(frame: pd.DataFrame, density: float) -> pd.DataFrame:
    """Dense adapters of about a share of the whole adapter's parameters, one a task and seed."""
    whole = dense(frame)
    if whole.empty:
        return whole
    width = max(1, round(whole["adapter.bottleneck"].iloc[0] * density))
    return tuned(frame[frame.method == f"dense adapter of {width}"])


def table1(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Method -> runs, each task at its best round: Table 1's rows."""
    return {
        "Full fine-tuning": tuned(frame[frame.method == "full fine-tuning"]),
        "Adapter": dense(frame),
        **{f"{u.capitalize()} tickets": best_round(frame, u) for u in LEVELS},
    }


def table2(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Method -> runs, one level for all tasks: Table 2's rows."""
    return {
        "Full fine-tuning": tuned(frame[frame.method == "full fine-tuning"]),
        "Adapter": dense(frame),
        "Small adapter": small(frame, LEVELS["weight"]),
        **{f"{u.capitalize()} tickets": at_level(frame, u, level) for u, level in LEVELS.items()},
    }


def score(runs: pd.DataFrame, tasks: tuple[str, ...]) -> Interval | None:
    """Mean over tasks within each seed, then over seeds; None unless every task was run."""
    wide = runs.pivot(index="seed", columns="task", values="score").reindex(columns=list(tasks))
    means = wide.dropna().mean(axis=1)
    return interval(means) if len(means) else None


def filled(rows: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a method, one column a task as the paper heads it, averages last.

    Cells are `statistics.Interval`s of the scores, or None where a run is missing.
    """
    columns = {name: (task,) for name, task in TASKS.items()}
    columns |= {"AVG": tuple(TASKS.values()), "AVG large": tuple(TASKS[n] for n in LARGE)}
    cells = {
        method: {name: score(runs, tasks) for name, tasks in columns.items()}
        for method, runs in rows.items()
    }
    return pd.DataFrame(cells, dtype=object).T.reindex(columns=list(columns))


def beside(rows: dict[str, pd.DataFrame], paper: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Ours and other sources under each other, for reading: (task, source) x method, in percent.

    Args:
        rows: method -> runs, as `table1` gives them.
        paper: source -> its numbers, index method, columns named as the paper heads them.
    """
    ours = filled(rows)
    majority = pd.concat(rows.values())
    cells = {}
    for column in ours.columns:
        cells[column, "ours"] = {m: _percent(ours.loc[m, column]) for m in ours.index} | {
            "Majority": _majority(majority, TASKS.get(column))
        }
        for source, table in paper.items():
            if column in table:
                cells[column, source] = {m: f"{v:.2f}" for m, v in table[column].dropna().items()}
    return pd.DataFrame(cells).T.reindex(columns=[*ours.index, "Majority"]).fillna("")


def _percent(found: Interval | None) -> str:
    if found is None:
        return ""
    half = f" ±{100 * (found.high - found.mean):.1f}" if found.n > 1 else " (1 seed)"
    return f"{100 * found.mean:.1f}{half}"


def _majority(runs: pd.DataFrame, task: str | None) -> str:
    found = runs[runs.task == task]
    if found.empty:
        return ""
    return f"{100 * found[f'majority.{found.metric.iloc[0]}'].iloc[0]:.1f}"


def reached(frame: pd.DataFrame) -> pd.DataFrame:
    """The last finished round of every search: index task and seed, one column a unit."""
    searches = frame[frame.method.isin([f"{unit} ticket" for unit in LEVELS])]
    last = searches.groupby(["task", "seed", "detail.unit"])["detail.round"].max().unstack()
    return last.reindex(columns=list(LEVELS)).rename_axis(columns=None).astype("Int64")
