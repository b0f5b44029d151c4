"""Text from elsewhere, made fit to be shown: nothing that moves a terminal's cursor, no token, no password."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHORTEST_SECRET = 6
"""A shorter value would be found inside ordinary words."""

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
    r"\bsk-[A-Za-z0-9_-]{16,}",  # OpenAI's form, which others took over
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

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, keep: str = "") -> str:
    """The text with control, format and undecodable characters written as escapes, but those in `keep`.

    A file name that is not UTF-8 (PEP 383) becomes text by it; terminals get no sequence that they would obey.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def cleaned(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A JSON value whose every text, keys too, is `printable` but for line breaks and tabs."""
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, dict):
        return {cleaned(key): cleaned(one) for key, one in value.items()}
    return [cleaned(one) for one in value] if isinstance(value, list) else value


def cell(text: str) -> str:
    """A text for a table that a spreadsheet may open: an apostrophe before what it would take for a formula.

    OWASP, CSV injection.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def of_cell(text: str) -> str:
    """What `cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def is_secret(name: str) -> bool:
    """Whether an environment variable's name says that its value is for nobody else."""
    return _SECRET_NAME.search(name) is not None


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without the values of variables whose names say that they are secret, and without known forms of tokens.

    Args:
        text: what an engine, a library or a system said.
        environment: where the secrets are; this process's own by default.
    """
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) >= _SHORTEST_SECRET and value in text and is_secret(name):
            text = text.replace(value, f"[{name}]")
    return _SECRETS.sub("[redacted]", text)


def safe(text: str, keep: str = "") -> str:
    """What may be shown and stored of a text from elsewhere: `redacted` and `printable`."""
    return printable(redacted(text), keep)


SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token")


# Greedy to the last @: a password may hold one, and a slash.
_USER_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S*@")


_QUERY_PASSWORD = re.compile(rf"([?&][^=&\s]*(?:{'|'.join(SECRET_WORDS)})[^=&\s]*=)[^&\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """A text without the passwords of the addresses in it."""
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1***@", text))
