"""What a worker gets of the environment: what engines read, and no secret unless a person names it."""

from __future__ import annotations

import pytest

from pytest_rwkvperf.worker.environment import MORE_VARIABLES, allowed_variables


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "VK_DRIVER_FILES",
     "RWKV_CUDA_ON", "LC_ALL", "SYSTEMROOT", "XDG_CACHE_HOME", "WGPU_BACKEND", "GGML_VK_VISIBLE_DEVICES"],
)  # fmt: skip
def test_variables_of_engines_and_systems_are_passed(name: str) -> None:
    assert allowed_variables({name: "1"}) == {name: "1"}


@pytest.mark.parametrize(
    "name",
    ["GITHUB_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "CI_JOB_TOKEN", "HTTPS_PROXY", "SSH_AUTH_SOCK", "PGPASSWORD",
     "ANYTHING", "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "COVERAGE_PROCESS_START", "COV_CORE_SOURCE", "PYTEST_ADDOPTS",
     "LD_AUDIT_TOKEN", "CUDA_API_KEY"],
)  # fmt: skip
def test_secrets_and_slowing_variables_are_not_passed(name: str) -> None:
    assert allowed_variables({name: "1"}) == {}


def test_variables_named_by_the_user_are_passed() -> None:
    source = {MORE_VARIABLES: "MYENGINE_*, HF_TOKEN", "MYENGINE_MODE": "fast", "HF_TOKEN": "hf_x", "OTHER": "1"}
    assert allowed_variables(source) == {"MYENGINE_MODE": "fast", "HF_TOKEN": "hf_x"}
