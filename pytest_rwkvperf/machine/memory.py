"""The peak resident memory of this process, with the standard library alone on Linux and macOS, for A/B workers."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """Peak resident set size of the calling process in bytes.

    Linux: VmHWM of /proc/self/status (proc(5)); ru_maxrss would include the peak of the process that forked this one.
    macOS: ru_maxrss, in bytes there (getrusage(2)). Windows: PeakWorkingSetSize through psutil.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
