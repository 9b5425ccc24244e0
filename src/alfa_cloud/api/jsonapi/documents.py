"""Documents and resource objects; a resource module narrows them by subclassing.

    class ServerAttributes(Attributes):
        name: str

    class ServerResource(Resource[Literal["servers"], ServerAttributes]):
        path = "/servers"

    class ServerDocument(Document[ServerResource]): ...
    class ServerCollection(Collection[ServerResource]): ...

A subclass gives its schema a clean name in the OpenAPI document. A member that is absent by default is left out of the
answer, never null.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Literal, NotRequired, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict, TypeVar

from alfa_cloud.api.jsonapi.query import Listing


def _is_none(value: object) -> bool:
    return value is None


def absent(description: str = "") -> Any:
    """A member that is left out unless it is given."""
    return Field(None, exclude_if=_is_none, description=description or None)


def _optional_members(schema: dict[str, Any]) -> None:
    schema.pop("required", None)


class Attributes(BaseModel):
    """Attributes of a resource; none is required in an answer, since `fields[...]` may leave any out."""

    model_config = ConfigDict(frozen=True, from_attributes=True, json_schema_extra=_optional_members)


class Relationships(BaseModel):
    """Relationships of a resource; none is required in an answer."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_optional_members)


class Identifier(BaseModel):
    """Which resource is meant."""

    type: str
    id: str


class ResourceLinks(TypedDict):
    """Where a resource is found."""

    self: str


class RelatedLinks(TypedDict):
    """Where related resources are found."""

    related: str


class PageLinks(TypedDict):
    """The pages around this one."""

    self: str
    first: str
    last: str
    prev: NotRequired[str]
    next: NotRequired[str]


class DocumentLinks(TypedDict):
    """Where this document is found, and what comes after it."""

    self: NotRequired[str]
    next: NotRequired[str]


class ToOne(BaseModel):
    """A relationship to one resource, or to none: `data` is then null."""

    data: Identifier | None
    links: RelatedLinks | SkipJsonSchema[None] = absent()


class Related(BaseModel):
    """A relationship that is only linked to, with counts in `meta`."""

    links: RelatedLinks
    meta: dict[str, Any] | SkipJsonSchema[None] = absent()


def to_one(type_: str, id_: object | None) -> ToOne:
    """The relationship to the resource of this type and id; to none where the id is None."""
    if id_ is None:
        return ToOne(data=None)
    return ToOne(data=Identifier(type=type_, id=str(id_)), links={"related": f"/{type_}/{quote(str(id_), safe='')}"})


TypeT = TypeVar("TypeT", bound=str)
AttributesT = TypeVar("AttributesT", bound=Attributes)
RelationshipsT = TypeVar("RelationshipsT", bound=Relationships, default=Relationships)


class Resource(BaseModel, Generic[TypeT, AttributesT, RelationshipsT]):
    """A resource object; `path` of a subclass, with the id behind it, is its `self` link."""

    path: ClassVar[str] = ""

    type: TypeT
    id: str
    attributes: AttributesT | SkipJsonSchema[None] = absent()
    relationships: RelationshipsT | SkipJsonSchema[None] = absent()
    links: ResourceLinks | SkipJsonSchema[None] = absent()
    meta: dict[str, Any] | SkipJsonSchema[None] = absent()

    @classmethod
    def make(
        cls,
        id_: object,
        attributes: AttributesT,
        relationships: RelationshipsT | None = None,
        *,
        link: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Self:
        """A resource object with its type and `self` link.

        Args:
            link: its `self`, where that is not `path` and the id.
        """
        own = link or (f"{cls.path}/{quote(str(id_), safe='')}" if cls.path else None)
        members: dict[str, Any] = {"type": cls.type_name(), "id": str(id_), "attributes": attributes}
        links = None if own is None else {"self": own}
        return cls(**members, relationships=relationships, links=links, meta=meta)

    @classmethod
    def type_name(cls) -> str:
        """The one value of `type`."""
        annotation: Any = cls.model_fields["type"].annotation
        return str(annotation.__args__[0])

    @property
    def own_link(self) -> str:
        """Its `self` link, for a Location header."""
        return self.links["self"] if self.links else ""


ResourceT = TypeVar("ResourceT", bound=Resource[Any, Any, Any])


class Version(BaseModel):
    """The version of the specification."""

    version: Literal["1.1"] = "1.1"


class Document(BaseModel, Generic[ResourceT]):
    """A document with one resource."""

    data: ResourceT
    links: DocumentLinks | SkipJsonSchema[None] = absent()
    meta: dict[str, Any] | SkipJsonSchema[None] = absent()
    jsonapi: Version = Version()

    @classmethod
    def of(cls, resource: ResourceT, **members: Any) -> Self:
        """The document of one resource.

        Args:
            members: `links`, `meta`, or the `included` of a subclass.
        """
        links = members.pop("links", None) or resource.links
        return cls(data=resource, links=links, **members)


class PageMeta(BaseModel):
    """Which page this is, and how many rows there are in all."""

    number: int
    size: int
    total: int


class CollectionMeta(BaseModel):
    """What is told about a list."""

    page: PageMeta


class Collection(BaseModel, Generic[ResourceT]):
    """A document with a page of resources."""

    data: list[ResourceT]
    links: PageLinks
    meta: CollectionMeta
    jsonapi: Version = Version()

    @classmethod
    def of(cls, resources: Iterable[ResourceT], listing: Listing, total: int, **members: Any) -> Self:
        """One page of a list of `total` rows.

        Args:
            members: the `included` of a subclass.
        """
        query = listing.query
        page = PageMeta(number=query.number, size=query.size, total=total)
        links: Any = listing.links(total)
        return cls(data=list(resources), links=links, meta=CollectionMeta(page=page), **members)
