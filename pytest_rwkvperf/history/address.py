"""The address of a history's database, whose password must never be shown."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.text import SECRET_WORDS, safe

if TYPE_CHECKING:
    from sqlalchemy import URL

INSTALL = "pip install sqlalchemy alembic 'psycopg[binary]' ruptures uniplot"
"""What the extra `[history]` brings, by names that the package index has. This project's own is not there."""

_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_EXAMPLES = "write for example history.db, sqlite:///history.db or postgresql://user@host/database"


@dataclass(frozen=True, slots=True)
class Address:
    """A database. `shown` is the address without its secrets, which may be printed and stored."""

    url: URL = field(repr=False)
    shown: str

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a server."""
        return Path(str(self.url.database)) if _is_sqlite(self.url) else None

    @property
    def key(self) -> str:
        """A name for files that belong to this database. It does not change with the password."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:16]

    def clean(self, text: str) -> str:
        """Remove this address's secrets from a driver's message."""
        for secret in _secrets(self.url):
            for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
                text = text.replace(form, "***")
        return safe(text)


def parse(text: str, folder: Path) -> Address:
    """Read a database's address, or the path of an SQLite file; a relative path is in `folder`.

    Raises:
        OptionError: it is neither, or its driver is not installed. The message holds no part of the address that could
            be a secret.
    """
    if importlib.util.find_spec("sqlalchemy") is None or importlib.util.find_spec("alembic") is None:
        raise OptionError(f"a history needs SQLAlchemy and Alembic, which are not installed: {INSTALL}")
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if "://" not in text:
        url = URL.create(_DRIVERS["sqlite"], database=text)
    else:
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):  # ValueError: the port is not a number
            raise OptionError(f"the history's address is malformed; {_EXAMPLES}") from None
    _check(url, text)
    url = url.set(drivername=_DRIVERS[_family(url)])
    if _is_sqlite(url):
        url = url.set(database=str(_sqlite_file(url.database, folder)))
    return Address(url, _shown(url))


def _check(url: URL, text: str) -> None:
    """Refuse an address whose database is unknown, or that would be read in another way than meant."""
    if "@" in (url.host or ""):
        raise OptionError("a password in the history's address contains @; write it as %40, or leave it to ~/.pgpass")
    family = _family(url)
    if family not in _DRIVERS:
        raise OptionError(f"the history's database {family!r} is unknown; allowed: sqlite, postgresql; {_EXAMPLES}")
    if family == "sqlite":
        return
    if re.search(r"\s", text):  # `without_passwords` would take the address for two words
        raise OptionError("the history's address contains a space; write it as %20, or leave a password to ~/.pgpass")
    if importlib.util.find_spec("psycopg") is None:
        raise OptionError(f"a history in PostgreSQL needs psycopg, which is not installed: {INSTALL}")


def _family(url: URL) -> str:
    return url.drivername.partition("+")[0]


def _is_sqlite(url: URL) -> bool:
    return _family(url) == "sqlite"


def _sqlite_file(name: str | None, folder: Path) -> Path:
    """An SQLite file's full path."""
    if not name or name == ":memory:":
        raise OptionError(f"the history needs a file that outlives the run; {_EXAMPLES}")
    try:
        path = (folder / Path(name).expanduser()).resolve()
        is_folder = path.is_dir()
    except FileNotFoundError:  # the current folder no longer exists
        raise
    except (OSError, RuntimeError, ValueError) as error:  # an unknown user's home, a long name, a loop of links
        raise OptionError(f"the history {name!r} cannot be a file: {error}; name another one") from None
    if is_folder:
        raise OptionError(f"the history {str(path)!r} is a folder; name a file in it, such as {path / 'history.db'}")
    return path


def _shown(url: URL) -> str:
    if _is_sqlite(url):
        return f"sqlite:///{url.database}"
    query = {name: value for name, value in url.query.items() if not _is_secret(name)}
    plain = url.set(drivername="postgresql", query=query, password="***" if url.password is not None else None)
    return plain.render_as_string(hide_password=True)


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


def _secrets(url: URL) -> list[str]:
    """Every secret of an address, the longest first, so that one that contains another is removed whole."""
    secrets = [url.password] if url.password else []
    for name, value in url.query.items():
        if _is_secret(name):
            secrets += [value] if isinstance(value, str) else value
    return sorted(filter(None, secrets), key=len, reverse=True)
