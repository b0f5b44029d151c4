"""The builders by name. An engine needs a module in this folder and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.environments.builders import llama_cpp, llama_cpp_python, rwkv_pip, web_rwkv

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.environments.builders.builder import Builder

BUILDERS: dict[str, Builder] = {
    builder.name: builder
    for builder in (
        llama_cpp_python.BUILDER,
        llama_cpp.BUILDER,
        web_rwkv.BUILDER,
        rwkv_pip.BUILDER,
    )
}


def recognised(has: Callable[[str], bool]) -> Builder | None:
    """The engine whose source has the paths that `has` says are there; None for another project's."""
    return next((builder for builder in BUILDERS.values() if all(map(has, builder.marks))), None)
