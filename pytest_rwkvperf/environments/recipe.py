"""What pip must install to have the software of a baseline again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_rwkvperf.environments import wheels
from pytest_rwkvperf.environments.build import BuildError
from pytest_rwkvperf.environments.requirements import Requirement, of_text, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.software import Distribution, Software


def requirements_of(recorded: Software, here: Software, kept: Path | None) -> list[Requirement]:
    """What has to be installed on top of this environment to have the recorded software again; empty for nothing.

    Args:
        recorded: of the baseline.
        here: of this environment.
        kept: the folder of `--rwkv-keep-wheels`, None without one.

    Raises:
        BuildError: something of it cannot be had again; the message names each part with the reason.
    """
    present = {distribution.name: distribution for distribution in here.distributions}
    wanted = [each for each in recorded.distributions if not _same(each, present.get(each.name))]
    found = {each.name: _requirement(each, kept) for each in wanted}
    if missing := [reason for reason in found.values() if isinstance(reason, str)]:
        raise BuildError("the baseline's software cannot be rebuilt: " + "; ".join(missing))
    return [requirement for requirement in found.values() if isinstance(requirement, Requirement)]


def _same(recorded: Distribution, here: Distribution | None) -> bool:
    return here is not None and (here.version, here.digest) == (recorded.version, recorded.digest)


def _requirement(recorded: Distribution, kept: Path | None) -> Requirement | str:
    """What pip is given, or why there is nothing to give."""
    if kept is not None and (path := wheels.find(kept, recorded)) is not None:
        return wheel(path)
    named = f"{recorded.name} {recorded.version}"
    if recorded.origin:
        return _from_origin(recorded, named)
    if recorded.off_index:
        return f"{named} was built locally and is on no index; give the folder of its wheel with --rwkv-keep-wheels"
    return of_text(f"{recorded.name}=={recorded.version}")


def _from_origin(recorded: Distribution, named: str) -> Requirement | str:
    """What PEP 610's origin gives to pip: a commit and an archive can be installed again, a local folder cannot."""
    origin = json.loads(recorded.origin)
    url, subfolder = str(origin.get("url", "")), origin.get("subdirectory")
    part = f"#subdirectory={subfolder}" if subfolder else ""
    if "vcs_info" in origin:
        return of_text(f"{recorded.name} @ {origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}{part}")
    if "archive_info" in origin and not url.startswith("file:"):
        return of_text(f"{recorded.name} @ {url}{part}")
    return (
        f"{named} was installed from {url or 'a local file'}, which no other machine has; "
        "save the baseline with --rwkv-keep-wheels=DIR and give the same folder here"
    )
