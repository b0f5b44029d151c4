"""What MkDocs builds besides the files in docs/: the READMEs and their like, and references made from the code.

Links between Markdown files are written for readers of the repository. Those that lead out of the site lose their
link and keep their text, after it was seen that their target exists.
"""

from __future__ import annotations

import argparse
import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

log = logging.getLogger("mkdocs.hooks.rwkvperf")

COPIED = {
    "README.md": "index.md",
    "README.zh.md": "zh/index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
}
"""Files of the repository that are pages of the site: where they are, and what they are there."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?:|mailto:|#)([^()\s]+)\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for source, page in COPIED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference/options.md", content=options_page()))
    files.append(File.generated(config, "reference/command.md", content=command_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' names
    """Make a page's links those of the site; code is left alone."""
    known = {file.src_uri for file in files}
    parts = _CODE.split(markdown)
    return "".join(part if index % 2 else relinked(part, page.file.src_uri, known) for index, part in enumerate(parts))


def relinked(text: str, page: str, known: set[str]) -> str:
    """A text of a page with links as the site has them."""
    sources = {made: place for place, made in COPIED.items()}
    folder = posixpath.dirname(sources.get(page, f"docs/{page}"))

    def replaced(match: re.Match[str]) -> str:
        image, label, link = match.groups()
        path, hash_mark, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(folder, path))
        inside = COPIED.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if inside in known:
            way = posixpath.relpath(inside, posixpath.dirname(page) or ".")
            return f"{image}[{label}]({way}{hash_mark}{anchor})"
        if not (ROOT / target).exists():
            # A result is recorded when its script has had a quiet machine; what it shows is described all the same.
            level = logging.INFO if target.startswith("benchmarks/") else logging.WARNING
            log.log(level, "%s: the link to %s leads nowhere", page, link)
        return label

    return _LINK.sub(replaced, text)


def options_page() -> str:
    """Every option of the plugin, from the code that declares them."""
    from pytest_rwkvperf.run.options import OPTIONS

    lines = [
        "# Options",
        "",
        "Made from the code. Each option has a twin for the ini file; the command line goes before it.",
        "Lists are separated by commas.",
        "",
    ]
    for option in OPTIONS:
        value = f"[={option.metavar}]" if option.bare is not None else f"={option.metavar}"
        lines += [
            f"## `{option.flag}`",
            "",
            f"`{option.flag}{value}` · ini `{option.ini}`",
            "",
            _sentence(option.help),
            "",
        ]
        if option.bare is not None:
            lines += [f"Without a value: `{option.bare}`.", ""]
        if option.default:
            lines += [f"Default: `{option.default}`.", ""]
        if option.repeatable:
            lines += ["May be repeated; in the ini file, one value on each line.", ""]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    """A help text as prose that Markdown takes literally."""
    return re.sub(r"([<>*_\[\]|])", r"\\\1", text[:1].upper() + text[1:]).rstrip(".") + "."


def command_page() -> str:
    """The `rwkvperf` command's own help, of every subcommand."""
    from pytest_rwkvperf.cli.main import parser

    lines = ["# The rwkvperf command", "", "Made from the code: what `--help` says.", ""]
    for depth, name, command in _parsers(2, "rwkvperf", parser()):
        lines += [f"{'#' * depth} `{name}`", "", "```text", command.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def _parsers(depth: int, name: str, parser: argparse.ArgumentParser) -> list[tuple[int, str, argparse.ArgumentParser]]:
    """A parser and those of its subcommands, by what a person types; `depth` is of the first one's heading."""
    found = [(depth, name, parser)]
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to its subparsers
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            for word, own in action.choices.items():
                found += _parsers(min(depth + 1, 4), f"{name} {word}", own)
    return found
