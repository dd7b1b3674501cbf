"""Write the README's figure and results table from the recorded run of the default book.

python book/readme.py            # rewrite both
"""

from pathlib import Path

import pandas as pd

from adapter_pruning import plots, records, statistics, tables

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "book" / "results" / "long.jsonl"
FIGURE = ROOT / "book" / "_static" / "tickets.png"
BEGIN, END = (
    "<!-- results: written by book/readme.py -->\n",
    "<!-- end of results -->",
)
CONTROLS = ("random mask", "re-initialised", "one-shot")


def recorded() -> pd.DataFrame:
    """The recorded run, one row a trained model."""
    return records.frame(records.read(RECORDED))


def rows(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Name -> runs: the rows of Wu & Chen's Table 2, and the weight ticket's controls."""
    of_weights = frame[frame["detail.unit"] == "weight"]
    return {
        "dense adapter": tables.dense(frame),
        "small dense adapter": tables.small(frame, tables.LEVELS["weight"]),
        **{
            f"{unit} ticket": tables.at_level(frame, unit, level)
            for unit, level in tables.LEVELS.items()
        },
        **{
            f"weight ticket's control: {name}": of_weights[
                of_weights.method == name
            ]
            for name in CONTROLS
        },
    }


def table(frame: pd.DataFrame) -> str:
    """Markdown: mean test score with its interval for each row."""
    first = frame.iloc[0]
    lines = [
        "| model | kept | trained parameters | test accuracy [95% interval] |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, runs in rows(frame).items():
        trained = f"{runs.parameters_trained.iloc[0]:,}"
        kept = f"{100 * runs.density.iloc[0]:.1f}%"
        score = statistics.interval(runs.score)
        lines.append(f"| {name} | {kept} | {trained} | {score} |")
    majority = first[f"majority.{first.metric}"]
    lines.append(f"| majority baseline | - | 0 | {majority:.3f} |")
    about = (
        f"{first.model}, {first.task}, {first['rows.train']} training and {first['rows.test']} "
        f"test rows, {frame.seed.nunique()} seeds, profile `{first.profile}`, "
        f"{first['hardware.device']}. *Kept* is the share of weights, neurons or adapters; a "
        f"dense adapter keeps all of *its* weights."
    )
    return "\n".join([*lines, "", about, ""])


def main() -> None:
    """Rewrite the figure, and the README between its two marks."""
    frame = recorded()
    plots.use_style()
    searches = pd.concat(
        tables.tickets(frame, unit) for unit in tables.LEVELS
    )
    plots.score_by_density(searches).savefig(FIGURE)
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(
        before + BEGIN + table(frame) + END + rest.partition(END)[2]
    )


if __name__ == "__main__":
    main()
