"""The rwkv package, from ChatRWKV's repository or a folder of its own; Python, and kernels that it compiles itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.environments.builders.builder import installed

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.builders.builder import Place
    from pytest_rwkvperf.environments.side import Side

_FOLDER = "rwkv_pip_package"
"""The package's folder in the repository."""


@dataclass(frozen=True, slots=True)
class RwkvPip:
    """The repository that the package is released from."""

    name: str = "rwkv"
    backend: str = "rwkv"
    upstream: str = "https://github.com/BlinkDL/ChatRWKV"
    marks: tuple[str, ...] = (_FOLDER,)
    rwkv7: tuple[str, str] = (_FOLDER, "x070")

    def flags(self) -> tuple[str, ...]:
        """None, since nothing is compiled here."""
        return ()

    def build(self, place: Place) -> tuple[Side, tuple[str, ...]]:
        """Install the package from its folder in the repository."""
        return installed(place, self.name, place.sources / _FOLDER), ()


BUILDER = RwkvPip()
