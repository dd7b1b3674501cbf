"""Parameters and profiles: everything is checked by name, type and range before it is used."""

from pathlib import Path

import pytest

from adapter_pruning.parameters import Parameters, Profile, check, load_profile
from adapter_pruning.runner import declared

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = sorted(file.stem for file in (ROOT / "profiles").glob("*.yaml"))
DECLARED = {"rounds": 15, "drop": 0.2, "seeds": [0], "task": "stsb", "train_size": None}


def test_given_values_replace_the_declared_ones_and_the_rest_stays():
    assert check({"rounds": 3}, DECLARED, "nb") == {**DECLARED, "rounds": 3}


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"rouns": 3}, ["unknown parameter of nb 'rouns'", "rounds, drop, seeds"]),
        ({"rounds": "3"}, ["parameter rounds", "'3'", "integer"]),
        ({"rounds": 3.5}, ["parameter rounds", "3.5", "integer"]),
        ({"rounds": True}, ["parameter rounds", "True", "integer"]),
        ({"rounds": -1}, ["parameter rounds", "-1", "greater than or equal to 0"]),
        ({"drop": 1.0}, ["parameter drop", "1.0", "less than 1"]),
        ({"drop": float("nan")}, ["parameter drop", "nan"]),
        ({"seeds": []}, ["parameter seeds", "[]", "at least 1"]),
        ({"seeds": 0}, ["parameter seeds", "0", "list"]),
        ({"seeds": [0, "1"]}, ["parameter seeds", "'1'", "integer"]),
        ({"task": "stsbb"}, ["unknown task 'stsbb'", "rotten_tomatoes", "glue/cola"]),
        ({"train_size": 0}, ["parameter train_size", "0", "greater than or equal to 1"]),
    ],
)
def test_a_bad_value_is_one_sentence_with_name_value_and_rule(refused, given, parts):
    with refused("nb", *parts):
        check(given, DECLARED, "nb")


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01])
def test_a_density_lies_above_0_and_at_most_at_1(refused, density):
    with refused("control_densities", str(density)):
        check({"control_densities": [density]}, {"control_densities": [0.2]}, "nb")


def test_a_density_of_1_is_allowed():
    assert check({"control_densities": [1.0]}, {"control_densities": [0.2]}, "nb")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_declares_only_known_parameters_with_valid_defaults(notebook):
    values = declared(notebook)
    assert set(values) <= set(Parameters.model_fields)
    assert check({}, values, notebook.stem) == values


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_for_every_notebook(profile, notebook):
    known = declared(notebook)
    if notebook.stem not in load_profile(profile, ROOT / "profiles").notebooks:
        pytest.skip(f"profile {profile} does not run {notebook.stem}")
    given = load_profile(profile, ROOT / "profiles").of(notebook.stem, known)
    check(given | {"profile": profile}, known, notebook.stem)


def test_what_is_for_all_notebooks_goes_to_those_that_have_it_and_the_rest_to_its_own():
    every = {"rounds": 3, "drop": 0.5}
    own = {"01": {"trials": 2}, "02": {}}
    profile = Profile(about="x", tasks=["stsb"], seeds=[0], parameters=every, notebooks=own)
    assert profile.of("01", ["rounds"]) == {"rounds": 3, "trials": 2}
    assert profile.of("02", ["rounds", "drop"]) == every


def test_the_profiles_are_those_that_the_readme_names():
    assert PROFILES == ["cpu", "gpu", "heads", "long", "paper", "quick", "smoke"]


def test_an_unknown_profile_is_refused_with_the_known_ones(refused):
    with refused("unknown profile 'quik'", "cpu, gpu, heads, long, paper, quick, smoke"):
        load_profile("quik", ROOT / "profiles")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("tasks: [", "not valid YAML"),
        ("about: x\ntasks: [stsb]\nseeds: [0]\nparameters: {}\n", "notebooks"),
        ("about: x\ntasks: [nope]\nseeds: [0]\nparameters: {}\nnotebooks: {}\n", "unknown task"),
        ("about: x\ntasks: [stsb]\nseeds: zero\nparameters: {}\nnotebooks: {}\n", "seeds"),
        (
            "about: x\ntasks: [stsb]\nseeds: [0]\nparameters: {rouns: 1}\nnotebooks: {}\n",
            "unknown parameter 'rouns'",
        ),
        ("just text", "profile"),
    ],
)
def test_a_damaged_profile_is_named_with_its_fault(tmp_path, refused, content, part):
    (tmp_path / "mine.yaml").write_text(content)
    with refused("mine.yaml", part):
        load_profile("mine", tmp_path)


def test_a_profile_refuses_a_notebook_it_does_not_have(refused):
    profile = Profile(about="x", tasks=["stsb"], seeds=[0], parameters={}, notebooks={"01": {}})
    with refused("unknown notebook '02'", "01"):
        profile.of("02", [])
