"""The published tables: each row has a source, and they agree with the papers' own arithmetic."""

import re
from pathlib import Path

import pandas as pd
import pytest

import adapter_pruning as ap
from adapter_pruning.papers import published

BOOK = Path(__file__).parents[1] / "book"
TABLES = sorted(file.stem for file in (BOOK / "papers").glob("*.csv"))


@pytest.mark.parametrize("name", TABLES)
def test_every_published_row_names_its_source(name):
    table = published(name)
    assert len(table)
    assert table["source"].notna().all()


def test_an_unknown_table_is_refused_with_the_known_ones(refused):
    with refused("unknown published table 'nope'", "lottery_table1"):
        published("nope")


def test_the_averages_of_table_1_are_the_means_of_its_rows():
    table = published("lottery_table1").drop(columns="source").set_index("method")
    means = table.drop(columns="AVG").mean(axis=1).round(2)
    assert (means - table["AVG"]).abs().max() < 0.011


def test_the_schedules_on_the_page_are_the_librarys():
    table = published("schedules")
    for unit, rows in table.groupby("unit"):
        left = rows.sort_values("round").units_left.dropna()
        if len(left):
            assert ap.schedule(int(left.iloc[0]), 15) == left.astype(int).tolist(), unit


def test_the_grid_of_surviving_positions_on_the_page_is_the_table():
    table = published("lottery_positions")
    page = (BOOK / "paper_lottery_tickets.md").read_text()
    for task, rows in table.sort_values("layer").groupby("task"):
        letters = [
            "".join(pair)
            for pair in zip(
                rows.attention.map({1: "A", 0: "."}), rows.ffn.map({1: "F", 0: "."}), strict=True
            )
        ]
        grid = re.search(rf"^{task} +((?:[A.][F.] +){{12}}) *(\d+) +(\d+)$", page, re.M)
        assert grid, f"no row for {task} in the page's grid"
        assert grid.group(1).split() == letters
        assert [int(grid.group(2)), int(grid.group(3))] == [rows.attention.sum(), rows.ffn.sum()]


def test_tables_are_read_as_numbers():
    assert pd.api.types.is_numeric_dtype(published("lottery_table1")["CoLA"])
