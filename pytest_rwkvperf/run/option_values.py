"""Reading the text of one option's value: shared by pytest's options and the commands of `rwkvperf`.

Every function takes the option as the beginning of its error messages, such as `--rwkv-tolerance=`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

Save = Literal["no", "append", "replace"]

MAX_NUMBER = 9_999_999
"""Of threads, tokens in a chunk and seconds. A workload's tokens have the same bound."""

_SAVES = ("no", "append", "replace", "append,crowded", "replace,crowded")

_Number = TypeVar("_Number", int, float)


def read_number(option: str, text: str, kind: Callable[[str], _Number], example: str = "4") -> _Number:
    """Read a number above 0 and up to MAX_NUMBER.

    Raises:
        OptionError: it is none of these; the message shows `example`.
    """
    try:
        value = kind(text)
    except ValueError:
        value = kind("0")
    # Engines take 32-bit numbers and would silently truncate larger ones. The budget has the same bound.
    if not 0 < value <= MAX_NUMBER:
        raise OptionError(
            f"{option}{text!r} is not a number above 0 and up to {MAX_NUMBER}; write for example {example}"
        )
    return value


def read_share(option: str, text: str) -> float:
    """Read `5%`, `2.5 %` or `0.05` as a share strictly between 0 and 1.

    Raises:
        OptionError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)\s*", text, re.ASCII)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value < 1:
        raise OptionError(f"{option}{text!r} is not a share between 0 and 100 %; write 5% or 0.05")
    return value


def read_save(option: str, text: str) -> tuple[Save, bool]:
    """Read `append` or `replace,crowded`: how to save, and whether crowded sessions are saved too.

    `crowded` is a word of this value and not an option: it is asked for with each save, and an ini file cannot turn it
    on unnoticed.

    Raises:
        OptionError: it is none of the allowed values.
    """
    mode, _, crowded = text.partition(",")
    if text not in _SAVES:
        raise OptionError(f"{option}{text!r} is unknown; allowed: {', '.join(_SAVES)}{path_hint(text)}")
    return cast("Save", mode), bool(crowded)


def path_hint(text: str) -> str:
    """What to do about a test path in the place of a value; empty for other texts.

    An option that may stand without a value (--rwkv-save-baseline, --rwkv-strict) takes the next argument as its value.
    """
    return "; put test paths before the option" if "/" in text or text.endswith(".py") else ""
