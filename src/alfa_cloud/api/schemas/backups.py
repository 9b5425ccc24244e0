"""Back-ups, as they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from alfa_cloud.api.jsonapi.documents import Attributes, Collection, Document, Resource
from alfa_cloud.models import Backup


class BackupAttributes(Attributes):
    """A client's database and files as they were at one moment."""

    reason: Literal["command", "schedule", "restore", "final"] = Field(
        description="Why it was made; `restore` is what was there before another one was restored, `final` the archive "
        "of a deleted client."
    )
    version: str = Field(description="Of the application whose data it is.", examples=["1.4.2-master"])
    tables: dict[str, int] = Field(description="The rows of each table.", examples=[{"users": 12, "samples": 25}])
    files_count: int = Field(examples=[340])
    files_bytes: int = Field(examples=[52_428_800])
    size_bytes: int = Field(description="Of the file that is downloaded.", examples=[18_874_368])
    sha256: str = Field(description="Of the same.")
    created_at: datetime
    keep_until: datetime | None = Field(description="When it may be removed; null where a rule decides.")
    checked_at: datetime | None = Field(description="When it was last read whole.")
    proven_at: datetime | None = Field(description="When it was last restored into a scratch database, and was whole.")
    proof_error: str = Field(description="What the last look found wrong; empty where nothing.")
    download_url: str | None = Field(
        None,
        description="Where the file is got without a login, once the back-up is asked for by its id; null in a list. "
        "Whoever has it gets the file: keep it out of logs.",
        examples=[
            "/clients/1/backups/019aa5e0-6a0d-7a3c-8f0e-3d1f0b8f2a11/file?expires=1799999999&signature=5d41402abc4b2a76"
        ],
    )
    download_expires_at: datetime | None = Field(None, description="Until when; ask again for a new one.")


class BackupResource(Resource[Literal["backups"], BackupAttributes]):
    """A back-up; its id is that of the operation that made it."""


class BackupDocument(Document[BackupResource]):
    """One back-up."""


class BackupCollection(Collection[BackupResource]):
    """A page of a client's back-ups."""


def backup_resource(row: Backup, download: tuple[str, datetime] | None = None) -> BackupResource:
    """A back-up as a resource object.

    Args:
        download: where its file is got, and until when.
    """
    link = f"/clients/{row.client_id}/backups/{row.id}"
    attributes = BackupAttributes.model_validate(row)
    if download is not None:
        url, until = download
        attributes = attributes.model_copy(update={"download_url": url, "download_expires_at": until})
    return BackupResource.make(row.id, attributes, link=link)
