"""The interpreter and the variables of a side of A/B, from what `--rwkv-ab` or `--rwkv-new` names; built if need be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError
from pytest_rwkvperf.environments import build, recipe, trees
from pytest_rwkvperf.environments.builders.llama_cpp import LIBRARIES
from pytest_rwkvperf.environments.side import Side

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.core.software import Software
    from pytest_rwkvperf.environments.named_builds import NamedBuild
    from pytest_rwkvperf.environments.requirements import Requirement


def side_of(
    named: NamedBuild,
    recorded: Software | None,
    here: Software,
    *,
    wheels: Path | None,
    say: Callable[[str], None],
) -> Side:
    """The side that a named build gives one engine; built when it is needed for the first time.

    Args:
        named: what the user named.
        recorded: the engine's software as the baseline's recipe has it; None where that does not know it.
        here: the same engine's in this environment.
        wheels: the folder of `--rwkv-keep-wheels`.
        say: shows progress.

    Raises:
        OptionError: the baseline is named and its recipe does not know the engine.
        BuildError: the software cannot be had again, built or installed.
    """
    if named.kind == "interpreter":
        return Side(named.text)
    if named.kind == "libraries":
        return Side(sys.executable, {LIBRARIES: named.text})
    if named.source is not None:
        built = trees.build(named.source, say)
        for note in built.notes:
            say(f"{built.label}: {note}")
        return built.side
    if named.requirement is not None:
        return Side(build.python_of([named.requirement], say))
    if recorded is None:
        raise OptionError("the stored baseline does not say what it was measured with; save one with this release")
    requirements = recipe.requirements_of(recorded, here, wheels)
    python = build.python_of(requirements, say) if requirements else sys.executable
    return Side(python, {name: recorded.environment.get(name) for name in {*recorded.environment, *here.environment}})


def to_build(recorded: Software, here: Software, wheels: Path | None) -> list[Requirement]:
    """What is installed before a baseline's software can be measured; empty where it is there, or cannot be had."""
    try:
        requirements = recipe.requirements_of(recorded, here, wheels)
    except RwkvPerfError:
        return []
    return [] if not requirements or build.is_made(requirements) else requirements
