"""Write the README's figure and results table from the recorded run of the default book.

python book/readme.py            # rewrite both
"""

from pathlib import Path

import pandas as pd

from adapter_pruning import plots, records, statistics

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "book" / "results" / "quick.jsonl"
FIGURE = ROOT / "book" / "_static" / "weight_tickets.png"
BEGIN, END = "<!-- results: written by book/readme.py -->\n", "<!-- end of results -->"
SHOWN = (0, 4, 7, 12)  # rounds of the search


def recorded() -> pd.DataFrame:
    """The recorded run, one row a trained model."""
    return records.frame(records.read(RECORDED))


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The README's rows: the search at a few rounds, and its controls at the ticket of 21%."""
    search = frame[frame.method == "weight ticket"]
    chosen = search[search["detail.round"].isin(SHOWN)]
    others = frame[frame.method.isin(["random mask", "re-initialised ticket"])]
    others = others[others["detail.round"] == SHOWN[2]]
    small = frame[frame.method.str.startswith("dense adapter of")]
    return pd.concat([chosen, small, others])


def table(frame: pd.DataFrame) -> str:
    """Markdown: mean test score with its interval, for each method and density."""
    first = frame.iloc[0]
    lines = [
        "| model | adapter weights kept | trained parameters | test accuracy [95% interval] |",
        "| --- | ---: | ---: | --- |",
    ]
    for (method, density), group in rows(frame).groupby(["method", "density"], sort=False):
        name = "dense adapter" if method == "weight ticket" and density == 1 else method
        score = statistics.interval(group.score)
        trained = f"{group.parameters_trained.iloc[0]:,}"
        lines.append(f"| {name} | {100 * density:.1f}% | {trained} | {score} |")
    lines.append(f"| majority baseline | - | 0 | {first[f'majority.{first.metric}']:.3f} |")
    about = (
        f"{first.model}, {first.task}, {first['rows.train']} training and {first['rows.test']} "
        f"test rows, {frame.seed.nunique()} seeds, profile `{first.profile}`, "
        f"{first['hardware.device']}. A dense adapter keeps all of *its* weights."
    )
    return "\n".join([*lines, "", about, ""])


def main() -> None:
    """Rewrite the figure, and the README between its two marks."""
    frame = recorded()
    plots.use_style()
    search = frame[frame.method == "weight ticket"]
    plots.score_by_density(search).savefig(FIGURE)
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(before + BEGIN + table(frame) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
