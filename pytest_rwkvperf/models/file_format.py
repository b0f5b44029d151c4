"""What a file is, by its first bytes and not by its name; nothing is allocated or unpickled to find out."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format

SUFFIXES: dict[str, Format] = {".pth": "pth", ".st": "st", ".safetensors": "st", ".gguf": "gguf"}
_DOWNLOAD_AGAIN = "download it again"


def detect_format(path: Path) -> Format:
    """The format of a model file.

    Raises:
        ModelError: missing, empty, a Git LFS pointer, an error page, none of the three formats, or a suffix that says
            another format than the content.
    """
    if not path.is_file():
        wrong = f"{str(path)!r} is no file" if path.exists() else f"model file {str(path)!r} does not exist"
        raise ModelError(f"{wrong}; name a .pth, .st or .gguf file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error}") from None
    found = _by_content(path, head)
    named = SUFFIXES.get(path.suffix.lower())
    if named is not None and named != found:
        raise ModelError(f"{str(path)!r} is named like a .{named} file but its content is .{found}; rename it")
    return found


def _by_content(path: Path, head: bytes) -> Format:
    if not head:
        raise ModelError(f"{str(path)!r} is empty; {_DOWNLOAD_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{str(path)!r} is a Git LFS pointer, not the model; fetch it with `git lfs pull`")
    if head.startswith(b"GGUF"):
        return "gguf"
    if head.startswith(b"PK\x03\x04"):
        return "pth"
    if head.startswith(b"\x80\x02\x8a\x0a"):
        raise ModelError(
            f"{str(path)!r} is a .pth in torch's format from before version 1.6; load and save it with a newer torch"
        )
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 9 else 0  # noqa: PLR2004 - a length and a brace
    if length and head[8:9] == b"{":
        return "st"
    if head.lstrip()[:1] == b"<":
        raise ModelError(f"{str(path)!r} is a web page, not a model; {_DOWNLOAD_AGAIN} from the file's direct address")
    raise ModelError(f"{str(path)!r} is not a .pth, .st or .gguf file: it begins with {head[:8].hex(' ')}")
