"""The format of a model file, by its first bytes and not by its name, and the header reader for it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import gguf_header, pth, st

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.header import Header

SUFFIXES: dict[str, Format] = {".pth": "pth", ".st": "st", ".safetensors": "st", ".gguf": "gguf"}
_DOWNLOAD_AGAIN = "download it again"
_READERS: Mapping[Format, Callable[[Path], Header]] = {
    "pth": pth.read_header,
    "st": st.read_header,
    "gguf": gguf_header.read_header,
}


def read_header(path: Path) -> Header:
    """Check a model file's header and read it. No tensor is read, and nothing is unpickled.

    Raises:
        ModelError: as `detect_format`; or the header is damaged, or not that of an RWKV-7 model.
    """
    return _READERS[detect_format(path)](path)


def detect_format(path: Path) -> Format:
    """The format of a model file.

    Raises:
        ModelError: missing, empty, a Git LFS pointer, a web page, none of the three formats, or a suffix that does not
            match the content.
    """
    if not path.is_file():
        problem = f"{str(path)!r} is not a file" if path.exists() else f"model file {str(path)!r} does not exist"
        raise ModelError(f"{problem}; name a .pth, .st or .gguf file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error}; check its permissions and the disk") from None
    actual = _format_of_content(path, head)
    named = SUFFIXES.get(path.suffix.lower())
    if named is not None and named != actual:
        raise ModelError(f"{str(path)!r} is named like a .{named} file but its content is .{actual}; rename it")
    return actual


def _format_of_content(path: Path, head: bytes) -> Format:
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
    raise ModelError(
        f"{str(path)!r} is not a .pth, .st or .gguf file: it begins with {head[:8].hex(' ')}; {_DOWNLOAD_AGAIN}"
    )
