"""The embedded stores: a PostgreSQL and a Redis that live in a data folder and die with their process."""

from __future__ import annotations

from alfa_cloud.sandbox.child import SandboxError
from alfa_cloud.sandbox.postgres import EmbeddedPostgres
from alfa_cloud.sandbox.redis import EmbeddedRedis

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "SandboxError"]
