"""Files that are either whole or absent: written aside, flushed, then renamed into place."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import PruningError


def write_bytes(file: str | Path, content: bytes) -> None:
    """Replace `file` by `content` in one step; a reader sees the old file or the new one.

    Raises:
        PruningError: the folder cannot be written to, or the disk is full; the old file stays.
    """
    file = Path(file)
    # Opened plainly: tempfile's files are private, and a shared results folder is not.
    temporary = file.parent / f".tmp-{uuid4().hex}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except OSError as error:
        raise PruningError(f"could not write {str(file)!r}: {error.strerror}") from error
    finally:  # an interrupt, too, leaves nothing behind
        with suppress(OSError):
            temporary.unlink()


def save_tensors(file: str | Path, tensors: Mapping[str, Tensor], about: dict[str, str]) -> None:
    """Write named tensors and string metadata as one safetensors file."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(file, save(held, metadata=about))


def load_tensors(file: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file.

    Raises:
        PruningError: the file is missing or damaged.
    """
    if not Path(file).is_file():
        raise PruningError(f"no file {str(file)!r}")
    try:
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()  # an opened file is no mapping: it cannot be iterated
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise PruningError(
            f"the file {str(file)!r} is damaged ({error}); delete it to start it afresh"
        ) from error
