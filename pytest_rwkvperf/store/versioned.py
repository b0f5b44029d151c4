"""Reading files that are kept, baselines and records: JSON with a schema number, read without trusting it.

A change of what a field means gets a new schema number and a step that reads the older one. A new field gets a default,
and a new number too: an earlier release then asks to be upgraded, where it would call the field unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from pytest_rwkvperf.core import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.core.errors import RwkvPerfError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Format(Generic[T]):
    """A kind of file. `advice` says what to do about an unusable one; `problem` says why no verdict may rest on one.

    With `clean`, control characters in its text are escaped: for content that is shown and not written back.
    """

    name: str
    content: type[T]
    version: int
    error: type[RwkvPerfError]
    advice: str
    problem: Callable[[T], str]
    clean: bool = False

    def read(self, path: Path) -> T | None:
        """The content of a file; None if there is none.

        Raises:
            RwkvPerfError: this format's error: the file cannot be read, or used; the message names it.
        """
        try:
            text = strict_json.read_text(path)
        except FileNotFoundError:
            if path.is_symlink():  # writing through it would make a file wherever the author of the link wanted one
                raise self.error(
                    f"{self.name} {path} is a link to {path.readlink()}, which is not there; "
                    "remove the link or bring the file"
                ) from None
            return None
        except UnicodeDecodeError as error:
            raise self._unusable(path, f" is not text ({error})") from error
        except OSError as error:
            raise self.error(
                f"{self.name} {path} cannot be read: {error}; make that possible, or name another path"
            ) from error
        return self.loads(text, path)

    def loads(self, text: str, path: Path, advice: str = "") -> T:
        """Read a file's text; `path` and `advice`, instead of the format's own, are for the error.

        Raises:
            RwkvPerfError: this format's error: not JSON, not its schema, a newer schema, or unusable figures.
        """
        try:
            raw = strict_json.loads(text, clean=self.clean)
        except ValueError as error:
            raise self._unusable(path, f" is not valid JSON ({error})", advice) from error
        number = raw.get("schema") if isinstance(raw, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise self._unusable(path, " has no valid schema number", advice)
        if number > self.version:
            raise self.error(
                f"{self.name} {path} has schema {number}, this release reads up to {self.version}; "
                "upgrade pytest-rwkvperf"
            )
        raw["schema"] = self.version  # what an earlier one lacks has a default
        try:
            content = msgspec.convert(raw, type=self.content)
        except msgspec.ValidationError as error:
            raise self._unusable(path, f" does not follow its schema: {error}", advice) from error
        if (key := strict_json.stray_key(raw, msgspec.to_builtins(content))) is not None:
            # A slip in a file merged by hand: what stands under it would not be used, and be lost by saving.
            raise self._unusable(path, f" does not follow its schema: unknown key {key!r}", advice)
        if problem := self.problem(content):
            raise self._unusable(path, f": {problem}", advice)
        return content

    def _unusable(self, path: Path, what: str, advice: str = "") -> RwkvPerfError:
        return self.error(f"{self.name} {path}{what}; {advice or self.advice}")
