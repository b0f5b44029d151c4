"""How a speed was measured, as one identifier that other programs carry along and that can be checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import ConventionError

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Case

_ID = re.compile(r"([a-z][a-z0-9-]*):(uniform|native):v(\d{1,6}):(none|once|steady|first-token):c(\d{1,7})", re.ASCII)

OWN_TOOL = "rwkvperf"

NATIVE_WARM_UPS = {
    "web-rwkv": "none",
    "web-rwkv-bench": "none",
    "llama-cpp": "once",
    "llama-bench": "once",
    "llama-batched-bench": "once",
    "rwkv": "first-token",
}
"""What each engine's own tool does before it times (`worker/native.py`)."""


@dataclass(frozen=True, slots=True)
class Convention:
    """Who measured a speed, by which protocol of which version, after what warm-up, and in what chunks.

    `warm_up` is `none`; `once`, one repetition; `steady`, until times no longer fall; or `first-token`, which the clock
    leaves out. `chunk` is the most tokens of one prefill call, 0 where there is none.
    """

    tool: str
    protocol: str
    version: int
    warm_up: str
    chunk: int

    @property
    def id(self) -> str:
        """Such as `rwkvperf:uniform:v1:steady:c512`; `parse` reads it."""
        return f"{self.tool}:{self.protocol}:v{self.version}:{self.warm_up}:c{self.chunk}"

    @classmethod
    def of_case(cls, case: Case, version: int) -> Convention:
        """The convention of a case that this project measured under its protocol's `version`."""
        warm_up = "steady" if case.protocol == "uniform" else NATIVE_WARM_UPS.get(case.backend, "none")
        return cls(OWN_TOOL, case.protocol, version, warm_up, case.chunk)

    @classmethod
    def parse(cls, text: str) -> Convention:
        """Read an identifier.

        Raises:
            ValueError: it is none.
        """
        match = _ID.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no identifier of a convention, such as rwkvperf:uniform:v1:steady:c512")
        return cls(match[1], match[2], int(match[3]), match[4], int(match[5]))


def check_shared(old: set[Convention], new: set[Convention], what: str, remedy: str) -> None:
    """Check that what two files have in common was measured under a convention of both; `remedy` ends the message.

    Raises:
        ConventionError: it was not.
    """
    if old & new:
        return
    there, here = (", ".join(sorted(each.id for each in side)) for side in (old, new))
    raise ConventionError(
        f"{what} was measured in two ways, which are not compared: {there} in the old file, {here} in the new one; "
        f"{remedy}"
    )
