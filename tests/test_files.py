"""Files are whole or absent: what a failing write leaves, and what a damaged file says."""

import errno
import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from adapter_pruning import files

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True, False])}


def test_write_bytes_makes_folders_and_replaces_the_old_file(tmp_path):
    file = tmp_path / "new" / "folder" / "file"
    files.write_bytes(file, b"old and long")
    files.write_bytes(str(file), b"new")
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_on_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, refused, step
):
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with refused(str(file), "No space left on device"):
        files.write_bytes(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_content_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    file, seen = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor):
        fsync(descriptor)
        seen.append(("synced", os.fstat(descriptor).st_size, file.exists()))

    def rename(source, target):
        # Beside the target, for a rename over file systems is not atomic.
        seen.append(("renamed", os.path.dirname(source), file.exists()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    files.write_bytes(file, b"content")
    assert seen == [("synced", len(b"content"), False), ("renamed", str(tmp_path), False)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path, refused):
    (tmp_path / "taken").write_bytes(b"")
    with refused(str(tmp_path / "taken" / "file")):
        files.write_bytes(tmp_path / "taken" / "file", b"content")


def test_tensors_and_metadata_come_back_as_they_were(tmp_path):
    file = tmp_path / "tensors.safetensors"
    transposed = {"t": TENSORS["a"].T, "p": torch.nn.Parameter(torch.ones(2))}
    files.save_tensors(file, TENSORS | transposed, {"kind": "test"})
    found, about = files.load_tensors(file)
    assert about == {"kind": "test"}
    assert found.keys() == TENSORS.keys() | transposed.keys()
    for name, tensor in (TENSORS | transposed).items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_tensors_are_written_in_the_safetensors_format(tmp_path):
    file = tmp_path / "tensors.safetensors"
    files.save_tensors(file, TENSORS, {})
    assert torch.equal(load_file(file)["a"], TENSORS["a"])


def test_a_file_without_metadata_has_empty_metadata(tmp_path):
    file = tmp_path / "tensors.safetensors"
    files.save_tensors(file, TENSORS, {})
    assert files.load_tensors(file)[1] == {}


def test_a_missing_file_is_named(tmp_path, refused):
    with refused("no file", str(tmp_path / "nowhere")):
        files.load_tensors(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_file_is_named_with_the_remedy(tmp_path, refused, keep):
    file = tmp_path / "tensors.safetensors"
    files.save_tensors(file, TENSORS, {"kind": "test"})
    file.write_bytes(file.read_bytes()[:keep])
    with refused(str(file), "damaged", "delete it"):
        files.load_tensors(file)


def test_a_file_of_another_kind_is_called_damaged(tmp_path, refused):
    file = tmp_path / "tensors.safetensors"
    file.write_text("no tensors in here, just a line of text")
    with refused(str(file), "damaged"):
        files.load_tensors(file)


def test_a_written_file_can_be_read_by_whom_the_umask_lets(tmp_path):
    # A temporary file is private; what is shared with a group must not become so.
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.write_bytes(b"")
    files.write_bytes(written, b"")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
