"""Who is watching this process: a debugger, a coverage tool, a profiler, or Python's development mode."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

_STATUS = Path("/proc/self/status")
_TOOLS = {"coverage": "coverage", "pydevd": "a debugger", "debugpy": "a debugger", "bdb": "a debugger"}
_MONITORING_IDS = range(6)


def watching() -> list[str]:
    """What slows this process down or stops it, now, in words; empty as a rule.

    Workers are other processes and are watched by none of these: no variable that would have them traced is passed on.
    But a parent that stands still at a breakpoint, or crawls, spaces samples differently than a baseline's did.
    """
    found = [*_python_tools(), *_monitoring()]
    if sys.flags.dev_mode:
        found.append("python -X dev")
    if tracemalloc.is_tracing():
        found.append("tracemalloc")
    if _traced():
        found.append("a native debugger or strace")
    return list(dict.fromkeys(found))


def _python_tools() -> list[str]:
    """Trace and profile functions, named by the package that their code comes from."""
    found = []
    for kind, function in (("a trace function", sys.gettrace()), ("a profiler", sys.getprofile())):
        if function is not None:
            module = getattr(function, "__module__", None) or type(function).__module__
            found.append(_TOOLS.get(str(module).split(".")[0].lstrip("_"), kind))
    return found


def _monitoring() -> list[str]:
    """Tools of sys.monitoring (PEP 669), which Python has since 3.12; each has given its own name."""
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None:
        return []
    return [str(name) for name in map(monitoring.get_tool, _MONITORING_IDS) if name is not None]


def _traced() -> bool:
    """Whether a process traces this one with ptrace(2), as Linux tells it (proc(5))."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in lines)
