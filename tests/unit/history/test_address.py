from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.history import address

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "pa/ss:w%40rd"  # noqa: S105 - of nothing
POSTGRES = f"postgresql://me:{SECRET}@db.example/team?sslmode=require&sslpassword=hush-hush"


@pytest.mark.parametrize("text", ["history.db", "sqlite:///history.db", "sqlite+pysqlite:///./history.db"])
def test_a_relative_file_is_in_the_folder_given(text: str, tmp_path: Path) -> None:
    place = address.parse(text, tmp_path)
    assert place.url.database == str(tmp_path / "history.db")
    assert place.shown == f"sqlite:///{tmp_path / 'history.db'}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mysql://me:hush@host/db", "'mysql' is unknown; allowed: sqlite, postgresql"),
        ("sqlite://", "a file that outlives the run"),
        ("sqlite:///:memory:", "a file that outlives the run"),
        ("postgresql://me:hush@host:port/db", "is malformed"),
        ("postgresql://me:hu@sh@host/db", "write it as %40"),
        ("postgresql://me:hush hush@host/db", "write it as %20"),
        ("postgresql://host/db?user=me&password=hush hush", "write it as %20"),
        (".", "is a folder; name a file in it"),
        ("~nobody-of-this-name/history.db", "cannot be a file: Could not determine home directory"),
        (f"{'x' * 5000}.db", "cannot be a file: "),
    ],
)
def test_errors_do_not_repeat_the_password(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        address.parse(text, tmp_path)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "hu@" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_secret_is_shown(tmp_path: Path) -> None:
    place = address.parse(POSTGRES, tmp_path)
    assert place.shown == "postgresql://me:***@db.example/team?sslmode=require"
    assert place.url.password == "pa/ss:w@rd"  # noqa: S105 - of nothing
    told = place.clean('connection to "me:pa/ss:w@rd" with pa%2Fss%3Aw%40rd and hush-hush failed')
    assert told == 'connection to "me:***" with *** and *** failed'
    for text in (place.shown, repr(place), place.key):
        assert "pa/ss" not in text
        assert "hush" not in text


def test_the_key_does_not_depend_on_the_password(tmp_path: Path) -> None:
    keys = {address.parse(f"postgres://me:{one}@host/db", tmp_path).key for one in ("old", "new")}
    assert len(keys) == 1
    assert keys != {address.parse("postgres://me:old@host/other", tmp_path).key}


@pytest.mark.parametrize(("lacking", "text"), [("sqlalchemy", "h.db"), ("psycopg", "postgresql://host/db")])
def test_a_missing_package_is_named_with_the_command_to_install_it(
    lacking: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> object:
        return None if name == lacking else object()

    monkeypatch.setattr("importlib.util.find_spec", find)
    with pytest.raises(OptionError, match="pip install sqlalchemy alembic"):
        address.parse(text, tmp_path)
