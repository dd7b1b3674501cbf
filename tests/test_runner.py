"""The runner: nothing starts on bad input, and an output is a finished notebook or absent."""

import functools
import subprocess
import sys

import nbformat
import papermill
import pytest

from adapter_pruning import runner

PARAMETERS = 'rounds: int = 2  # prunings\ndrop: float = 0.2\ntask: str = "stsb"'


@pytest.fixture
def notebook(tmp_path):
    """make(*cells): a notebook with a parameters cell and further code cells."""

    def make(*cells: str, parameters: str = PARAMETERS, tags: tuple[str, ...] = ("parameters",)):
        nb = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": list(tags)})
        nb.cells = [first, *map(nbformat.v4.new_code_cell, cells)]
        nbformat.write(nb, tmp_path / "small.ipynb")
        return tmp_path / "small.ipynb"

    return make


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail the test if papermill is asked to execute anything."""

    def execute(*args, **kwargs):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(papermill, "execute_notebook", execute)


@pytest.fixture
def cells_of_a_run(tmp_path, monkeypatch):
    """cells_of_a_run(notebook, given): a run's cells; they are written but not executed."""
    unexecuted = functools.partial(papermill.execute_notebook, prepare_only=True)
    monkeypatch.setattr(papermill, "execute_notebook", unexecuted)

    def run(notebook, given):
        runner.run(notebook, tmp_path / "out.ipynb", given)
        return nbformat.read(tmp_path / "out.ipynb", 4).cells

    return run


def test_declared_reads_names_and_defaults(notebook):
    assert runner.declared(notebook()) == {"rounds": 2, "drop": 0.2, "task": "stsb"}


def test_declared_reads_optional_annotations(notebook):
    assert runner.declared(notebook(parameters="a: int | None = None")) == {"a": None}


@pytest.mark.parametrize(
    "pair", ["ronds=1", "rounds=one", "rounds=-1", "drop=2", "task=nothing", "rounds"]
)
def test_bad_parameters_are_refused_before_a_kernel_starts(
    notebook, tmp_path, no_kernel, capsys, pair
):
    assert runner.main([str(notebook()), str(tmp_path / "out.ipynb"), "--set", pair]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    assert pair.partition("=")[0] in said
    assert not (tmp_path / "out.ipynb").exists()


def test_an_unknown_profile_is_refused_before_a_kernel_starts(
    notebook, tmp_path, no_kernel, capsys
):
    arguments = [str(notebook()), str(tmp_path / "out.ipynb"), "--profile", "nope"]
    assert runner.main(arguments) == 2
    assert "unknown profile 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "part"), [("not json", "is not a notebook"), ("{}", "is not a notebook")]
)
def test_a_damaged_notebook_is_named(tmp_path, refused, content, part):
    (tmp_path / "bad.ipynb").write_text(content)
    with refused("bad.ipynb", part):
        runner.declared(tmp_path / "bad.ipynb")


def test_a_missing_notebook_is_named(tmp_path, refused):
    with refused("no notebook", "absent.ipynb"):
        runner.declared(tmp_path / "absent.ipynb")


def test_a_notebook_without_parameters_is_named(tmp_path, refused):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "none.ipynb")
    with refused("none.ipynb", "parameters"):
        runner.declared(tmp_path / "none.ipynb")


def test_a_run_gives_the_kernel_the_parameters(notebook, tmp_path):
    out = tmp_path / "deep" / "out.ipynb"
    runner.run(notebook("print(rounds, task)"), out, {"rounds": 5})
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == "5 stsb\n"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        (["parameters"], []),
        (["parameters", "remove-cell"], ["remove-cell"]),
        (["hide-input", "parameters", "other"], ["hide-input"]),
        (["parameters", "hide-output", "remove-input"], ["hide-output", "remove-input"]),
    ],
)
def test_injected_parameters_are_hidden_as_the_notebooks_own_are(
    notebook, cells_of_a_run, own, shown
):
    first, injected, last = cells_of_a_run(notebook("print(1)", tags=own), {"rounds": 5})
    assert injected.metadata.tags == ["injected-parameters", *shown]
    assert "rounds = 5" in injected.source
    assert first.metadata.tags == own
    assert last.metadata.tags == []


def test_without_given_parameters_nothing_is_injected(notebook, cells_of_a_run):
    own = ["parameters", "remove-cell"]
    cells = cells_of_a_run(notebook("print(1)", tags=own), {})
    assert [cell.metadata.tags for cell in cells] == [own, []]


def test_a_failing_cell_leaves_no_output_but_the_notebook_up_to_there(notebook, tmp_path, refused):
    with refused("small.ipynb", "ZeroDivisionError", "out.failed.ipynb"):
        runner.run(notebook("print('before')", "1 / 0"), tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()
    assert (tmp_path / "out.failed.ipynb").exists()


def test_the_runner_imports_no_pytorch():
    """It only hands notebooks to their kernels, and a batch starts it dozens of times."""
    code = "import sys, adapter_pruning.runner; print(sorted({'torch', 'pandas'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
