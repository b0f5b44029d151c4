"""Where a history is kept: a database's address, whose password nobody may ever see."""

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

INSTALL = 'pip install "pytest-rwkvperf[history]"'

_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_EXAMPLES = "write for example history.db, sqlite:///history.db or postgresql://user@host/database"


@dataclass(frozen=True, slots=True)
class Address:
    """A database. `shown` is what may be printed and stored: the address without its secrets."""

    url: URL = field(repr=False)
    shown: str

    @property
    def key(self) -> str:
        """A name for files that belong to this database; no secret is in it, so that a new password changes nothing."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:16]

    def clean(self, text: str) -> str:
        """A driver's message without the secrets that it may repeat."""
        for secret in _secrets(self.url):
            for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
                text = text.replace(form, "***")
        return safe(text)


def parse(text: str, folder: Path) -> Address:
    """Read a database's address, or the path of an SQLite file; a relative one is in `folder`.

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
        except (ArgumentError, ValueError):  # a port that is no number
            raise OptionError(f"the history's address is not understood; {_EXAMPLES}") from None
    if "@" in (url.host or ""):
        raise OptionError("a password in the history's address holds a @; write it as %40, or leave it to ~/.pgpass")
    family = url.drivername.partition("+")[0]
    if family not in _DRIVERS:
        raise OptionError(f"the history's database {family!r} is unknown; allowed: sqlite, postgresql; {_EXAMPLES}")
    if family != "sqlite" and re.search(r"\s", text):  # `without_passwords` takes an address for one word
        raise OptionError("the history's address holds a blank; write it as %20, or leave a password to ~/.pgpass")
    if family != "sqlite" and importlib.util.find_spec("psycopg") is None:
        raise OptionError(f"a history in PostgreSQL needs psycopg, which is not installed: {INSTALL}")
    url = _placed(url.set(drivername=_DRIVERS[family]), folder)
    return Address(url, _shown(url))


def _placed(url: URL, folder: Path) -> URL:
    """With an SQLite file's full path.

    Raises:
        OptionError: no file is named, or a folder is, or what no file can be.
        FileNotFoundError: this process's own folder is gone.
    """
    if not url.drivername.startswith("sqlite"):
        return url
    if not url.database or url.database == ":memory:":
        raise OptionError(f"the history needs a file that outlives the run; {_EXAMPLES}")
    try:
        path = (folder / Path(url.database).expanduser()).resolve()
        is_folder = path.is_dir()
    except FileNotFoundError:  # of no fault of the name: the folder that this is called from is gone
        raise
    except (OSError, RuntimeError, ValueError) as error:  # nobody's home, a name that is too long, links in a loop
        raise OptionError(f"the history {url.database!r} can be no file: {error}") from None
    if is_folder:
        raise OptionError(f"the history {str(path)!r} is a folder; name a file in it, such as {path / 'history.db'}")
    return url.set(database=str(path))


def _shown(url: URL) -> str:
    if url.drivername.startswith("sqlite"):
        return f"sqlite:///{url.database}"
    query = {name: value for name, value in url.query.items() if not _is_secret(name)}
    plain = url.set(drivername="postgresql", query=query, password="***" if url.password is not None else None)
    return plain.render_as_string(hide_password=True)


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


def _secrets(url: URL) -> list[str]:
    """Every secret of an address, the longest first, so that one that holds another goes whole."""
    values = [value for name, value in url.query.items() if _is_secret(name)]
    found = [url.password, *(one for value in values for one in ([value] if isinstance(value, str) else value))]
    return sorted((str(one) for one in found if one), key=len, reverse=True)
