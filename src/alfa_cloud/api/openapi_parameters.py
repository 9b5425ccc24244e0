"""What the parameters of the OpenAPI document mean, each with an example: filters of lists, ids, our own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from alfa_cloud.api.jsonapi.query import parameter, words
from alfa_cloud.specs import ClientStatus, DatabaseEngine, OperationKind, OperationState, ServerRole

Schema = dict[str, Any]

_FLAG: Final[Schema] = {"type": "boolean", "examples": [True]}
_DAY: Final[Schema] = {"type": "string", "format": "date", "examples": ["2027-01-31"]}


def _by_comma(one: str, example: str) -> Schema:
    """The schema of values of this pattern, separated by commas."""
    return {"type": "string", "pattern": f"^{one}(,{one})*$", "examples": [example]}


def _known(known: Iterable[str], *examples: str) -> Schema:
    return words([str(word) for word in known], *examples)


_OPERATION_ID: Final = "019aa5e0-6a0d-7a3c-8f0e-3d1f0b8f2a11"

FILTERS: Final[dict[str, tuple[Schema, str]]] = {
    "q": ({"type": "string", "examples": ["hema"]}, "A part of the name, title, domain or e-mail."),
    "status": (_known(ClientStatus, "active"), "Any of these; archived ones are hidden unless asked for."),
    "server": (_by_comma("[0-9]{1,9}", "1,2"), "On any of these servers."),
    "image": (_by_comma("[^,]+", "master"), "Asked to run any of these images or channels."),
    "version": (_by_comma("[^,]+", "1.4.2-master"), "Running any of these versions."),
    "available": (_FLAG, "Whether the application is healthy."),
    "maintenance": (_FLAG, "Whether the maintenance page is shown."),
    "demo": (_FLAG, "Whether the demo data is in it."),
    "blocked": (_FLAG, "Whether it is shut since its term ended."),
    "migration_pending": (_FLAG, "Whether it runs an image that it was not migrated for."),
    "expires_before": (_DAY, "With a last day of use before this one."),
    "expires_after": (_DAY, "With a last day of use after this one."),
    "backup_older_than": (_DAY, "Without a back-up since the beginning (UTC) of this day."),
    "active": (
        {"type": "string", "enum": ["true", "false", "all"], "examples": ["all"]},
        "Whether new clients may be placed on it; the active ones, where nothing is said.",
    ),
    "role": (_known(ServerRole, "production"), "Any of these."),
    "database_engine": (_known(DatabaseEngine, "mariadb"), "Any of these."),
    "state": (_known(OperationState, "queued", "running"), "Any of these."),
    "kind": (_known(OperationKind, "create_client"), "Any of these."),
    "client": (_by_comma("[0-9]{1,9}", "1,2"), "About any of these clients."),
    "parent": (
        _by_comma("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", _OPERATION_ID),
        "Children of any of these operations.",
    ),
}
"""The filters of all lists: one name means the same wherever it is taken."""

PARAMETERS: Final[dict[str, tuple[Any, str]]] = {
    "client_id": (1, "The client's id."),
    "server_id": (1, "The server's id."),
    "operation_id": (_OPERATION_ID, "The operation's id."),
    "backup_id": (_OPERATION_ID, "The back-up's id: that of the operation that made it."),
    "image_name": ("1.4.2-master", "A tag, REPOSITORY:TAG, or a channel: `dev`, `master`."),
    "wait_s": (30, ""),
    "dry_run": (True, ""),
    "after_seq": (17, ""),
    "follow_log": (True, ""),
    "tail_lines": (200, "How many of the last lines."),
    "last_hours": (48, ""),
    "page_text": ("До 18:00", ""),
    "ends_at": ("2030-01-31T18:00:00Z", ""),
    "run_migrate": (True, "Migrate too, as one operation."),
    "restart_all": (True, ""),
    "new_password": (True, ""),
    "restore_backup": (True, ""),
    "confirm_loss": (True, ""),
    "keep_archive": (True, ""),
    "scrub": (True, ""),
    "max_parallel": (4, ""),
    "canary_count": (1, ""),
    "max_failures": (2, ""),
}
"""An example of each, and what is said where an endpoint says nothing."""


def complete_parameter(described: Schema) -> Schema:
    """The parameter with what its name means, and an example; one in a path is filled in by Swagger UI."""
    if "$ref" in described:
        return described
    name = described["name"]
    if name.startswith("filter["):
        schema, text = FILTERS.get(name[7:-1], (described["schema"], ""))
        return parameter(name, schema, described.get("description") or text)
    example, text = PARAMETERS.get(name, (None, ""))
    schema = _without_null(described["schema"])
    described = {**described, "schema": schema}
    if text and not described.get("description"):
        described["description"] = text
    if described["in"] == "path":
        return described if example is None else {**described, "example": example}
    if example is not None and "examples" not in schema:
        schema["examples"] = [example]
    return described


def _without_null(schema: Schema) -> Schema:
    """A parameter that is not given is absent: no value of it is null."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    return {**kinds[0], **rest} if len(kinds) == 1 else dict(schema)
