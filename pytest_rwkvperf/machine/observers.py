"""Tools that observe this process: a debugger, a coverage tool, a profiler, or Python's development mode."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

_STATUS = Path("/proc/self/status")
_TOOLS = {"coverage": "coverage", "pydevd": "a debugger", "debugpy": "a debugger", "bdb": "a debugger"}
_MONITORING_IDS = range(6)


def names() -> list[str]:
    """Names of the tools that may slow this process down or stop it; usually empty.

    They do not observe the workers, to which no variable that turns tracing on is passed. But a parent that is slow, or
    waits at a breakpoint, spaces samples differently than in a baseline.
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
    """Trace and profile functions, by the package of their code."""
    found = []
    for kind, function in (("a trace function", sys.gettrace()), ("a profiler", sys.getprofile())):
        if function is not None:
            module = getattr(function, "__module__", None) or type(function).__module__
            found.append(_TOOLS.get(str(module).split(".")[0].lstrip("_"), kind))
    return found


def _monitoring() -> list[str]:
    """Tools of sys.monitoring (PEP 669, Python 3.12), by the names that they registered."""
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None:
        return []
    return [str(name) for name in map(monitoring.get_tool, _MONITORING_IDS) if name is not None]


def _traced() -> bool:
    """Whether a process traces this one with ptrace(2), by Linux's proc(5)."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in lines)
