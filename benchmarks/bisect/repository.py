"""Make a git repository of llama.cpp with synthetic commits, of which one is slower, to try a bisection on.

The source is the real one that llama-cpp-python's sdist brings. After the first commit come, in an order that the seed
decides: one commit that makes RWKV-7's operator slower (it leaves the SIMD code of ggml's CPU kernel `wkv7`), one that
does not compile and one that gives wrong answers, each repaired by the commit after it, one that changes a comment
alone, and harmless edits of code, build files and documents.

    pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36
    python benchmarks/bisect/repository.py llama_cpp_python-0.3.36.tar.gz /tmp/llama.cpp --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

COMMITS = 24
"""With the first one."""

_INSIDE = "vendor/llama.cpp/"
_KERNEL = "ggml/src/ggml-cpu/ops.cpp"
_OPERATOR = "static void ggml_compute_forward_rwkv_wkv7_f32("

_SIMD = "    #if defined(GGML_SIMD)\n        #if defined(__ARM_FEATURE_SVE)"
_STRIDE = "int64_t t_stride = HEADS * head_size;"
_B = "float * b = (float *) dst->src[5]->data;"


@dataclass(frozen=True, slots=True)
class Edit:
    """One commit: text of a file that is replaced, after a mark if there is one; appended where nothing is."""

    kind: str
    subject: str
    file: str
    old: str
    new: str
    after: str = ""


SLOWER = Edit(
    "slower", "ggml-cpu : one code path for wkv7", _KERNEL, _SIMD, _SIMD.replace("defined(GGML_SIMD)", "0"), _OPERATOR
)
UNBUILDABLE = (
    Edit("unbuildable", "ggml-cpu : rename a stride", _KERNEL, _STRIDE, _STRIDE.replace("size;", "sise;"), _OPERATOR),
    Edit("harmless", "ggml-cpu : fix the build", _KERNEL, _STRIDE.replace("size;", "sise;"), _STRIDE, _OPERATOR),
)
WRONG = (
    Edit("wrong", "ggml-cpu : simplify the operands of wkv7", _KERNEL, _B, _B.replace("[5]", "[4]"), _OPERATOR),
    Edit("harmless", "ggml-cpu : read wkv7's last operand again", _KERNEL, _B.replace("[5]", "[4]"), _B, _OPERATOR),
)
NOTHING = Edit("nothing", "ggml-cpu : spell a comment", _KERNEL, "// Same to C", "// the same as C", _OPERATOR)
_HARMLESS = (
    ("src/llama.cpp", "\nint llama_unused_%d(void);\nint llama_unused_%d(void) { return %d; }\n"),
    ("ggml/src/ggml.c", "\nint ggml_unused_%d(void);\nint ggml_unused_%d(void) { return %d; }\n"),
    ("README.md", "\nNote %d.\n"),
    ("ggml/src/ggml-cpu/vec.cpp", "\nint ggml_vec_unused_%d(void);\nint ggml_vec_unused_%d(void) { return %d; }\n"),
    ("src/llama-vocab.cpp", "\nint llama_vocab_unused_%d(void);\nint llama_vocab_unused_%d(void) { return %d; }\n"),
)


def edits(seed: int) -> list[Edit]:
    """What the commits after the first one do, in order."""
    source = random.Random(seed)
    units: list[tuple[Edit, ...]] = [(SLOWER,), UNBUILDABLE, WRONG, (NOTHING,)]
    while sum(map(len, units)) < COMMITS - 1:
        number = len(units)
        file, text = _HARMLESS[number % len(_HARMLESS)]
        units.append(
            (Edit("harmless", f"{Path(file).name} : change {number}", file, "", text.replace("%d", str(number))),)
        )
    while True:
        source.shuffle(units)
        ordered = [edit for unit in units for edit in unit]
        # BAD itself must build and give right answers.
        if ordered[-1].kind == "harmless":
            return ordered


def unpacked(sdist: Path, folder: Path) -> Path:
    """llama.cpp's source out of llama-cpp-python's sdist, below a folder."""
    with tarfile.open(sdist) as archive:
        top = archive.getnames()[0].partition("/")[0]
        inside = f"{top}/{_INSIDE}"
        archive.extractall(folder, [m for m in archive.getmembers() if m.name.startswith(inside)], filter="data")
    (folder / inside / ".git").unlink(missing_ok=True)  # it leads to the repository that it was a submodule of
    return folder / inside


def make(sdist: Path, target: Path, seed: int) -> list[dict[str, str]]:
    """Make the repository; returns each commit with its kind, oldest first."""
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        unpacked(sdist, Path(temporary)).rename(target)
    _git(target, "init", "--quiet", "--initial-branch=main")
    made = [_commit(target, "base", "llama.cpp as llama-cpp-python brings it")]
    for edit in edits(seed):
        _apply(target, edit)
        made.append(_commit(target, edit.kind, edit.subject))
    return made


def _apply(target: Path, edit: Edit) -> None:
    path = target / edit.file
    text = path.read_text(encoding="utf-8")
    if not edit.old:
        path.write_text(text + edit.new, encoding="utf-8")
        return
    at = text.index(edit.old, text.index(edit.after))
    path.write_text(text[:at] + edit.new + text[at + len(edit.old) :], encoding="utf-8")


def _commit(target: Path, kind: str, subject: str) -> dict[str, str]:
    _git(target, "add", "--all", "--force")
    _git(target, "commit", "--quiet", "--message", subject)
    return {"commit": _git(target, "rev-parse", "HEAD").strip(), "kind": kind, "subject": subject}


def _git(folder: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _NOBODY.items()}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env={**os.environ, **who}, capture_output=True, text=True, check=True).stdout


_NOBODY = {"NAME": "nobody", "EMAIL": "nobody@example.org", "DATE": "2026-01-01T00:00:00Z"}
"""Fixed, so that a seed always makes the same commits."""


def main() -> None:
    """Make the repository and print its commits as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(make(options.sdist, options.target, options.seed), indent=1))


if __name__ == "__main__":
    main()
