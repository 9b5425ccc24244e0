"""Lists: filters, order and pages, from an allow-list of columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import FieldError

MAX_ID: Final = 2**31 - 1
"""No row has a greater id: PostgreSQL's `integer` ends there."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list is asked for.

    Args:
        filters: by filter name; the values as they stood in the address.
        sort: (field, descending) in order.
        number: the page, from 1.
        size: rows on a page.
    """

    filters: Mapping[str, str] = field(default_factory=dict)
    sort: tuple[tuple[str, bool], ...] = ()
    number: int = 1
    size: int = 25


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of rows, and how many there are in all."""

    rows: list[T]
    total: int


class FilterError(FieldError):
    """A filter's value is of the wrong form: a wrong query parameter, not a wrong body."""

    status = 400
    code = "invalid_filter"


def parse_words(name: str, text: str, known: Iterable[str]) -> list[str]:
    """The words that a filter names.

    Raises:
        FilterError: one of them is none of the known ones.
    """
    parts, words = text.split(","), [str(word) for word in known]
    if not set(parts) <= set(words):
        raise FilterError(name, f"Give any of these, separated by commas: {', '.join(words)}.")
    return parts


def parse_ids(name: str, text: str) -> list[int]:
    """The ids that a filter names.

    Raises:
        FilterError: they are not whole numbers, separated by commas.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and part.isascii() and len(part) <= 9 for part in parts):
        raise FilterError(name, "Give ids as whole numbers, separated by commas.")
    return [int(part) for part in parts]


def parse_uuids(name: str, text: str) -> list[UUID]:
    """The ids that a filter names.

    Raises:
        FilterError: they are not UUIDs, separated by commas.
    """
    try:
        return [UUID(part) for part in text.split(",")]
    except ValueError as error:
        raise FilterError(name, "Give ids as UUIDs, separated by commas.") from error


def escape_like(value: str) -> str:
    """Text for LIKE in which no character is a wildcard."""
    return value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def fetch_page(
    session: AsyncSession,
    query: Select[Any],
    asked: ListQuery,
    *,
    sorts: Mapping[str, Any],
    default: tuple[tuple[str, bool], ...],
    tie: Any,
) -> Page[Any]:
    """One page of a query, in a total order: ties are broken by `tie`."""
    total = await session.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
    order = [
        sorts[name].desc().nulls_last() if down else sorts[name].asc().nulls_last()
        for name, down in asked.sort or default
    ]
    rows = await session.scalars(query.order_by(*order, tie).limit(asked.size).offset((asked.number - 1) * asked.size))
    return Page(list(rows), total or 0)
