"""The claims: each is the difference it names, and a verdict needs an interval on one side."""

import itertools

import pandas as pd
import pytest

from adapter_pruning import claims, tables
from adapter_pruning.papers import published
from adapter_pruning.statistics import Interval, interval

TASKS = ("glue/cola", "glue/rte")
SEEDS = (0.1, 0.2, 0.3)  # what a seed adds to every score: much, so that pairing matters
COLUMNS = [
    *("method", "task", "seed", "score", "validation_score", "adapter.bottleneck"),
    *("detail.unit", "detail.round", "detail.unit_density"),
]

# Verdicts


@pytest.mark.parametrize(
    ("difference", "margin", "said"),
    [
        (Interval(0.02, 0.01, 0.03, 5), 0.0, "supported"),
        (Interval(-0.02, -0.03, -0.01, 5), 0.0, "not supported"),
        (Interval(0.01, -0.01, 0.03, 5), 0.0, "undecided"),
        (Interval(-0.005, -0.009, -0.001, 5), -0.01, "supported"),
        (Interval(-0.02, -0.03, -0.011, 5), -0.01, "not supported"),
        (Interval(-0.01, -0.02, 0.0, 5), -0.01, "undecided"),
        (Interval(0.01, 0.0, 0.02, 5), 0.0, "undecided"),
        (Interval(-0.01, -0.02, 0.0, 5), 0.0, "undecided"),
        (interval([0.5]), 0.0, "undecided (one seed)"),
        (None, 0.0, "not run"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side_of_the_margin(difference, margin, said):
    assert claims.judge(difference, margin) == said


def test_without_a_margin_the_side_is_that_of_zero():
    assert claims.judge(Interval(-0.005, -0.009, -0.001, 5)) == "not supported"


# Differences


def scores(*rows: tuple[str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["task", "seed", "score"])


def test_a_difference_pairs_by_task_and_seed_whatever_the_order_of_rows():
    first = scores(("a", 0, 0.50), ("b", 0, 0.10), ("a", 1, 0.90), ("b", 1, 0.30))
    second = scores(("b", 1, 0.26), ("a", 1, 0.88), ("b", 0, 0.09), ("a", 0, 0.49))
    found, tasks = claims.difference(first, second)
    # Seed 0 gains 0.01 on both tasks, seed 1 gains 0.02 and 0.04.
    assert found == pytest.approx(interval([0.01, 0.03]))
    assert tasks == 2


def test_a_seed_counts_only_where_both_sides_have_every_common_task():
    first = scores(("a", 0, 0.5), ("b", 0, 0.5), ("a", 1, 0.9), ("b", 1, 0.9), ("a", 2, 0.7))
    second = scores(("a", 0, 0.4), ("b", 0, 0.3), ("a", 1, 0.1), ("a", 2, 0.1), ("b", 2, 0.1))
    assert claims.difference(first, second) == (pytest.approx(interval([0.15])), 2)


def test_a_task_that_only_one_side_has_does_not_count():
    first = scores(("a", 0, 0.5), ("b", 0, 0.5))
    second = scores(("a", 0, 0.4), ("c", 0, 0.1))
    assert claims.difference(first, second) == (pytest.approx(interval([0.1])), 1)


def test_there_is_no_difference_where_the_two_have_nothing_in_common():
    one = scores(("a", 0, 0.5), ("b", 1, 0.5))
    assert claims.difference(one, scores(("a", 1, 0.5), ("b", 0, 0.5))) == (None, 0)
    assert claims.difference(one, scores()) == (None, 0)


def test_there_is_no_difference_where_no_seed_has_every_common_task():
    one = scores(("a", 0, 0.5), ("b", 1, 0.5))
    assert claims.difference(one, one) == (None, 2)


# The paper's claims


def rows(method: str, shift: float, task: str, bottleneck: int | None = None, **more) -> list:
    """One record a seed."""
    return [
        {"method": method, "task": task, "seed": seed, "score": 0.5 + base + shift}
        | {"adapter.bottleneck": bottleneck, "validation_score": 0.0}
        | more
        for seed, base in enumerate(SEEDS)
    ]


def rounds(unit: str, shift: dict[str, float], task: str) -> list:
    """A search: dense, its best round, and the two rounds at the claims' densities."""
    parts = [
        ("dense", 1.0, 0.9),
        ("best", 0.8, 0.8),
        ("level", tables.LEVELS[unit], 0.1),
        ("below", 1 / 3, 0.1),
    ]
    return [
        row
        for number, (part, density, validation) in enumerate(parts)
        for row in rows(
            f"{unit} ticket",
            shift.get("dense" if part == "dense" else f"{unit} {part}", 0.0),
            task,
            64,
            validation_score=validation,
            **{"detail.unit": unit, "detail.round": number, "detail.unit_density": density},
        )
    ]


def world(shift: dict[str, float], tasks=TASKS) -> pd.DataFrame:
    """Records in which all methods score alike on every seed, but for what is shifted."""
    found = [
        row
        for task in tasks
        for row in itertools.chain(
            *(rounds(unit, shift, task) for unit in tables.LEVELS),
            rows("dense adapter of 13", shift.get("small", 0.0), task, 13),
            rows("full fine-tuning", shift.get("full", 0.0), task),
        )
    ]
    return pd.DataFrame(found, columns=COLUMNS)


def verdicts(frame: pd.DataFrame) -> dict[str, str]:
    return claims.verdicts(claims.lottery(frame)).set_index("claim").verdict.to_dict()


ALIKE = {
    "Weight tickets at 21% keep the dense score to a point": "supported",
    "Neuron tickets at 26% keep the dense score to a point": "supported",
    "Adapter tickets at 37.5% keep the dense score to a point": "supported",
    "Weight tickets at 21% beat a dense adapter of their size": "undecided",
    "Weight tickets beat adapter tickets below 40%": "undecided",
    "Neuron tickets beat adapter tickets below 40%": "undecided",
    "On CoLA the best weight ticket beats full fine-tuning": "undecided",
    "A task's best weight ticket beats the dense adapter": "undecided",
    "A task's best neuron ticket beats the dense adapter": "undecided",
}
YES, NO = "supported", "not supported"


def test_where_all_score_alike_a_ticket_keeps_the_score_and_beats_nothing():
    assert verdicts(world({})) == ALIKE


@pytest.mark.parametrize(
    ("shifted", "up", "down"),
    [
        ("weight level", {"Weight tickets at": YES}, {"Weight tickets at": NO}),
        ("neuron level", {}, {"Neuron tickets at": NO}),
        ("adapter level", {}, {"Adapter tickets at": NO}),
        ("small", {"size": NO}, {"size": YES}),
        ("weight below", {"Weight tickets beat adapter": YES}, {"Weight tickets beat adapter": NO}),
        ("neuron below", {"Neuron tickets beat adapter": YES}, {"Neuron tickets beat adapter": NO}),
        ("adapter below", {"beat adapter tickets": NO}, {"beat adapter tickets": YES}),
        ("full", {"full": NO}, {"full": YES}),
        ("weight best", {"best weight": YES}, {"best weight": NO}),
        ("neuron best", {"best neuron": YES}, {"best neuron": NO}),
        ("adapter best", {}, {}),
        ("dense", {"dense score": NO, "the dense adapter": NO}, {"the dense adapter": YES}),
    ],
)
@pytest.mark.parametrize("by", [0.05, -0.05])
def test_a_method_that_scores_otherwise_decides_the_claims_about_it_and_no_other(
    shifted, up, down, by
):
    found = verdicts(world({shifted: by}))
    turned = up if by > 0 else down
    expected = {
        claim: next((verdict for part, verdict in turned.items() if part in claim), default)
        for claim, default in ALIKE.items()
    }
    assert found == expected


def test_half_a_point_less_is_kept_and_two_points_less_are_not():
    keeps = "Neuron tickets at 26% keep the dense score to a point"
    assert verdicts(world({"neuron level": -0.005}))[keeps] == "supported"
    assert verdicts(world({"neuron level": -0.02}))[keeps] == "not supported"


def test_seeds_that_differ_leave_a_claim_undecided():
    frame = world({})
    level = (frame.method == "weight ticket") & (frame["detail.round"] == 2)
    frame.loc[level, "score"] += 0.05 * frame.seed[level].map({0: 1, 1: -1, 2: 0.5})
    assert verdicts(frame)["Weight tickets at 21% keep the dense score to a point"] == "undecided"


def test_the_claim_on_cola_looks_at_cola_alone():
    cola, other = world({}, TASKS[:1]), world({"full": -0.05}, TASKS[1:])
    claim = "On CoLA the best weight ticket beats full fine-tuning"
    assert verdicts(other)[claim] == "not run"
    assert verdicts(pd.concat([cola, other], ignore_index=True))[claim] == "undecided"


def test_the_papers_differences_are_those_of_its_tables():
    found = claims.verdicts(claims.lottery(world({}))).set_index("claim").paper
    printed = ["-0.20", "-0.20", "-0.28", "+0.02", "", "", "+1.90", "+0.15", "+0.16"]
    assert found[list(ALIKE)].tolist() == printed


def test_the_papers_differences_are_read_from_the_published_tables(monkeypatch):
    def other(name):
        table = published(name)
        return table.assign(AVG=table.AVG + table.method.str.startswith("Neuron"))

    monkeypatch.setattr(claims, "published", other)
    found = claims.verdicts(claims.lottery(world({}))).set_index("claim").paper
    assert found["Neuron tickets at 26% keep the dense score to a point"] == "+0.80"
    assert found["A task's best neuron ticket beats the dense adapter"] == "+1.16"


def test_what_was_not_run_is_said_and_its_cell_is_blank():
    frame = world({})
    found = claims.verdicts(claims.lottery(frame[frame["detail.unit"] != "adapter"]))
    absent = found.claim.str.contains("Adapter tickets at|beat adapter tickets")
    assert absent.sum() == 3
    assert set(found.verdict[absent]) == {"not run"}
    assert set(found.ours[absent]) == {""}
    assert "not run" not in set(found.verdict[~absent])
    assert found.ours[~absent].ne("").all()


def test_without_any_run_every_claim_is_not_run():
    found = claims.verdicts(claims.lottery(world({})[:0]))
    assert found.verdict.tolist() == ["not run"] * len(ALIKE)
    assert claims.controls(world({})[:0]) == []


# Controls


def control(method: str, unit: str, number: int, density: float, score: float, seed=0) -> dict:
    """A record of a control, or of the ticket itself."""
    row = {"method": method, "task": "glue/rte", "seed": seed, "score": score}
    return row | {"detail.unit": unit, "detail.round": number, "detail.unit_density": density}


def test_a_control_is_compared_with_the_ticket_of_its_own_round():
    tickets = [
        control("weight ticket", "weight", number, 0.8**number, 0.5 + number / 100, seed)
        for seed in (0, 1)
        for number in range(9)
    ]
    drawn = [
        control("random mask", "weight", number, 0.8**number, 0.4 + shift, seed)
        for seed, number, shift in [(0, 5, 0.0), (1, 6, 0.02)]
    ]
    (claim,) = claims.controls(pd.DataFrame([*tickets, *drawn]))
    found, _ = claims.difference(claim.first, claim.second)
    assert found == pytest.approx(interval([0.15, 0.14]))


def test_of_several_controls_the_one_nearest_to_the_papers_level_counts():
    parts = [(5, 0.33, 0.9), (6, 0.25, 0.5), (7, 0.12, 0.9)]
    drawn = [control("one-shot", "weight", *part) for part in parts]
    tickets = [control("weight ticket", "weight", n, density, 0.6) for n, density, _ in parts]
    (claim,) = claims.controls(pd.DataFrame([*tickets, *drawn]))
    assert claim.second.score.tolist() == [0.5]
    assert claims.difference(claim.first, claim.second)[0].mean == pytest.approx(0.1)


def test_every_control_that_was_run_has_a_claim_for_its_unit():
    frame = pd.DataFrame(
        [
            *(control(f"{unit} ticket", unit, 5, 0.3, 0.6) for unit in ("neuron", "adapter")),
            control("one-shot", "adapter", 5, 0.3, 0.1),
            control("re-initialised", "neuron", 5, 0.3, 0.2),
            control("random mask", "neuron", 5, 0.3, 0.3),
        ]
    )
    found = claims.verdicts(claims.controls(frame)).set_index("claim").ours
    assert found.to_dict() == {
        "Which neurons are kept matters": "+30.0, 1 seed",
        "The initial values of the kept neurons matter": "+40.0, 1 seed",
        "Pruning adapters step by step matters": "+50.0, 1 seed",
    }


# Their table


@pytest.mark.parametrize(
    ("gaps", "tasks", "cell"),
    [
        ([0.05], 1, "+5.0, 1 seed"),
        ([0.05, 0.05], 1, "+5.0 [+5.0, +5.0], 2 seeds"),
        ([-0.02, -0.01], 3, "-1.5 [-7.9, +4.9], 2 seeds, 3 tasks"),
        ([-0.0001], 1, "+0.0, 1 seed"),
        ([], 1, ""),
    ],
)
def test_a_cell_has_points_their_interval_and_how_many_seeds_and_tasks(gaps, tasks, cell):
    where = list(itertools.product("abc"[:tasks], range(len(gaps))))
    first = scores(*((task, seed, 0.5 + gaps[seed]) for task, seed in where))
    second = scores(*((task, seed, 0.5) for task, seed in where))
    found = claims.verdicts([claims.Claim("it is so", -1.234, first, second, margin=-0.1)])
    assert list(found.columns) == ["claim", "verdict", "ours", "paper"]
    assert found.ours.tolist() == [cell]
    assert found.claim.tolist() == ["it is so"]
    assert found.paper.tolist() == ["-1.23"]


def test_a_claim_is_judged_by_its_own_margin():
    first, second = scores(("a", 0, 0.495), ("a", 1, 0.496)), scores(("a", 0, 0.5), ("a", 1, 0.5))
    pair = [claims.Claim("", None, first, second, margin) for margin in (0.0, -0.02, 0.02)]
    said = claims.verdicts(pair).verdict.tolist()
    assert said == ["undecided", "supported", "not supported"]
