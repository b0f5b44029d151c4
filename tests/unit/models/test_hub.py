from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import hub
from pytest_rwkvperf.models.download import download

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.models.streams import Progress


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("hf:BlinkDL/rwkv7-g1/a.pth", hub.HubFile("hf", "BlinkDL/rwkv7-g1", "a.pth", None)),
        (
            "ms:zhiyuan8/RWKV-v7-2.9B-G1-GGUF/b/c.gguf",
            hub.HubFile("ms", "zhiyuan8/RWKV-v7-2.9B-G1-GGUF", "b/c.gguf", None),
        ),
        ("hf:a/b@v1.0/x y.st", hub.HubFile("hf", "a/b", "x y.st", "v1.0")),
    ],
)
def test_references(reference: str, expected: hub.HubFile) -> None:
    assert hub.parse(reference) == expected
    assert str(expected) == reference


@pytest.mark.parametrize("reference", ["model.pth", "", "synthetic:nano", "HF:a/b/c"])
def test_other_references_are_not_parsed(reference: str) -> None:
    assert hub.parse(reference) is None


@pytest.mark.parametrize(
    "reference",
    [
        "hf:",
        "hf:a",
        "hf:a/b",
        "hf:a/b/",
        "ms:a//c",
        "hf:a/b/../../x",
        "hf:/a/b/c",
        "hf:a/b@/c",
        "hf:a/b//c",
        "ms:a/b/..\\..\\c",
        "ms:a/b/C:/c",
    ],
)
def test_malformed_reference_is_refused(reference: str) -> None:
    with pytest.raises(ModelError, match="OWNER/REPO/FILE"):
        hub.parse(reference)


@pytest.mark.parametrize("name", hub.SHORT_NAMES)
def test_short_names_have_files_of_their_format(name: str) -> None:
    hub_file = hub.parse(name)
    assert hub_file is not None
    assert hub_file.file.lower().startswith(("rwkv7-g1-2.9b", "rwkv7-2.9b-g1"))
    assert hub_file.file.endswith(name[name.rfind(".") :] if name.endswith(("pth", "st", "gguf")) else ".pth")


def test_missing_client_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quiet: Progress
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"hf:a/b/c\.pth needs.*pip install huggingface_hub"):
        hub.fetch(hub.HubFile("hf", "a/b", "c.pth", None), tmp_path, quiet)


def test_an_endpoint_must_be_a_web_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quiet: Progress) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "file:///etc")
    with pytest.raises(ModelError, match=r"MODELSCOPE_ENDPOINT='file:///etc'"):
        hub.fetch(hub.HubFile("ms", "a/b", "c.pth", None), tmp_path, quiet)


def test_client_errors_are_reported_by_class_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = pytest.importorskip("huggingface_hub.errors")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    secret = "hf_secret"  # noqa: S105 - a made-up one
    for error, reason in (
        (errors.LocalEntryNotFoundError(secret), "cannot be reached"),
        (errors.OfflineModeIsEnabled(secret), "offline mode"),
        (OSError(28, "No space left on device"), "No space left"),
        (OSError(secret), "fewer bytes"),
        (RuntimeError(secret), "RuntimeError"),
    ):
        sentence = hub._reason(error)
        assert reason in sentence
        assert secret not in sentence


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on files there")
def test_full_disk_keeps_the_part_received(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quiet: Progress) -> None:
    import resource

    content, limit = bytes(3 << 20), 1 << 20
    body = io.BytesIO(content)
    answer = SimpleNamespace(status=200, headers={"ETag": '"e"', "Content-Length": str(len(content))}, read=body.read)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: nullcontext(answer))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ModelError, match=r"cannot be written to .*: File too large; the part received is kept"):
            download("https://hub/model.st", tmp_path / "model.st", "ms:a/b/model.st", quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / ".model.st.incomplete").stat().st_size == limit


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("https://huggingface.co/a/b/blob/main/sub/m.pth", "write hf:a/b/sub/m.pth"),
        ("https://huggingface.co/a/b/resolve/v1.0/m.pth?download=true", "write hf:a/b@v1.0/m.pth"),
        ("https://hf-mirror.com/a/b/resolve/main/m.st", "write hf:a/b/m.st"),
        ("https://modelscope.cn/models/a/b/file/view/master/m.gguf?status=2", "write ms:a/b/m.gguf"),
        ("https://www.modelscope.cn/models/a/b/resolve/master/m.gguf", "write ms:a/b/m.gguf"),
        ("https://example.org/m.pth", "download the file"),
    ],
)
def test_an_address_is_told_as_a_reference(address: str, advice: str) -> None:
    with pytest.raises(ModelError, match="is an address; ") as caught:
        hub.parse(address)
    assert str(caught.value).partition("; ")[2].startswith(advice)
