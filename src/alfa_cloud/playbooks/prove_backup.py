"""A back-up is proven: it is what it was, and can be restored."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.client import EnsureDatabase, EnsureFolder
from alfa_cloud.playbooks.steps.proof import (
    BorrowDump,
    CheckScratchSpace,
    CheckSeal,
    ClearScratch,
    EnsureLogin,
    RemoveScratch,
    RestoreScratch,
    scratch_of,
)
from alfa_cloud.specs import ClientSpec, Secret


def prove_backup(
    spec: ClientSpec, password: Secret, *, name: str, sha256: str, size_bytes: int, min_free_bytes: int
) -> Playbook:
    """A back-up was read whole and restored beside its client; nothing of that is left, whatever becomes of it.

    Args:
        password: of the scratch's own login; the same in every attempt of an operation.
    """
    scratch = scratch_of(spec)
    return Playbook(
        [
            CheckSeal(spec, name, sha256, size_bytes),
            CheckScratchSpace(spec, name, min_free_bytes),
            ClearScratch(scratch, password),
            EnsureFolder(scratch),
            EnsureDatabase(scratch, password),
            EnsureLogin(scratch, password),
            BorrowDump(spec, scratch, name),
            RestoreScratch(scratch, name),
            RemoveScratch(scratch, password),
        ]
    )
