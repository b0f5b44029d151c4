"""Whether llama-cpp-python's description of llama.cpp's structures and functions fits another build of llama.cpp.

The binding repeats the structures of `llama.h` by hand. Where a revision has others, calls overwrite memory or set
other options than they name, so the layout is compared before anything is called: that of the headers as the compiler
sees it, against that of the binding as ctypes lays it out in the environment's interpreter.

This file is also run as a script by that interpreter, with the standard library and the binding alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.builders.builder import Place

STRUCTURES = ("llama_model_params", "llama_context_params", "llama_model_quantize_params", "llama_batch")
"""What this project passes to llama.cpp by value."""

_BODY = r"struct\s+{name}\s*\{{(.*?)\n\s*\}}"
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r"(\w+)\s*(?:\[[^\]]*\])?\s*$")
_MOST_PROBLEMS = 3

Layout = dict[str, dict[str, list[int]]]
"""Offset and size in bytes of each field by structure; the empty name is the structure itself."""


def fields_of(header: str, structure: str) -> list[str]:
    """The names of a structure's fields, in order; empty if the header lacks it."""
    text = _COMMENT.sub("", header)
    match = re.search(_BODY.format(name=structure), text, re.DOTALL)
    names = []
    for declaration in match[1].split(";") if match else ():
        names += [found[1] for part in declaration.split(",") if (found := _NAME.search(part))]
    return names


def of_headers(place: Place) -> Layout:
    """The layout that a compiler gives the structures of a state's headers.

    Raises:
        BuildError: they do not compile.
    """
    header = (place.sources / "include" / "llama.h").read_text(encoding="utf-8", errors="replace")
    folder = place.work / "rwkvperf-layout"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layout.cpp").write_text(_printing_program(header), encoding="utf-8")
    includes = [f"-I{place.sources / part}" for part in ("include", "ggml/include")]
    place.run([*_compiler(), *includes, "-w", "-o", folder / "layout", folder / "layout.cpp"])
    printed = subprocess.run([folder / "layout"], capture_output=True, text=True, check=True).stdout
    layout: Layout = {}
    for row in printed.splitlines():
        structure, field, offset, size = row.split()
        layout.setdefault(structure, {})[field.strip("-")] = [int(offset), int(size)]
    return layout


def _printing_program(header: str) -> str:
    """A program that prints a row for each field, and one with the field `-` for each structure."""
    lines = [
        f'    printf("{structure} {field} %zu %zu\\n", offsetof(struct {structure}, {field}), '
        f"sizeof(((struct {structure} *)0)->{field}));"
        for structure in STRUCTURES
        for field in fields_of(header, structure)
    ]
    lines += [
        f'    printf("{name} - 0 %zu\\n", sizeof(struct {name}));' for name in STRUCTURES if fields_of(header, name)
    ]
    return "\n".join(['#include <stdio.h>\n#include <stddef.h>\n#include "llama.h"\nint main(void) {', *lines, "}\n"])


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def check(layout: Layout, libraries: Path, label: str) -> None:
    """Compare with the binding of this interpreter's environment.

    Raises:
        BuildError: it does not fit, or there is no binding.
    """
    from pytest_rwkvperf.environments.build import BuildError, last_lines

    asked = subprocess.run(
        [sys.executable, "-I", __file__, str(libraries)],
        input=json.dumps(layout),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        raise BuildError(f"{label}: llama-cpp-python cannot be asked what it fits: {last_lines(asked.stderr)}")
    problems = json.loads(asked.stdout.splitlines()[-1])
    if problems:
        more = f" and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise BuildError(
            f"{label} does not fit this environment's llama-cpp-python: {'; '.join(problems[:_MOST_PROBLEMS])}{more}. "
            "Install the llama-cpp-python of its time, or compare the programs: "
            "--rwkv-backend=llama-bench:NEW --rwkv-ab=llama-bench:OLD"
        )


def problems_of(layout: Layout, binding: Any, library: Any) -> list[str]:  # noqa: ANN401 - a module, a ctypes library
    """Where a binding's structures differ from a layout, and its functions that a library lacks."""
    found = []
    for structure, fields in layout.items():
        described = getattr(binding, structure)
        own = {name: getattr(described, name) for name, *_ in described._fields_}
        known = {name: [field.offset, field.size] for name, field in own.items()} | {"": [0, ctypes.sizeof(described)]}
        if unknown := [name for name in fields if name not in known]:
            found.append(f"{structure} has {', '.join(unknown)}, which the binding does not know")
        elif gone := [name for name in known if name not in fields]:
            found.append(f"{structure} has no {', '.join(gone)}")
        elif moved := [name or "its size" for name in fields if fields[name] != known[name]]:
            found.append(f"{structure} has {', '.join(moved)} elsewhere")
    functions = [name for name, value in vars(binding).items() if isinstance(value, ctypes._CFuncPtr)]  # type: ignore[attr-defined] # noqa: SLF001 - the only name of the type
    # The binding puts an underscore before the names of deprecated functions.
    missing = [name for name in sorted(name.lstrip("_") for name in functions) if not hasattr(library, name)]
    return found + ([f"the library has no {', '.join(missing[:5])}"] if missing else [])


def main() -> None:
    """Print the problems of the layout on stdin and the libraries in the folder that is the argument."""
    import llama_cpp.llama_cpp as binding

    folder = Path(sys.argv[1])
    library = next(path for path in folder.iterdir() if re.fullmatch(r"(lib)?llama\.(so|dylib|dll)", path.name))
    sys.stdout.write(json.dumps(problems_of(json.load(sys.stdin), binding, ctypes.CDLL(str(library)))))


if __name__ == "__main__":
    main()
