"""Commands on a practice server, which each test begins with in good order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from alfa_cloud.sandbox.practice import PracticeServer


@pytest.fixture(autouse=True)
def no_faults(practice: PracticeServer) -> Iterator[None]:
    """Each test begins with a server that works."""
    practice.clear_faults()
    yield
    practice.clear_faults()
