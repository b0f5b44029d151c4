"""Paths as users write them in options."""

from __future__ import annotations

from pathlib import Path

from pytest_rwkvperf.core.errors import OptionError


def user_path(text: str, folder: Path = Path(), option: str = "") -> Path:
    """A path whose `~` is this user's home and `~name` that of another; a relative one is in `folder`.

    Shells expand neither in `--option=~/file`, nor does anything in a settings file. Errors begin with `option`.

    Raises:
        OptionError: there is no such home.
    """
    try:
        return folder / Path(text).expanduser()
    except RuntimeError as error:
        raise OptionError(f"{option}{text!r} is no usable path: {error}; write the whole path") from None
