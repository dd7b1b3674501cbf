"""The README says what the recorded run says, and its example is real."""

import importlib.util
import re
from pathlib import Path

import adapter_pruning as ap

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def writer():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "book" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_results_are_those_of_the_recorded_run():
    readme = writer()
    between = README.partition(readme.BEGIN)[2].partition(readme.END)[0]
    assert between == readme.table(readme.recorded())
    assert readme.FIGURE.is_file()


def test_the_example_runs_as_it_is_printed(minilm, rotten, monkeypatch, capsys):
    example = re.search(r"```python\n(.*?)```", README, re.S)[1]
    model = minilm()
    monkeypatch.setattr(ap, "load_task", lambda name: rotten)
    monkeypatch.setattr(ap, "load_model", lambda name, task: model)
    exec(example.replace("rounds=15", "rounds=1").replace("bottleneck=64", "bottleneck=4"), {})
    assert re.fullmatch(r"1\.000 0\.\d{3}\n0\.800 0\.\d{3}\n", capsys.readouterr().out)
