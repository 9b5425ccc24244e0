"""Query parameters: what a list may be asked for, and 400 for everything that nobody declared.

A route declares its list once:

    ServerListing = Annotated[Listing, lists(filters=("active",), sorts=("name", "created_at"), sort="name")]
    ServerIncludes = Annotated[frozenset[str], includes("operation")]
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Depends
from starlette.datastructures import QueryParams
from starlette.requests import Request

from alfa_cloud.api.jsonapi.errors import Problem, RequestError, bad_parameter
from alfa_cloud.services.listing import ListQuery

DEFAULT_PAGE_SIZE: Final = 25
MAX_PAGE_SIZE: Final = 200
MAX_PAGE_NUMBER: Final = 10**9
MAX_PARAMETERS: Final = 50
MAX_VALUE_LENGTH: Final = 4000

_BRACKETS: Final = re.compile(r"(filter|fields)\[([A-Za-z0-9_-]{1,64})\]")
_NUMBER: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list was asked for, and the address it was asked at."""

    query: ListQuery
    include: frozenset[str]
    path: str
    parameters: tuple[tuple[str, str], ...]

    def links(self, total: int) -> dict[str, str]:
        """Links to the pages around this one; one that leads nowhere is absent."""
        number, last = self.query.number, max(1, math.ceil(total / self.query.size))
        pages = {"self": number, "first": 1, "last": last}
        if number > 1:
            pages["prev"] = min(number - 1, last)
        if number < last:
            pages["next"] = number + 1
        return {name: self._page(page) for name, page in pages.items()}

    def _page(self, number: int) -> str:
        others = [(name, value) for name, value in self.parameters if name not in ("page[number]", "page[size]")]
        page = [("page[number]", str(number)), ("page[size]", str(self.query.size))]
        return f"{quote(self.path)}?{urlencode([*others, *page], safe='[],')}"


@dataclass(frozen=True)
class ListReader:
    """Reads the parameters of a list by its allow-lists.

    Args:
        sort: the order where none is asked for; a leading `-` is descending.
        paged: whether a page of it is answered; else all of it is chosen.
    """

    filters: tuple[str, ...]
    sorts: tuple[str, ...]
    sort: str
    includes: tuple[str, ...]
    paged: bool = True

    async def __call__(self, request: Request) -> Listing:
        """What this request asks for.

        Raises:
            RequestError: 400, for every parameter that is wrong.
        """
        given, problems = request.query_params, list[Problem]()
        number = _page_number(given, "page[number]", 1, MAX_PAGE_NUMBER, problems)
        size = _page_number(given, "page[size]", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, problems)
        sort = tuple(_sort(given.get("sort", self.sort), self.sorts, problems))
        include = _include(given, self.includes, problems)
        filters = {name: given[f"filter[{name}]"] for name in self.filters if f"filter[{name}]" in given}
        if problems:
            raise RequestError(*problems)
        query = ListQuery(filters=filters, sort=sort, number=number, size=size)
        return Listing(query, include, request.url.path, tuple(given.multi_items()))

    def names(self) -> frozenset[str]:
        """The parameters it knows."""
        own = {f"filter[{name}]" for name in self.filters} | ({"page[number]", "page[size]"} if self.paged else set())
        return frozenset(own | ({"sort"} if self.sorts else set()) | ({"include"} if self.includes else set()))

    def openapi(self) -> list[dict[str, Any]]:
        """The parameters, as an OpenAPI document describes them; a filter's values are told by its resource."""
        number = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_NUMBER, "default": 1, "examples": [1]}
        size = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE}
        described = [
            parameter("page[number]", number, "The page, from 1."),
            parameter("page[size]", {**size, "examples": [50]}, "Rows on a page."),
        ]
        if not self.paged:
            described = []
        if self.sorts:
            described.append(sort_openapi(self.sorts, self.sort))
        described += [parameter(f"filter[{name}]", {"type": "string"}) for name in self.filters]
        return described + include_openapi(self.includes)


@dataclass(frozen=True)
class IncludeReader:
    """Reads `include` where one resource is answered."""

    includes: tuple[str, ...]

    async def __call__(self, request: Request) -> frozenset[str]:
        """The relationships whose resources are wanted too.

        Raises:
            RequestError: 400, one that cannot be included.
        """
        problems: list[Problem] = []
        include = _include(request.query_params, self.includes, problems)
        if problems:
            raise RequestError(*problems)
        return include

    def names(self) -> frozenset[str]:
        """The parameters it knows."""
        return frozenset({"include"})

    def openapi(self) -> list[dict[str, Any]]:
        """The parameters, as an OpenAPI document describes them."""
        return include_openapi(self.includes)


def lists(
    *, filters: Iterable[str] = (), sorts: Iterable[str] = (), sort: str = "", include: Iterable[str] = ()
) -> Any:
    """A dependency that gives a `Listing`; everything it does not name is 400."""
    return Depends(ListReader(tuple(filters), tuple(sorts), sort, tuple(include)))


def chooses(*filters: str) -> Any:
    """A dependency that gives a `Listing` of a command's targets: filters, and no pages."""
    return Depends(ListReader(filters, (), "", (), paged=False))


def includes(*names: str) -> Any:
    """A dependency that gives the `include` of one resource as a frozenset."""
    return Depends(IncludeReader(names))


def check_names(given: QueryParams, known: Iterable[str], types: Mapping[str, frozenset[str]]) -> None:
    """Every query parameter is known and given once.

    Args:
        types: the fields of each resource type that can be in the answer.

    Raises:
        RequestError: 400, for every one that is not.
    """
    names, allowed = [name for name, _ in given.multi_items()], set(known)
    if len(names) > MAX_PARAMETERS:
        raise RequestError(bad_parameter(names[-1], f"At most {MAX_PARAMETERS} query parameters are taken."))
    allowed |= {f"fields[{name}]" for name in types}
    problems = [_unknown(name, allowed) for name in dict.fromkeys(names) if name not in allowed]
    problems += [bad_parameter(n, "Give it once.") for n in dict.fromkeys(names) if n in allowed and names.count(n) > 1]
    for name, value in given.multi_items():
        if len(value) > MAX_VALUE_LENGTH or "\0" in value:
            problems.append(bad_parameter(name, f"At most {MAX_VALUE_LENGTH} characters, none of them NUL."))
    if problems:
        raise RequestError(*problems[:20])


def fieldsets(given: QueryParams, types: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The fields wanted of each resource type that `fields[...]` names.

    Raises:
        RequestError: 400, a field that the type does not have.
    """
    wanted: dict[str, frozenset[str]] = {}
    problems: list[Problem] = []
    for type_, fields in types.items():
        name = f"fields[{type_}]"
        if name not in given:
            continue
        wanted[type_] = frozenset(filter(None, given[name].split(",")))
        if wanted[type_] - fields:
            problems.append(bad_parameter(name, f"Known fields: {', '.join(sorted(fields))}."))
    if problems:
        raise RequestError(*problems)
    return wanted


def thin(document: Any, wanted: Mapping[str, frozenset[str]]) -> Any:
    """The document with only the wanted fields of its resources."""
    if not wanted or not isinstance(document, dict):
        return document
    data = document.get("data")
    resources = [*(data if isinstance(data, list) else [data]), *document.get("included", [])]
    for resource in resources:
        if isinstance(resource, dict) and resource.get("type") in wanted:
            _thin_resource(resource, wanted[resource["type"]])
    return document


def parameter(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    """One query parameter, as an OpenAPI document describes it; several values stand in it by comma."""
    described = {"name": name, "in": "query", "required": False, "schema": schema}
    if schema["type"] == "array":
        described |= {"style": "form", "explode": False}
    return {**described, "description": description} if description else described


def words(known: Iterable[str], *examples: str) -> dict[str, Any]:
    """The schema of some of these words, separated by commas."""
    return {"type": "array", "items": {"type": "string", "enum": list(known)}, "minItems": 1, "examples": [[*examples]]}


def sort_openapi(known: Sequence[str], default: str) -> dict[str, Any]:
    """The parameter `sort`; that each field comes once is no matter of a pattern."""
    one = f"-?({'|'.join(known)})"
    example = f"-{known[-1]},{known[0]}" if len(known) > 1 else f"-{known[0]}"
    schema = {"type": "string", "pattern": f"^{one}(,{one})*$", "default": default, "examples": [example]}
    text = f"Fields by comma, `-` in front for descending, each once: {', '.join(known)}."
    return parameter("sort", {name: value for name, value in schema.items() if value != ""}, text)


def include_openapi(names: Sequence[str]) -> list[dict[str, Any]]:
    """The parameter `include`, where anything can be included."""
    text = "Relationships whose resources come along in `included`."
    return [parameter("include", words(names, *names[:1]), text)] if names else []


def fields_openapi(type_: str, fields: Iterable[str]) -> dict[str, Any]:
    """The parameter `fields[type]`."""
    known = sorted(fields)
    return parameter(f"fields[{type_}]", words(known, *known[:2]), f"Only these fields of `{type_}`.")


def _thin_resource(resource: dict[str, Any], fields: frozenset[str]) -> None:
    for member in ("attributes", "relationships"):
        if member in resource:
            resource[member] = {name: value for name, value in resource[member].items() if name in fields}
            if not resource[member]:
                del resource[member]


def _unknown(name: str, allowed: set[str]) -> Problem:
    match = _BRACKETS.fullmatch(name)
    family = sorted(known for known in allowed if match is None or known.startswith(match[1] + "["))
    known = f"Known here: {', '.join(family)}." if family else "None is taken here."
    return bad_parameter(name, f"Unknown query parameter. {known}", code="unknown_parameter")


def _page_number(given: QueryParams, name: str, default: int, most: int, problems: list[Problem]) -> int:
    text = given.get(name)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= most:
        return int(text)
    problems.append(bad_parameter(name, f"A whole number from 1 to {most}."))
    return default


def _sort(text: str, known: tuple[str, ...], problems: list[Problem]) -> Iterable[tuple[str, bool]]:
    names = [name for name in text.split(",") if name] if text else []
    plain = [name.removeprefix("-") for name in names]
    if set(plain) - set(known) or len(set(plain)) < len(plain):
        problems.append(bad_parameter("sort", f"Sort by each of these once at most: {', '.join(known)}."))
    return [(name.removeprefix("-"), name.startswith("-")) for name in names]


def _include(given: QueryParams, known: tuple[str, ...], problems: list[Problem]) -> frozenset[str]:
    names = frozenset(filter(None, given.get("include", "").split(",")))
    if names - set(known):
        problems.append(bad_parameter("include", f"Can be included: {', '.join(known) or 'nothing'}."))
    return names
