"""MkDocs hooks: add the READMEs and their like to the pages of docs/, and adapt links to the site.

Links between Markdown files are written for readers of the repository. A link to a file that is no page of the site
becomes plain text; a link to a file that does not exist is a warning, and so an error of `mkdocs build --strict`.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

log = logging.getLogger("mkdocs.hooks.rwkvperf")

COPIED = {
    "README.md": "index.md",
    "README.zh.md": "zh/index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
}
"""Files outside docs/ that become pages of the site, with the pages' names."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?:|mailto:|#)([^()\s]+)\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/."""
    from mkdocs.structure.files import File  # here, so that the tests need no MkDocs

    for source, page in COPIED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' names
    """Adapt a page's links to the site, except in code."""
    return adapted(markdown, page.file.src_uri, {file.src_uri for file in files})


def adapted(markdown: str, page: str, known: set[str]) -> str:
    """A page whose links outside of code are those of the site; `known` are the site's pages."""
    parts = _CODE.split(markdown)
    return "".join(part if index % 2 else relinked(part, page, known) for index, part in enumerate(parts))


def relinked(text: str, page: str, known: set[str]) -> str:
    """Text of a page with its links adapted to the site."""
    sources = {name: source for source, name in COPIED.items()}
    folder = posixpath.dirname(sources.get(page, f"docs/{page}"))

    def replaced(match: re.Match[str]) -> str:
        image, label, link = match.groups()
        path, hash_mark, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(folder, path))
        inside = COPIED.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if inside in known:
            relative = posixpath.relpath(inside, posixpath.dirname(page) or ".")
            return f"{image}[{label}]({relative}{hash_mark}{anchor})"
        if not (ROOT / target).exists():
            log.warning("%s: the link to %s leads nowhere", page, link)
        return label

    return _LINK.sub(replaced, text)
