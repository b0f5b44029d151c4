"""Another build of the engine that is installed here, from the same sources with other settings of its build."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.environments import build, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.core.software import Software


def python_of(
    software: Software, distributions: Sequence[str], variables: Mapping[str, str], say: Callable[[str], None]
) -> str:
    """The interpreter of an environment with an engine's distributions built anew; made now unless it is there.

    Args:
        software: the engine's, as it is installed.
        distributions: which of it are the engine itself.
        variables: what its build is told.
        say: shows progress.

    Raises:
        BuildError: its sources cannot be had again, or do not build.
    """
    own = tuple(each for each in software.distributions if each.name in distributions)
    wanted = recipe.requirements_of(replace(software, distributions=own), replace(software, distributions=()), None)
    told = " ".join(f"{name}={value}" for name, value in sorted(variables.items()))
    requirements = [replace(each, identity=f"{each.identity} {told}") for each in wanted]
    return build.python_of(requirements, say, build.Given(variables))
