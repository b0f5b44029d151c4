"""Text from outside: secrets and terminal sequences are removed, ordinary sentences stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.text import counted, did_you_mean, is_secret, printable, redacted, safe, without_passwords

TOKENS = [
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "A1b2_" * 8,
    "hf_" + "AbCd" * 8,
    "glpat-" + "x1y2-" * 5,
    "sk-" + "proj-" + "0aZ9" * 8,
    "AKIA" + "ABCD1234EFGH5678",
    "xoxb-" + "123456789012-abcdef",
    "pypi-" + "AgEIcHlwaS5vcmc" * 2,
    "eyJhbGciOiJIUzI1NiIsInR5cCI6" + ".eyJzdWIiOiIx.SflKxwRJSMeKK",
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("sentence", ["error: {} is refused", "token={}", "'{}'", "{}"])
def test_tokens_are_redacted(token: str, sentence: str) -> None:
    text = redacted(sentence.format(token), {})
    assert token[6:] not in text
    assert "[redacted]" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hunter2@hub.example/x", "https://[redacted]@hub.example/x"),
        ("/x Authorization: Bearer abcdef123456abcdef", "/x Authorization: Bearer [redacted]"),
        ("x\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\ny", "x\n[redacted]\ny"),
    ],
)
def test_passwords_in_addresses_and_headers_and_private_keys_are_redacted(text: str, shown: str) -> None:
    assert redacted(text, {}) == shown


def test_values_of_secret_variables_become_their_names() -> None:
    environment = {"MY_API_TOKEN": "correct horse", "DB_PASSWORD": "staple", "EDITOR": "battery", "A_TOKEN": "4"}
    text = redacted("correct horse battery staple, 4 of them", environment)
    assert text == "[MY_API_TOKEN] battery [DB_PASSWORD], 4 of them"


@pytest.mark.parametrize(
    "name",
    ["GITHUB_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OPENAI_API_KEY", "PGPASSWORD",
     "npm_token",
     "AZURE_STORAGE_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "SIGNING_KEY", "DEPLOY_KEYS", "CI_JOB_TOKEN",
     "DOCKER_AUTH_CONFIG",
     "APIKEY", "GITLAB_PAT"],
)  # fmt: skip
def test_names_of_secrets_are_recognised(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "CUDA_VISIBLE_DEVICES", "GIT_AUTHOR_NAME", "KEYBOARD", "PWD", "OLDPWD", "MONKEY", "PATTERN"],
)
def test_other_names_are_not_secret(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    "sentence",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "GGML_ASSERT(index < device_count()) failed",
        "llama-cpp | synthetic:nano | q8_0 | cpu | threads=2 chunk=512",
        "a" * 64,
        "https://host.example/path?x=1",
        "basic block of 1234567 tokens",
    ],
)
def test_ordinary_sentences_are_unchanged(sentence: str) -> None:
    assert safe(sentence) == sentence


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07x", "\\x1b[2J\\x1b]0;title\\x07x"),
        ("a\rb\nc", "a\\rb\\nc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("m\udcff.pth", "m\\udcff.pth"),
        ("龙 für ½", "龙 für ½"),
    ],
)
def test_control_characters_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_characters_can_be_kept() -> None:
    assert printable("a\n\tb\x07", keep="\n\t") == "a\n\tb\\x07"


@given(st.text(st.characters()))
def test_any_text_becomes_one_printable_line_that_can_be_encoded(text: str) -> None:
    shown = safe(text)
    assert shown.isprintable()
    shown.encode()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1))
def test_passwords_are_removed_from_a_command(password: str) -> None:
    text = without_passwords(f"--rwkv-history=postgresql://me:{password}@host/db?sslmode=require")
    assert text == "--rwkv-history=postgresql://me:***@host/db?sslmode=require"


def test_other_arguments_are_unchanged() -> None:
    for text in ("--rwkv-model=hf:owner/repo@main/file.pth", "-k", "tests/a.py::b[c:d@e]", "https://host:80/path"):
        assert without_passwords(text) == text
    assert without_passwords("postgresql://host/db?user=me&password=hush&a=b") == (
        "postgresql://host/db?user=me&password=***&a=b"
    )


@pytest.mark.parametrize(("count", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_a_noun_has_its_number(count: int, text: str) -> None:
    assert counted(count, "run") == text


@pytest.mark.parametrize(
    ("text", "meant"), [("inconclusiv", "inconclusive"), ("SKIP", "skip"), ("never", ""), ("", "")]
)
def test_a_misspelt_name_is_asked_back(text: str, meant: str) -> None:
    known = ("skip", "no-baseline", "inconclusive")
    assert did_you_mean(text, known) == (f" (did you mean {meant!r}?)" if meant else "")
