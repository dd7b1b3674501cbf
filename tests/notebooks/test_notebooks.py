"""The notebooks: one shape, committed clean, run at `smoke`, deterministic where they say so."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLISHED = [*NOTEBOOKS, *sorted((ROOT / "book").glob("*.ipynb"))]
SECTIONS = (
    "Parameters",
    "The idea",
    "Ours against the paper",
    "What the paper leaves open, and what we chose",
    "Summary",
    "Exercises",
    "References",
)

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path: Path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    return "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_is_committed_without_outputs(path):
    assert [c for c in code(path) if c.outputs or c.execution_count is not None] == []


@each
def test_has_the_sections_of_every_chapter(path):
    text = prose(path)
    assert [name for name in SECTIONS if f"\n## {name}" not in text] == []
    for lead in ("**Overview.**", "**What you need to know.**", "**Time.**"):
        assert lead in text


@each
def test_opens_on_colab_by_its_own_badge_and_installs_first(path):
    assert f"/blob/main/notebooks/{path.name})" in nbformat.read(path, 4).cells[0].source
    assert "%pip install" in code(path)[0].source


@each
def test_every_parameter_is_typed_and_commented_where_its_name_does_not_say_it_all(path):
    cell = next(c for c in code(path) if "parameters" in c.metadata.get("tags", []))
    lines = cell.source.splitlines()
    assert [line for line in lines if not re.match(r"^\w+: [\w| ]+ = ", line)] == []
    bare = {line.split(":")[0] for line in lines if "#" not in line}
    assert bare <= {"batch_size"}


@each
def test_every_figure_has_caption_name_and_alt_text_in_a_sentence(path):
    call = re.compile(r"^(?:lottery_|sparse_|head_)?plots\.(?!use_style)", re.M)
    drawn = [cell for cell in code(path) if call.search(cell.source)]
    assert drawn
    for cell in drawn:
        about = cell.metadata["mystnb"]
        assert about["figure"]["name"].startswith("fig-")
        assert about["figure"]["caption"].endswith(".")
        assert about["image"]["alt"].endswith(".")
        assert len(about["image"]["alt"].split()) > 8


@each
def test_no_number_from_a_run_is_typed_into_the_prose(path):
    # Scores have three decimals everywhere in this book; the paper's have two.
    assert re.findall(r"\b0\.\d{3}\b", prose(path)) == ["0.001"] * prose(path).count("of 0.001")


def printed(path: Path) -> dict[str, str]:
    """Source of every cell that says it is deterministic -> what it printed."""
    marked = [cell for cell in code(path) if "NBVAL_CHECK_OUTPUT" in cell.source]
    return {c.source: "".join(out.get("text", "") for out in c.outputs) for c in marked}


@each
def test_deterministic_cells_print_the_same_in_two_runs(path, smoke):
    """The batch has run each notebook for its first seed, and again for its page."""
    runs = "seeds/{}/rotten_tomatoes/0.ipynb", "pages/{}/rotten_tomatoes.ipynb"
    one, other = (printed(smoke / run.format(path.stem)) for run in runs)
    assert one == other
    assert all(one.values())
    assert len(one) > 0


def test_they_print_the_same_under_nbval_too(smoke, tmp_path):
    """nbval runs an executed notebook once more and compares the cells that ask for it."""
    name = "08_head_importance"
    executed = nbformat.read(smoke / "pages" / name / "rotten_tomatoes.ipynb", 4)
    for cell in executed.cells:  # nbval's kernel does not start in the folder of the batch
        cell.source = cell.source.replace('"_build/smoke"', repr(str(smoke)))
    path = tmp_path / f"{name}.ipynb"
    nbformat.write(executed, path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(code(path))} passed" in done.stdout
