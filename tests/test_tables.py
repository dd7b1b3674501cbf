"""The paper's tables from records: the right run in each cell, and nothing where none was made."""

import pandas as pd
import pytest

import adapter_pruning as ap
from adapter_pruning import statistics, tables
from adapter_pruning.papers import published

COLUMNS = [*tables.TASKS, "AVG", "AVG large"]


def run(method: str, score: float = 0.5, *, task="glue/cola", seed=0, **more) -> dict:
    """A record's columns that the tables read; its validation score is its score unless given."""
    row = {"method": method, "task": task, "seed": seed, "score": score, "validation_score": score}
    row |= {"metric": "accuracy", "majority.accuracy": 0.5, "adapter.bottleneck": 64}
    row |= {"config.learning_rate": 1e-3}
    row |= {"detail.unit": None, "detail.round": None, "detail.unit_density": None}
    return row | more


def search(unit: str, densities: list[float], scores=None, **more) -> list[dict]:
    """The rounds of one search, one at each density."""
    pairs = zip(densities, scores or [0.5] * len(densities), strict=True)
    return [
        run(f"{unit} ticket", score, **{"detail.unit": unit, "detail.round": number})
        | {"detail.unit_density": density, **more}
        for number, (density, score) in enumerate(pairs)
    ]


def frame(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(run("any")))


def cells(runs: pd.DataFrame, *columns: str) -> list[tuple]:
    return sorted(runs[list(columns)].itertuples(index=False, name=None))


# Which runs


def test_the_dense_adapter_is_one_row_a_task_and_seed_though_three_searches_share_it():
    rounds = [
        row
        for task in ("glue/cola", "glue/rte")
        for seed in (0, 1)
        for unit in tables.LEVELS
        for row in search(unit, [1.0, 0.8], task=task, seed=seed)
    ]
    found = tables.dense(frame(*reversed(rounds)))
    assert cells(found, "task", "seed", "detail.round") == [
        ("glue/cola", 0, 0),
        ("glue/cola", 1, 0),
        ("glue/rte", 0, 0),
        ("glue/rte", 1, 0),
    ]


def test_a_trial_or_a_control_of_round_0_is_not_the_dense_adapter():
    others = [run("dense adapter of 64"), run("random mask", **{"detail.round": 0})]
    assert tables.dense(frame(*others)).empty


def test_a_level_takes_the_nearest_round():
    rounds = frame(*search("weight", [1.0, 0.23, 0.215, 0.206, 0.18]))
    assert tables.at_level(rounds, "weight", 0.21)["detail.unit_density"].tolist() == [0.206]


@pytest.mark.parametrize(("density", "rows"), [(0.1149, 1), (0.1151, 0), (0.0851, 1), (0.0849, 0)])
def test_a_level_has_no_row_where_no_round_comes_within_15_percent(density, rows):
    assert len(tables.at_level(frame(*search("weight", [1.0, density])), "weight", 0.1)) == rows


@pytest.mark.parametrize(("level", "kept"), [(9 / 24, 5), (11 / 24, 6)])
def test_of_two_equally_near_rounds_a_level_takes_the_denser(level, kept):
    schedule = ap.schedule(12, rounds=15)
    assert {kept, kept - 1} < set(schedule)
    rounds = frame(*search("adapter", [left / 12 for left in schedule]))
    found = tables.at_level(rounds, "adapter", level)
    assert found["detail.unit_density"].tolist() == [kept / 12]


def test_a_level_is_judged_for_each_task_and_seed_on_its_own_and_for_its_unit_only():
    rounds = frame(
        *search("weight", [1.0, 0.5, 0.21]),
        *search("weight", [1.0, 0.5], seed=1),
        *search("weight", [1.0, 0.22], seed=2),
        *search("weight", [1.0, 0.22], task="glue/rte"),
        *search("neuron", [1.0, 0.21], seed=3),
    )
    found = tables.at_level(rounds, "weight", 0.21)
    assert cells(found, "task", "seed", "detail.round") == [
        ("glue/cola", 0, 2),
        ("glue/cola", 2, 1),
        ("glue/rte", 0, 1),
    ]


@pytest.mark.parametrize(
    ("unit", "units", "number", "share"),
    [("weight", 4_718_592, 7, 0.8**7), ("neuron", 3072, 6, 0.8**6), ("adapter", 24, 5, 9 / 24)],
)
def test_the_levels_are_rounds_of_the_papers_own_schedule(unit, units, number, share):
    densities = [kept / units for kept in ap.schedule(units, rounds=15)]
    assert tables.LEVELS[unit] == pytest.approx(share, abs=5e-5)
    assert tables.LEVELS[unit] == pytest.approx(densities[number], abs=1e-3)
    found = tables.at_level(frame(*search(unit, densities)), unit, tables.LEVELS[unit])
    assert found["detail.round"].tolist() == [number]


def test_the_best_round_is_the_pruned_one_with_the_best_validation_score():
    rounds = frame(*search("weight", [1.0, 0.8, 0.64, 0.51], scores=[0.6, 0.9, 0.7, 0.8]))
    rounds["validation_score"] = [0.99, 0.5, 0.7, 0.6]  # round 0 is best of all, 1 on the test set
    found = tables.best_round(rounds, "weight")
    assert cells(found, "detail.round", "score") == [(2, 0.7)]


def test_of_equally_good_rounds_the_first_is_the_best():
    rounds = frame(*search("weight", [1.0, 0.8, 0.64, 0.51], scores=[0.6, 0.5, 0.7, 0.7]))
    assert tables.best_round(rounds, "weight")["detail.round"].tolist() == [2]


def test_every_task_and_seed_has_a_best_round_of_its_own():
    rounds = frame(
        *search("weight", [1.0, 0.8, 0.64], scores=[0.1, 0.2, 0.3]),
        *search("weight", [1.0, 0.8, 0.64], scores=[0.1, 0.3, 0.2], seed=1),
        *search("weight", [1.0, 0.8, 0.64], scores=[0.1, 0.9, 0.8], task="glue/rte"),
        *search("neuron", [1.0, 0.8, 0.64], scores=[0.1, 0.9, 0.9]),
    )
    found = tables.best_round(rounds, "weight")
    assert cells(found, "task", "seed", "detail.round") == [
        ("glue/cola", 0, 2),
        ("glue/cola", 1, 1),
        ("glue/rte", 0, 1),
    ]


@pytest.mark.parametrize(
    ("bottleneck", "density", "width"), [(64, 0.2097, 13), (64, 0.2266, 15), (2, 0.2097, 1)]
)
def test_a_small_adapter_has_the_share_of_the_units_rounded_and_at_least_one(
    bottleneck, density, width
):
    widths = [run(f"dense adapter of {m}") | {"adapter.bottleneck": m} for m in range(1, 20)]
    rounds = search("weight", [1.0], **{"adapter.bottleneck": bottleneck})
    found = tables.small(frame(*widths, *rounds), density)
    assert found.method.tolist() == [f"dense adapter of {width}"]


def test_a_tuned_model_has_the_setting_that_is_best_on_validation_with_the_first_seed():
    trials = [
        run("dense adapter of 13", score, seed=seed, validation_score=validation)
        | {"config.learning_rate": rate}
        for seed, rate, score, validation in [
            (0, 1e-4, 0.9, 0.1),
            (0, 5e-4, 0.6, 0.3),
            (0, 1e-3, 0.8, 0.2),
            (1, 1e-3, 0.9, 0.9),  # better, but of another setting
            (1, 5e-4, 0.7, 0.1),
        ]
    ]
    found = tables.small(frame(*search("weight", [1.0]), *trials), 0.21)
    assert cells(found, "seed", "score") == [(0, 0.6), (1, 0.7)]


def test_each_task_is_tuned_on_its_own():
    trials = [
        run("full fine-tuning", rate, task=task, validation_score=validation)
        | {"config.learning_rate": rate}
        for task, rate, validation in [("a", 0.1, 1), ("a", 0.2, 2), ("b", 0.1, 4), ("b", 0.2, 3)]
    ]
    found = tables.tuned(frame(*trials))
    assert cells(found, "task", "score") == [("a", 0.2), ("b", 0.1)]


def test_without_a_small_or_a_whole_adapter_there_is_no_small_row():
    assert tables.small(frame(*search("weight", [1.0])), 0.21).empty
    assert tables.small(frame(run("dense adapter of 13")), 0.21).empty


@pytest.fixture
def everything():
    """Full fine-tunings, three searches whose scores tell unit and round, controls, small ones."""
    densities = [1.0, 0.375, 0.2621, 0.2097, 0.1]
    rows = [
        run("full fine-tuning", 0.9, validation_score=0.1),
        run("full fine-tuning", 0.8, **{"config.learning_rate": 1e-4}),
    ]
    rows += [run("dense adapter of 13", 0.13), run("dense adapter of 24", 0.24)]
    for tens, unit in enumerate(tables.LEVELS, 1):
        scores = [0.01, *((10 * tens + n) / 100 for n in range(1, 5))]
        drawn = search(unit, densities, [0.99] * 5, method="random mask")
        rows += drawn + search(unit, densities, scores)
    return frame(*rows)


def test_table_1_has_each_task_at_its_best_round(everything):
    scores = {method: runs.score.tolist() for method, runs in tables.table1(everything).items()}
    assert scores == {
        "Full fine-tuning": [0.8],
        "Adapter": [0.01],
        "Weight tickets": [0.14],
        "Neuron tickets": [0.24],
        "Adapter tickets": [0.34],
    }


def test_table_2_has_every_unit_at_its_own_level(everything):
    scores = {method: runs.score.tolist() for method, runs in tables.table2(everything).items()}
    assert scores == {
        "Full fine-tuning": [0.8],
        "Adapter": [0.01],
        "Small adapter": [0.13],
        "Weight tickets": [0.13],
        "Neuron tickets": [0.22],
        "Adapter tickets": [0.31],
    }


@pytest.mark.parametrize("table", [tables.table1, tables.table2])
def test_without_runs_every_row_of_a_table_is_blank(table):
    assert tables.filled(table(frame())).isna().all(axis=None)


# Their scores

PAIR = ("glue/cola", "glue/rte")


def test_a_score_averages_the_tasks_of_a_seed_and_then_the_seeds():
    rows = [
        run("any", score, task=task, seed=seed, validation_score=0.1)
        for seed, pair in enumerate([(0.2, 0.6), (0.4, 0.6)])
        for task, score in zip(PAIR, pair, strict=True)
    ]
    assert tables.score(frame(*rows), PAIR) == pytest.approx(statistics.interval([0.4, 0.5]))


def test_a_score_leaves_out_a_seed_that_lacks_a_task():
    rows = [run("any", 0.4, task=task) for task in PAIR] + [run("any", 0.9, seed=1)]
    assert tables.score(frame(*rows), PAIR) == (0.4, -float("inf"), float("inf"), 1)


def test_a_score_is_blank_unless_every_task_was_run():
    rows = [run("any", 0.4), run("any", 0.5, task="glue/rte", seed=1)]
    assert tables.score(frame(*rows), PAIR) is None
    assert tables.score(frame(rows[0]), PAIR) is None
    assert tables.score(frame(), PAIR) is None


def printed(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The paper's own numbers, as if they were our runs."""
    return {
        method: frame(
            *(run(method, row[name] / 100, task=task) for name, task in tables.TASKS.items())
        )
        for method, row in table.set_index("method").iterrows()
    }


def test_the_papers_own_numbers_fill_its_table_1_with_the_averages_it_prints():
    paper = published("lottery_table1")
    found = tables.filled(printed(paper))
    assert list(found.columns) == COLUMNS
    for method, row in paper.set_index("method").iterrows():
        for column in COLUMNS[:-1]:
            cell, within = found.loc[method, column], 0.0101 if column == "AVG" else 1e-9
            assert 100 * cell.mean == pytest.approx(row[column], abs=within), (method, column)


@pytest.mark.parametrize("method", ["Full fine-tuning", "Adapter 128"])
def test_the_average_of_the_large_tasks_is_the_large_of_the_papers_table_2(method):
    # Its other rows are of one level for all tasks, of which Table 1 has no numbers.
    found = tables.filled(printed(published("lottery_table1")))
    large = published("lottery_table2").set_index("method").Large[method]
    assert 100 * found.loc[method, "AVG large"].mean == pytest.approx(large, abs=1e-9)


def test_a_cell_whose_run_is_missing_is_blank_and_so_is_an_average_over_it():
    rows = printed(published("lottery_table1").head(2))
    rows["Adapter 128"] = rows["Adapter 128"][lambda runs: runs.task != "glue/rte"]
    blank = tables.filled(rows).isna()
    assert not blank.loc["Full fine-tuning"].any()
    assert blank.columns[blank.loc["Adapter 128"]].tolist() == ["RTE", "AVG"]


# For reading


@pytest.fixture
def two_tasks():
    majority = {"metric": "matthews", "majority.matthews": 0.0}
    seeds = [run("any", score, seed=seed, **majority) for seed, score in enumerate([0.5, 0.6])]
    rte = run("any", 0.7, task="glue/rte")
    rows = {"Adapter": seeds, "Weight tickets": [*seeds[:1], rte]}
    return {method: pd.DataFrame(runs) for method, runs in rows.items()}


def test_ours_stands_beside_the_papers_with_half_widths_seeds_and_the_majority(two_tasks):
    paper = pd.DataFrame({"CoLA": [51.7, 54], "RTE": [67.3, None]}, ["Adapter", "Weight tickets"])
    found = tables.beside(two_tasks, {"paper": paper})
    assert list(found.columns) == ["Adapter", "Weight tickets", "Majority"]
    half = 12.7062 * 5  # Student's t with one degree of freedom, standard error 5 points
    assert found.loc[("CoLA", "ours")].tolist() == [f"55.0 ±{half:.1f}", "50.0 (1 seed)", "0.0"]
    assert found.loc[("CoLA", "paper")].tolist() == ["51.70", "54.00", ""]
    assert found.loc[("RTE", "ours")].tolist() == ["", "70.0 (1 seed)", "50.0"]
    assert found.loc[("RTE", "paper")].tolist() == ["67.30", "", ""]


def test_what_was_not_run_is_blank_beside_the_papers_numbers(two_tasks):
    found = tables.beside(two_tasks, {"paper": published("lottery_table1").set_index("method")})
    assert found.loc[("MRPC", "ours")].tolist() == ["", "", ""]
    assert found.loc[("AVG", "ours")].tolist() == ["", "", ""]
    assert found.loc[("MRPC", "paper")].tolist() == ["", "88.10", ""]


def test_a_source_has_a_line_only_for_the_columns_it_prints(two_tasks):
    sources = {"one": pd.DataFrame({"RTE": [1.0]}), "two": pd.DataFrame({"AVG": [2.0]})}
    found = tables.beside(two_tasks, sources)
    lines = [(name, "ours") for name in COLUMNS]
    lines.insert(lines.index(("RTE", "ours")) + 1, ("RTE", "one"))
    lines.insert(lines.index(("AVG", "ours")) + 1, ("AVG", "two"))
    assert found.index.tolist() == lines


def test_reached_says_the_last_round_of_every_search_and_where_there_is_none():
    rounds = frame(
        *search("neuron", [1.0, 0.8, 0.64]),
        *search("weight", [1.0, 0.8]),
        *search("weight", [1.0], task="glue/rte", seed=1),
        run("random mask", **{"detail.unit": "adapter", "detail.round": 9}),
    )
    found = tables.reached(rounds)
    assert list(found.columns) == ["weight", "neuron", "adapter"]
    assert found.loc[("glue/cola", 0)].tolist() == [1, 2, pd.NA]
    assert found.loc[("glue/rte", 1)].tolist() == [0, pd.NA, pd.NA]
    assert len(found) == 2
