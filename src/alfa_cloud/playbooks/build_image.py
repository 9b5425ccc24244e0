"""An image is built on a server from a branch's commit."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.build import (
    BuildImage,
    CheckBuilder,
    CheckOut,
    CheckVersion,
    Fetch,
    FetchSource,
    MakeFrontend,
    RemoveBuild,
    ReportImage,
    TagImage,
)
from alfa_cloud.remote.build import BuildSpec
from alfa_cloud.specs import Secret


def build_image(spec: BuildSpec, key: Secret, *, min_free_bytes: int) -> Playbook:
    """The commit's image is on the server under its version; one that fails or is stopped leaves nothing."""
    fetch = Fetch(spec, key)
    frontend: list[Step] = [MakeFrontend(fetch)] if spec.source.frontend(spec.branch) else []
    return Playbook(
        [
            CheckBuilder(spec, min_free_bytes),
            FetchSource(fetch),
            CheckVersion(fetch),
            CheckOut(fetch),
            *frontend,
            BuildImage(fetch),
            TagImage(fetch),
            RemoveBuild(spec),
            ReportImage(fetch),
        ]
    )
