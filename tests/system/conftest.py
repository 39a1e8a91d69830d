"""What system tests share with acceptance tests: the variables of a worker."""

from __future__ import annotations

from tests.acceptance.conftest import environment

__all__ = ["environment"]
