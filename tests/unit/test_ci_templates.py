"""The CI templates: their options exist, and they follow the schemas of GitHub and GitLab."""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pytest_rwkvperf.cli import main
from pytest_rwkvperf.environments import sources
from pytest_rwkvperf.run.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CI = ROOT / "docs" / "ci"
GITHUB = ("--builtin-schema", "vendor.github-workflows")
GITLAB = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")


def scripts(node: Any) -> Iterator[str]:  # noqa: ANN401 - YAML
    """Every shell script of a template."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in {"run", "script", "before_script"}:
                yield from [value] if isinstance(value, str) else value
            else:
                yield from scripts(value)
    elif isinstance(node, list):
        for item in node:
            yield from scripts(item)


@pytest.mark.parametrize(("name", "count"), [("github.yml", 2), ("github-hosted.yml", 1), ("gitlab.yml", 2)])
def test_every_option_in_a_template_is_understood(name: str, count: int, pytester: pytest.Pytester) -> None:
    text = (CI / name).read_text(encoding="utf-8")
    runs = [
        line
        for script in scripts(yaml.safe_load(text))
        for line in re.split(r"(?<!\\)\n", script)
        if "pytest -" in line
    ]
    assert len(runs) == count
    for run in runs:
        arguments = shlex.split(run.replace("\\\n", " ").replace("$SAVE", "append"))
        config = pytester.parseconfig(*arguments[arguments.index("pytest") + 1 :])
        settings = read_settings(config)
        assert settings.reports
        # A gate that asks for `all` fails for ever on an engine that the template does not install.
        assert f"pytest-rwkvperf[{settings.backend}]" in text
        config._ensure_unconfigure()


def test_the_engines_template_compares_two_commits(pytester: pytest.Pytester) -> None:
    template = yaml.safe_load((CI / "engine-pull-request.yml").read_text(encoding="utf-8"))
    (command,) = (line for line in scripts(template) if "rwkvperf ab" in line)
    assert "${{" not in command
    _, *arguments = shlex.split(command.replace("$BASE", "a" * 40).replace("$HEAD", "b" * 40))
    at = arguments.index("--")
    asked = main.parser().parse_args(arguments[:at])
    assert sources.in_repository(asked.old, asked.repo) == f".@{'a' * 40}"
    assert sources.in_repository(asked.new, asked.repo) == f".@{'b' * 40}"
    assert read_settings(pytester.parseconfig(*arguments[at + 1 :])).reports


def test_releases_are_published_without_a_stored_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert "secrets." not in text
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"]["name"] == "pypi", "people can be asked before it runs"
    assert not [step for step in jobs["publish"]["steps"] if "run" in step], "nothing of ours runs with that right"
    assert "permissions" not in jobs["build"]


def test_github_template_gives_each_job_only_the_permissions_it_needs() -> None:
    template = yaml.safe_load((CI / "github.yml").read_text(encoding="utf-8"))
    assert template["permissions"] == {"contents": "read"}
    assert "permissions" not in template["jobs"]["gate"]
    assert not [line for line in scripts(template) if "${{" in line], "an expression in a script is an injection"


@pytest.mark.parametrize(
    ("path", "schema", "mistake"),
    [
        (CI / "github.yml", GITHUB, ("timeout-minutes:", "timeout-minuts:")),
        (CI / "github-hosted.yml", GITHUB, ("timeout-minutes:", "timeout-minuts:")),
        (CI / "engine-pull-request.yml", GITHUB, ("timeout-minutes:", "timeout-minuts:")),
        (ROOT / ".github" / "workflows" / "ci.yml", GITHUB, ("runs-on:", "run-on:")),
        (ROOT / ".github" / "workflows" / "release.yml", GITHUB, ("runs-on:", "run-on:")),
        (CI / "gitlab.yml", GITLAB, ("when: manual", "when: sometimes")),
    ],
    ids=["github", "hosted", "engine", "own", "release", "gitlab"],
)
def test_templates_follow_the_published_schemas(
    path: Path, schema: tuple[str, ...], mistake: tuple[str, str], tmp_path: Path
) -> None:
    if find_spec("check_jsonschema") is None:
        reason = "check-jsonschema, which brings the schemas, is not installed; `make setup` does it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    text = path.read_text(encoding="utf-8")
    wrong = tmp_path / path.name
    wrong.write_text(text.replace(*mistake), encoding="utf-8")
    from check_jsonschema import main
    from click.testing import CliRunner

    results = [CliRunner().invoke(main, [*schema, str(file)]) for file in (path, wrong)]
    assert [result.exit_code for result in results] == [0, 1], results[0].output
