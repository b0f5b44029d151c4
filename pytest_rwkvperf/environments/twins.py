"""A twin of the installed engine: built from the same sources with other build settings.

The witness `instructions` needs one where the engine was compiled for instructions that valgrind does not execute.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.environments import build, recipe
from pytest_rwkvperf.environments.build import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.core.software import Distribution, Software


def python_of(
    software: Software,
    distributions: Sequence[str],
    variables: Mapping[str, str],
    say: Callable[[str], None],
    *,
    libraries: str | None = None,
) -> str:
    """The interpreter of an environment with an engine's distributions built anew; made now unless it is there.

    Args:
        software: the engine's, as it is installed.
        distributions: which of it are the engine itself.
        variables: the environment variables of its build.
        say: shows progress.
        libraries: the folder whose libraries the engine loads instead of its own, whatever environment it is in.

    Raises:
        BuildError: its sources cannot be had again, or do not build; the message says what to do instead.
    """
    flags = f"with CMAKE_ARGS={shlex.quote(variables.get('CMAKE_ARGS', ''))}"
    if libraries:
        raise BuildError(
            f"the libraries in {libraries} were compiled for instructions that it does not execute; "
            f"compile them {flags} (what --rwkv-ab and --rwkv-new name as source is, where this variable is set)"
        )
    own = tuple(each for each in software.distributions if each.name in distributions)
    try:
        wanted = recipe.requirements_of(replace(software, distributions=own), replace(software, distributions=()), None)
    except BuildError:
        raise BuildError(
            f"{', '.join(map(_named, own))} was compiled for instructions that it does not execute, and cannot be "
            f"compiled anew from there; install a release or a commit, or compile it {flags}"
        ) from None
    settings = " ".join(f"{name}={value}" for name, value in sorted(variables.items()))
    requirements = [replace(each, identity=f"{each.identity} {settings}") for each in wanted]
    return build.python_of(requirements, say, build.PipInput(variables))


def _named(distribution: Distribution) -> str:
    """A distribution's name and version, with where it was installed from."""
    url = json.loads(distribution.origin).get("url", "") if distribution.origin else ""
    return f"{distribution.name} {distribution.version}" + (f" from {url}" if url else "")
