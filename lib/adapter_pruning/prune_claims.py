"""The claims of Wang et al. (2023) as differences, the controls they lack, and Table 1."""

from collections.abc import Mapping

import pandas as pd

from . import tables
from .claims import KEEPS, Claim, verdicts
from .papers import published
from .statistics import Interval, interval

# The paper's column -> our task; WNLI is reported and enters no average (B12).
TASKS = {
    "MNLI": "glue/mnli",
    "MRPC": "glue/mrpc",
    "QNLI": "glue/qnli",
    "RTE": "glue/rte",
    "SST-2": "glue/sst2",
    "WNLI": "glue/wnli",
}
FULL, LORA, RANDOM, UNIFORM, ADALORA = (
    "full fine-tuning",
    "LoRA, {}",
    "random heads cut",
    "one rank for all layers",
    "AdaLoRA (PEFT)",
)
CUT = "Prune-LoRA, {}"
DENSITY = "heads and FFN at {:.0%}"


def named(recipe: str, method: str = CUT) -> str:
    """What a table calls a recipe's runs: `as_released` is "Prune-LoRA, as released"."""
    return method.format(recipe.replace("_", " "))


# The paper's rate is a tenth of ours and less: this tells the rate's part from the recipe's.
OUR_RATE = f"{named('as_released')}, our rate"


def claims(frame: pd.DataFrame) -> list[Claim]:
    """The paper's claims, then what the corrected method is compared with.

    Args:
        frame: the runs of chapter 9 and full fine-tuning, any number of tasks and seeds. Those
            of WNLI are left out (B12).
    """
    frame = _by_accuracy(frame[frame.task != TASKS["WNLI"]])
    return [*_published(frame), *_corrected(frame), *_denser(frame)]


def by_task(frame: pd.DataFrame) -> pd.DataFrame:
    """Which tasks have a signal, and whether `fixed` beats `as_released` there.

    A task has one where full fine-tuning is above the majority baseline. All are differences of
    accuracy in points, paired by seed.

    Returns:
        Three rows a task that was run: `task`, and the columns of `claims.verdicts`.

    Raises:
        ValueError: none of the tasks was run.
    """
    judged = []
    for column, task in TASKS.items():
        runs = _by_accuracy(frame[frame.task == task])
        if not runs.empty:
            judged.append(verdicts(_signal_and_gain(runs)).assign(task=column))
    return pd.concat(judged, ignore_index=True)[["task", "claim", "verdict", "ours"]]


def _signal_and_gain(runs: pd.DataFrame) -> list[Claim]:
    full, fixed = _of(runs, FULL), _of(runs, named("fixed"))
    majority = full.assign(score=full["majority.accuracy"])
    return [
        Claim("Full fine-tuning beats the majority", None, full, majority),
        Claim("Fixed beats as released", None, fixed, _of(runs, named("as_released"))),
        Claim("... also at our learning rate", None, fixed, _of(runs, OUR_RATE)),
    ]


def _by_accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """With the paper's only metric as the score, where a task ranks by another."""
    if "metrics.accuracy" not in frame:
        return frame
    return frame.assign(score=frame["metrics.accuracy"].fillna(frame.score))


def _of(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """The runs of a method; of one that was searched for, those at the chosen setting."""
    return tables.tuned(frame[frame.method == method])


def _published(frame: pd.DataFrame) -> list[Claim]:
    """As released, against its baselines: the means of Table 1 without WNLI."""
    columns = [column for column in TASKS if column != "WNLI"]
    paper = published("pruning_adapter_table1").set_index("method")[columns].mean(axis=1)
    full, released = _of(frame, FULL), _of(frame, named("as_released"))
    others = {
        "LoRA": (named("as_released", LORA), _of(frame, named("as_released", LORA))),
        "Full fine-tuning": (FULL, full),
    }
    return [
        Claim(
            f"Prune-LoRA as released keeps the score of {name.replace(',', '')} to a point",
            paper["Prune-LoRA"] - paper[theirs],
            released,
            runs,
            KEEPS,
        )
        for theirs, (name, runs) in others.items()
    ]


def _corrected(frame: pd.DataFrame) -> list[Claim]:
    """The corrected method against the released one, against LoRA, and against its controls."""
    fixed = _of(frame, named("fixed"))
    keeps = "Fixed keeps the score of LoRA on the whole model to a point"
    beats = {
        "Fixed beats as released": named("as_released"),
        "Fixed beats as released, both at our learning rate": OUR_RATE,
        "Fixed beats as written": named("as_written"),
        "Which heads are cut matters": RANDOM,
        "Giving ranks by importance matters": UNIFORM,
        "Fixed beats AdaLoRA on the whole model": ADALORA,
    }
    return [
        *(Claim(text, None, fixed, _of(frame, other)) for text, other in beats.items()),
        Claim(keeps, None, fixed, _of(frame, named("fixed", LORA)), KEEPS),
    ]


def _denser(frame: pd.DataFrame) -> list[Claim]:
    """Heads and columns cut together, against LoRA on the whole model."""
    whole = _of(frame, named("fixed", LORA))
    cut = frame[frame.method.str.startswith(DENSITY.partition("{")[0])]
    return [
        Claim(f"Cutting {name} keeps the score to a point", None, runs, whole, KEEPS)
        for name, runs in cut.groupby("method", sort=False)
    ]


def table1(frame: pd.DataFrame, methods: Mapping[str, str]) -> pd.DataFrame:
    """Table 1 with ours beside theirs: accuracy in percent, the majority baseline in every row.

    Args:
        frame: runs of the paper's tasks.
        methods: our method -> its row in the paper, or "".

    Returns:
        One row a task and method: `task`, `method`, `ours`, `paper`, `majority`.
    """
    paper = published("pruning_adapter_table1").set_index("method")
    rows = []
    for column, task in TASKS.items():
        runs = frame[frame.task == task]
        if runs.empty:
            continue
        baseline = f"{100 * runs['majority.accuracy'].iloc[0]:.1f}"
        for method, theirs in methods.items():
            scores = _of(runs, method)["metrics.accuracy"]
            rows.append(
                {
                    "task": column,
                    "method": method,
                    "ours": _percent(interval(scores)) if len(scores) else "",
                    "paper": f"{paper.loc[theirs, column]:.2f}" if theirs else "",
                    "majority": baseline,
                }
            )
    return pd.DataFrame(rows)


def _percent(found: Interval) -> str:
    half = f" ±{100 * (found.high - found.mean):.1f}" if found.n > 1 else " (1 seed)"
    return f"{100 * found.mean:.1f}{half}"
