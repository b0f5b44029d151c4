"""What an engine was when it was measured: the bytes that were loaded, by which two builds of one version differ."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution that an engine consists of or stands on."""

    name: str
    version: str
    digest: str
    """SHA-256 over the paths and hashes in its RECORD; empty where it has none."""
    origin: str = ""
    """Its direct_url.json (PEP 610: a VCS commit, an archive, a folder); empty when it came from an index."""

    @property
    def off_index(self) -> bool:
        """Whether no index has this build: it came from elsewhere, or has a local version (PEP 440)."""
        return bool(self.origin) or "+" in self.version


@dataclass(frozen=True, slots=True)
class Software:
    """An engine with everything below it that can change its speed or its answers."""

    python: str
    platform: str
    distributions: tuple[Distribution, ...] = ()
    modules: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the Python sources that were loaded, by top-level package."""
    libraries: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each shared library that was loaded, by its file name; those of the system are left out."""
    build: str = ""
    """The engine's own account of how it was built."""
    environment: dict[str, str] = field(default_factory=dict)
    """The variables that the engine reads."""

    @property
    def identity(self) -> str:
        """The same for two environments exactly when the same code was loaded with the same settings."""
        loaded = [self.python, self.platform, self.modules, self.libraries, self.build, self.environment]
        return hashlib.sha256(json.dumps(loaded, sort_keys=True).encode()).hexdigest()

    def differences(self, new: Software) -> list[str]:
        """What differs in `new`, each as `NAME OLD → NEW`, releases first; empty when nothing does."""
        return list(dict.fromkeys(self._differences(new)))

    def _differences(self, new: Software) -> Iterator[str]:
        if self.python != new.python:
            yield f"{self.python} → {new.python}"
        old_versions, new_versions = _versions(self), _versions(new)
        for name in sorted({*old_versions, *new_versions}):
            before, after = old_versions.get(name, "absent"), new_versions.get(name, "absent")
            if before != after:
                yield f"{name} {before} → {after}"
        yield from _changed("environment variable", self.environment, new.environment)
        if self.build != new.build:
            yield f"build: {', '.join(_words_only_in(self.build, new.build)) or 'other flags'}"
        yield from (f"{name} differs" for name in _different(self.libraries, new.libraries))
        yield from (f"the source of {name} differs" for name in _different(self.modules, new.modules))

    def to_json(self) -> dict[str, Any]:
        """A form that survives JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Software:
        """Rebuild from `to_json`."""
        distributions = tuple(Distribution(**distribution) for distribution in raw["distributions"])
        return cls(**{**raw, "distributions": distributions})


def _versions(software: Software) -> dict[str, str]:
    return {distribution.name: distribution.version for distribution in software.distributions}


def _different(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _changed(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in _different(old, new):
        yield f"{what} {name}={old.get(name, '')} → {new.get(name, '')}"


def _words_only_in(old: str, new: str) -> list[str]:
    """The settings of two accounts of a build that differ, as `OLD → NEW` where both name one."""
    before, after = _settings(old), _settings(new)
    return [f"{name} {before.get(name, 'absent')} → {after.get(name, 'absent')}" for name in _different(before, after)]


def _settings(account: str) -> dict[str, str]:
    """`NAME = VALUE` parts of an account, which llama.cpp separates by `|` and torch by commas and line breaks."""
    parts = account.replace("\n", "|").replace(",", "|").split("|")
    pairs = (part.partition("=") for part in parts if "=" in part)
    return {name.split(":")[-1].strip(): value.strip() for name, _, value in pairs}
