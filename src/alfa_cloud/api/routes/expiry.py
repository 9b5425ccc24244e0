"""The last day of a client's use."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from alfa_cloud.api.after import Ending
from alfa_cloud.api.dependencies import CallerDep, IntId, SessionDep
from alfa_cloud.api.jsonapi.body import Body, command_body
from alfa_cloud.api.jsonapi.query import Listing, lists
from alfa_cloud.api.routes.clients import ClientDocument, client_document
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.schemas.expiry import ExpireDateChange, ExpireDateCollection, expire_date_resource
from alfa_cloud.api.state import Ask, AskDep
from alfa_cloud.services import clients, expiry

router = ApiRouter(tags=["clients"])

ExpireDateBody = Annotated[
    Body[Any],
    command_body(ExpireDateChange, example={"expire_date": "2027-12-31", "comment": "Договор № 17 продлён"}),
]
HistoryListing = Annotated[Listing, lists()]


@router.post("/clients/{client_id}/expire_date")
async def set_expire_date(
    client_id: IntId, sent: ExpireDateBody, session: SessionDep, caller: CallerDep, ask: AskDep
) -> ClientDocument:
    """Set the last day of use; null is without end. The date counts at once; the relationship `operation` brings it to
    the server in a second: from the day after it a page stands for the client, and a later date takes that away.
    """
    change = sent.value
    row, operation = await expiry.change(session, client_id, change.expire_date, change.comment, caller)
    if operation is not None:
        operation_id = operation.id
        ask.follow(operation_id, lambda: _client_after(ask, operation_id, client_id))
    return await client_document(session, row)


async def _client_after(ask: Ask, operation_id: UUID, client_id: int) -> Ending | None:
    await ask.ended(operation_id)
    async with ask.services.sessions() as session:
        return 200, await client_document(session, await clients.get_client(session, client_id))


@router.get("/clients/{client_id}/expire_dates_history")
async def list_expire_dates(client_id: IntId, session: SessionDep, listing: HistoryListing) -> ExpireDateCollection:
    """Every change of the last day of use, the newest first: old, new, when, who, and why."""
    page = await expiry.list_changes(session, client_id, listing.query)
    return ExpireDateCollection.of(map(expire_date_resource, page.rows), listing, page.total)
