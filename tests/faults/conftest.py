"""Faults are tried on the same engines and models as everything else."""

from tests.integration.conftest import engine_cache, engines

__all__ = ["engine_cache", "engines"]
