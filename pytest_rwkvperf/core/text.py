"""Make text from outside safe to show and store: no terminal control sequences, no tokens, no passwords."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHORTEST_SECRET = 6
"""A shorter value also occurs inside ordinary words."""

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|AUTH(?!OR)|(?:^|_)(?:PAT|PWD_?HASH)(?:_|$)"
    r"|(?:^|_)(?:API|ACCESS|ACCOUNT|CLIENT|DEPLOY|ENCRYPTION|SIGNING|SSH|GPG|STORAGE)_?KEYS?(?:_|$)|(?:^|_)KEY$",
    re.IGNORECASE,
)

_TOKENS = (
    r"\bgh[pousr]_[A-Za-z0-9]{16,}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bglpat-[A-Za-z0-9_-]{16,}",  # GitLab
    r"\bhf_[A-Za-z0-9]{16,}",  # Hugging Face
    r"\bms-[0-9a-f]{8}-[0-9a-f-]{20,}",  # ModelScope
    r"\bsk-[A-Za-z0-9_-]{16,}",  # OpenAI, and others in the same form
    r"\bpypi-[A-Za-z0-9_-]{16,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"\bAIza[A-Za-z0-9_-]{30,}",  # Google
    r"\beyJ[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]*)*",  # a JSON web token
    r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)",  # user and password in an address
    r"(?i:(?<=\bbearer )|(?<=\bbasic ))[A-Za-z0-9._~+/=-]{16,}",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
)

_SECRETS = re.compile("|".join(_TOKENS))

_ALIKE = 0.7
"""How alike two names are, of difflib's 0..1, before one is taken for a misspelling of the other."""

_MINUTE = 60
"""Seconds in a minute, and minutes in an hour."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, keep: str = "") -> str:
    """Replace control, format and undecodable characters by escapes, except those in `keep`.

    The result contains no terminal control sequence and can be encoded, also where a file name is not UTF-8 (PEP 383).
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def duration(seconds: float) -> str:
    """A time for people, with about two digits: `0.5 s`, `18 s`, `1 min 20 s`, `12 min`, `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds:.1g} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < 10 * _MINUTE:
        return _two_units(*divmod(whole, _MINUTE), "min", "s")
    minutes = round(whole / _MINUTE)
    return f"{minutes} min" if minutes < _MINUTE else _two_units(*divmod(minutes, _MINUTE), "h", "min")


def _two_units(large: int, small: int, large_name: str, small_name: str) -> str:
    return f"{large} {large_name}" + (f" {small} {small_name}" if small else "")


def printable_json(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A JSON value with every string in it, keys too, made `printable`; line breaks and tabs are kept."""
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, dict):
        return {printable_json(key): printable_json(item) for key, item in value.items()}
    return [printable_json(item) for item in value] if isinstance(value, list) else value


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """A question about the known name that is spelt most like a text, in brackets; empty if none is.

    Capitals and separators do not count: llama.cpp's own tools print `Q8_0`, Python calls llama-cpp `llama_cpp`.
    """
    from difflib import get_close_matches  # mistakes alone pay for the import

    names = {_spelling(name): name for name in known}
    close = get_close_matches(_spelling(text), names, n=1, cutoff=_ALIKE)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""


def _spelling(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name).lower()


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 workload`, `3 workloads`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def csv_cell(text: str) -> str:
    """Prefix text that a spreadsheet would run as a formula with an apostrophe (OWASP, "CSV Injection")."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def is_secret(name: str) -> bool:
    """Whether the name of an environment variable suggests that its value is secret."""
    return _SECRET_NAME.search(name) is not None


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Replace tokens of known forms, and the values of environment variables with secret names, by placeholders.

    Args:
        text: output of an engine, a library or the system.
        environment: the variables; by default this process's.
    """
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) >= _SHORTEST_SECRET and value in text and is_secret(name):
            text = text.replace(value, f"[{name}]")
    return _SECRETS.sub("[redacted]", text)


def safe(text: str, keep: str = "") -> str:
    """Text from outside made safe to show and store: `redacted`, then `printable`."""
    return printable(redacted(text), keep)


SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token")
"""A parameter of a database's address is secret if its name contains one of these."""

# Greedy to the last @: a password may contain one, and a slash.
_USER_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S*@")
_QUERY_PASSWORD = re.compile(rf"([?&][^=&\s]*(?:{'|'.join(SECRET_WORDS)})[^=&\s]*=)[^&\s]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Replace the passwords of database addresses in a text by `***`."""
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1***@", text))
