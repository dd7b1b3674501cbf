"""The batch: a job is re-run exactly when its notebook, the library, its profile or pins change."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = (
    "Snakefile",
    "_toc.yml",
    "_config.yml",
    "constraints.txt",
    "book",
    "lib",
    "notebooks",
    "profiles",
)
EVERYTHING = {"seed": 16, "longest_seed": 2, "page": 9, "extra": 4, "book": 1}
ONE_CHAPTER = {"seed": 2, "page": 1, "extra": 4, "book": 1}


def planned(folder: Path, *config: str) -> dict[str, int]:
    """Rule -> number of jobs that Snakemake would run now."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("snakemake"),
            "--dry-run",
            "--cores",
            "2",
            "--config",
            *(config or ["profile=smoke"]),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    table = said.partition("Job stats:")[2].partition("\n\n")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}
    return {rule: count for rule, count in jobs.items() if rule not in ("all", "total")}


@pytest.fixture
def finished(tmp_path, smoke) -> Path:
    """A copy of the project whose smoke book is finished."""
    for part in (*PARTS, ".snakemake", smoke.relative_to(ROOT)):
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        copy(source, tmp_path / part)
    return tmp_path


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def test_nothing_is_done_twice(finished):
    assert planned(finished) == {}


@pytest.mark.parametrize(
    ("file", "text", "jobs"),
    [
        ("lib/adapter_pruning/masks.py", "\n# changed\n", EVERYTHING),
        ("constraints.txt", "# changed\n", EVERYTHING),
        ("profiles/smoke.yaml", "# changed\n", EVERYTHING),
        ("notebooks/01_adapter_tuning.ipynb", " ", EVERYTHING),
        ("notebooks/02_weight_tickets.ipynb", " ", ONE_CHAPTER),
        ("book/new_unit.ipynb", " ", {"extra": 1, "book": 1}),
        ("book/results/long.jsonl", "\n", {"page": 9, "extra": 4, "book": 1}),
        ("book/intro.md", "\n", {"book": 1}),
        ("profiles/gpu.yaml", "# changed\n", {}),
    ],
)
def test_a_change_reruns_what_depends_on_it_and_nothing_else(finished, file, text, jobs):
    if (finished / file).exists():
        append(finished / file, text)
    assert planned(finished) == jobs


def test_an_unknown_profile_is_one_sentence(tmp_path):
    done = subprocess.run(
        [
            Path(sys.executable).with_name("snakemake"),
            "--dry-run",
            "--cores",
            "1",
            "--config",
            "profile=nope",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert (
        "unknown profile 'nope'; choose one of: cpu, gpu, heads, long, paper, quick, smoke" in said
    )
