"""A notebook alone, without the repository, installs what it needs in its first cell and runs."""

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRIED = ROOT / "notebooks" / "08_head_importance.ipynb"  # it trains, and reads recorded runs too


@pytest.fixture(scope="module")
def hosted(tmp_path_factory) -> Path:
    """Python of an environment like Colab's: torch and friends are there, the library is not.

    The packages of the tests' own environment show through, but not the link to the library,
    which lives in a .pth file that only its own site folder honours.
    """
    folder = tmp_path_factory.mktemp("hosted")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    found = subprocess.run(
        [python, "-c", "import adapter_pruning"], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in found.stderr
    return python


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_begins_with_the_same_installing_cell(path):
    first, tried = (
        next(c.source for c in nbformat.read(p, 4).cells if c.cell_type == "code")
        for p in (path, TRIED)
    )
    assert first == tried


def test_runs_from_nothing(hosted, tmp_path):
    path = Path(shutil.copy(TRIED, tmp_path))
    small = {
        "seeds": [0],
        "train_size": 32,
        "validation_size": 32,
        "test_size": 32,
        "max_length": 16,
        "evaluations_per_epoch": 1,
        "scoring_sizes": [3, 8],
        "draws": 2,
    }
    source = nbformat.read(path, 4)
    parameters = next(c for c in source.cells if "parameters" in c.metadata.get("tags", []))
    declared = {line.partition(":")[0] for line in parameters.source.splitlines()}
    given = [f"{name} = {value!r}" for name, value in small.items() if name in declared]
    parameters.source += "\n" + "\n".join(given)
    nbformat.write(source, tmp_path / path.name)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "ADAPTER_PRUNING_SOURCE": _source(tmp_path).as_uri(),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    done = subprocess.run(
        [hosted, "-c", "from nbclient.cli import main; main()", path.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "records" / "maps").is_dir()


def _source(folder: Path) -> Path:
    """What an install from the repository gets: a copy, so that its build leaves nothing here."""
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("lib", "book"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.egg-info"))
    return copy
