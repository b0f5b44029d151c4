"""What `--rwkv-ab`, `--rwkv-new` and `rwkvperf ab` may name: a build of an engine."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments import requirements, sources
from pytest_rwkvperf.environments.requirements import ALLOWED

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.requirements import Requirement
    from pytest_rwkvperf.environments.sources import Source

PROGRAMS = ("llama-bench", "llama-batched-bench", "web-rwkv-bench")
"""The engines' own programs, named with a path after a colon, or alone where they are on PATH."""

BuildKind = Literal["interpreter", "baseline", "requirement", "libraries", "source", "program"]


@dataclass(frozen=True, slots=True)
class NamedBuild:
    """A side of an A/B run, as the user named it."""

    kind: BuildKind
    text: str
    """As the user wrote it; of an interpreter its whole path, of libraries their folder's."""
    requirement: Requirement | None = None
    source: Source | None = None

    def __str__(self) -> str:
        return "the baseline's software" if self.kind == "baseline" else self.text

    def is_interpreter(self, path: str) -> bool:
        """Whether it is the interpreter at this path."""
        return self.kind == "interpreter" and self.text == path


def parse(text: str) -> NamedBuild:
    """Read what the user named.

    Raises:
        OptionError: it is nothing of the kind, or what it names is not there.
    """
    kind = text.partition(":")[0]
    if text == "baseline":
        return NamedBuild("baseline", text)
    if kind == "lib":
        return _libraries(text)
    if kind in PROGRAMS:
        return NamedBuild("program", text)
    path = Path(text).expanduser()
    if not path.is_file() and (source := sources.of_text(text)) is not None:
        return NamedBuild("source", text, source=source)
    if path.is_dir() or path.suffix == ".whl":
        found = requirements.wheel(path) if path.suffix == ".whl" else requirements.source_folder(path)
        return NamedBuild("requirement", text, found)
    return _on_this_machine(text, path) or NamedBuild("requirement", text, requirements.of_text(text))


def _libraries(text: str) -> NamedBuild:
    folder = Path(text.removeprefix("lib:")).expanduser()
    if not any(folder.glob("*llama*")):
        raise OptionError(f"{text}: there is no llama.cpp library in {folder}; give the folder of libllama")
    return NamedBuild("libraries", str(folder.resolve()))


def _on_this_machine(text: str, path: Path) -> NamedBuild | None:
    """An interpreter; None where the text is no path and no program's name."""
    if not (path.is_file() or ("/" in text and "@" not in text) or shutil.which(text)):
        return None
    found = shutil.which(str(path))
    if found is None:
        raise OptionError(f"{text} is no program that can be run; {ALLOWED}")
    return NamedBuild("interpreter", os.path.abspath(found))  # noqa: PTH100 - not resolved: a virtual environment's Python is a link
