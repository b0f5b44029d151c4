"""What no unit test is about and half of them would pay for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.reports import html

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="session")
def no_library() -> Iterator[None]:
    """Pages without the charts' library, which takes two seconds to bundle; tests/integration has it in browsers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "_library", lambda: "window.vegaEmbed = null;")
        yield
