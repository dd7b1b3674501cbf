"""The claims of Wu & Chen (2022) as differences, and what our records say to each."""

from typing import NamedTuple

import pandas as pd

from . import tables
from .papers import published
from .statistics import Interval, interval

KEEPS = -0.01  # a ticket "keeps" a score when it loses less than one point
BELOW = 0.35  # where Figures 2 to 4 compare the schemes: the paper says below about 40%
# As the paper's tables call the units, and their densities in Table 2.
THEIRS = {"weight": "Weight tickets", "neuron": "Neuron tickets", "adapter": "Layer tickets"}
SHARES = {"weight": "21%", "neuron": "26%", "adapter": "37.5%"}
CONTROLS = {
    "random mask": "which {}s are kept matters",
    "re-initialised": "the initial values of the kept {}s matter",
    "one-shot": "pruning {}s step by step matters",
}


class Claim(NamedTuple):
    """A claim, what the paper prints for it, and the runs whose difference decides it."""

    text: str
    paper: float | None  # points; None where the paper has no such comparison
    first: pd.DataFrame
    second: pd.DataFrame
    margin: float = 0.0


def judge(difference: Interval | None, margin: float = 0.0) -> str:
    """A plain verdict on "the difference is above the margin"."""
    if difference is None:
        return "not run"
    if difference.n == 1:
        return "undecided (one seed)"
    if difference.low > margin:
        return "supported"
    return "not supported" if difference.high < margin else "undecided"


def difference(first: pd.DataFrame, second: pd.DataFrame) -> tuple[Interval | None, int]:
    """Interval of score(first) - score(second), paired by task and seed; and how many tasks.

    Tasks are averaged within a seed, as in the paper's AVG; the interval is over seeds. Only
    seeds that have every common task on both sides count.
    """
    both = first.merge(second, on=["task", "seed"], suffixes=("", "_other"))
    if both.empty:
        return None, 0
    gaps = both.assign(gap=both.score - both.score_other).pivot(
        index="seed", columns="task", values="gap"
    )
    whole = gaps.dropna()
    return (interval(whole.mean(axis=1)) if len(whole) else None), gaps.shape[1]


def lottery(frame: pd.DataFrame) -> list[Claim]:
    """The paper's claims, with the runs of a `records.frame` that bear on each."""
    return [*_at_table_2(frame), *_below(frame), *_best(frame)]


def _at_table_2(frame: pd.DataFrame) -> list[Claim]:
    """Each unit at its density of Table 2, against the dense adapter and one of its size."""
    paper = published("lottery_table2").set_index("method").AVG
    level = {unit: tables.at_level(frame, unit, d) for unit, d in tables.LEVELS.items()}
    keeps = [
        Claim(
            f"{unit.capitalize()} tickets at {share} keep the dense score to a point",
            paper[f"{THEIRS[unit]} ({share})"] - paper["Adapter 128"],
            level[unit],
            tables.dense(frame),
            KEEPS,
        )
        for unit, share in SHARES.items()
    ]
    beats = Claim(
        "Weight tickets at 21% beat a dense adapter of their size",
        paper["Weight tickets (21%)"] - paper["Adapter 27"],
        level["weight"],
        tables.small(frame, tables.LEVELS["weight"]),
    )
    return [*keeps, beats]


def _below(frame: pd.DataFrame) -> list[Claim]:
    """The finer units against whole adapters, in words only: Figures 2 to 4."""
    level = {unit: tables.at_level(frame, unit, BELOW) for unit in tables.LEVELS}
    return [
        Claim(
            f"{unit.capitalize()} tickets beat adapter tickets below 40%",
            None,
            level[unit],
            level["adapter"],
        )
        for unit in ("weight", "neuron")
    ]


def _best(frame: pd.DataFrame) -> list[Claim]:
    """The best round of each task, Table 1."""
    paper = published("lottery_table1").set_index("method")
    best = {unit: tables.best_round(frame, unit) for unit in tables.LEVELS}
    cola = Claim(
        "On CoLA the best weight ticket beats full fine-tuning",
        paper.CoLA["Weight tickets"] - paper.CoLA["Full fine-tuning"],
        best["weight"][best["weight"].task == "glue/cola"],
        tables.table1(frame)["Full fine-tuning"],
    )
    beats = [
        Claim(
            f"A task's best {unit} ticket beats the dense adapter",
            paper.AVG[THEIRS[unit]] - paper.AVG["Adapter 128"],
            best[unit],
            tables.dense(frame),
        )
        for unit in ("weight", "neuron")
    ]
    return [cola, *beats]


def controls(frame: pd.DataFrame) -> list[Claim]:
    """What a ticket is said to be, against controls that lack one thing each."""
    return [
        Claim(text.format(unit).capitalize(), None, _controlled(frame, unit, method), other)
        for unit in tables.LEVELS
        for method, text in CONTROLS.items()
        if len(other := _control(frame, unit, method))
    ]


def _control(frame: pd.DataFrame, unit: str, method: str) -> pd.DataFrame:
    """The control at the unit's level of Table 2, one a task and seed."""
    found = frame[(frame.method == method) & (frame["detail.unit"] == unit)]
    return tables.nearest(found, tables.LEVELS[unit])


def _controlled(frame: pd.DataFrame, unit: str, method: str) -> pd.DataFrame:
    """The ticket rounds that the control was made for."""
    keys = ["task", "seed", "detail.round"]
    wanted = _control(frame, unit, method)[keys]
    return tables.tickets(frame, unit).merge(wanted, on=keys)


def verdicts(claims: list[Claim]) -> pd.DataFrame:
    """One row a claim: the verdict, ours with its 95% interval, the paper's; both in points."""
    rows = []
    for claim in claims:
        found, tasks = difference(claim.first, claim.second)
        rows.append(
            {
                "claim": claim.text,
                "verdict": judge(found, claim.margin),
                "ours": _points(found, tasks),
                "paper": "" if claim.paper is None else f"{claim.paper:+.2f}",
            }
        )
    return pd.DataFrame(rows)


def _points(found: Interval | None, tasks: int) -> str:
    if found is None:
        return ""
    span = "" if found.n == 1 else f" [{100 * found.low:+z.1f}, {100 * found.high:+z.1f}]"
    seeds = f"{found.n} seed{'s' if found.n > 1 else ''}"
    return f"{100 * found.mean:+z.1f}{span}, {seeds}" + (f", {tasks} tasks" if tasks > 1 else "")
