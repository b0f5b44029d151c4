"""The format of baselines, recipes and records: JSON with a schema number, whose content is checked when read.

A change of what a field means gets a new schema number and a step that reads the older one. A new field gets a default,
and a new number too: an earlier release then asks to be upgraded, where it would call the field unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from pytest_rwkvperf.core import locks, strict_json
from pytest_rwkvperf.core.atomic import destination, remove_leftovers, write_atomically
from pytest_rwkvperf.core.errors import LockedError, RefusedError
from pytest_rwkvperf.core.folders import lock_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.core.errors import RwkvPerfError

T = TypeVar("T")

LOCK_SECONDS = 60.0
"""How long an update waits for one and the same holder of a file's lock."""


@dataclass(frozen=True, slots=True)
class VersionedFormat(Generic[T]):
    """The format of a kind of file.

    `advice` says what to do about an unusable file; `problem` gives the reason why a content is unusable, or "".
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
        return self.convert(raw, path, advice)

    def convert(self, raw: Any, path: Path, advice: str = "") -> T:  # noqa: ANN401 - JSON
        """A file's content from its parsed text; as `loads`.

        Raises:
            RwkvPerfError: this format's error: not its schema, a newer schema, or unusable figures.
        """
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

    def dumps(self, content: T) -> str:
        """A file's text: sorted keys, two-space indent, each list of numbers on one line."""
        return strict_json.dumps(msgspec.to_builtins(content), sort_keys=True)

    def update(self, path: Path, empty: T, change: Callable[[T], T]) -> bool:
        """Apply `change` to a file's content, or to `empty` where there is no file; False if that changed nothing.

        The file's lock is held, and the new text is read again before it is written: the next run must be able to.

        Raises:
            RwkvPerfError: this format's error: the lock is taken, the file is unusable, or the disk refuses; the file
                is unchanged.
            StorageError: the new file is in place, and its folder cannot be flushed to the disk.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locks.hold(lock_for(path), LOCK_SECONDS):
                found = self.read(path)
                before = empty if found is None else found
                if (after := change(before)) == before:
                    return False
                text = self.dumps(after)
                data = text.encode()
                self.loads(text, path, "nothing was saved, since it could not be read again")
                target = destination(path)
                remove_leftovers(target)
                write_atomically(target, data)
        except LockedError as error:
            raise self.error(
                f"{self.name} {path} has been locked by {error}, for more than {LOCK_SECONDS:.0f} s; "
                "it was left as it is: try again when that has ended"
            ) from error
        except (OSError, UnicodeEncodeError, RefusedError) as error:
            raise self.error(
                f"{self.name} {path} cannot be written: {error}; it was left as it is; "
                "make that possible, or name another folder"
            ) from error
        return True

    def _unusable(self, path: Path, what: str, advice: str = "") -> RwkvPerfError:
        return self.error(f"{self.name} {path}{what}; {advice or self.advice}")
