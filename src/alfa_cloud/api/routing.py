"""Routes: both slashes, both spellings, HEAD for reads, GET and POST for commands, and what happens around an endpoint.

router = ApiRouter(tags=["clients"])

@router.get("/clients/{client_id}")
async def read_client(...) -> ClientDocument: ...

@command(router, "/clients/{client_id}/reboot")
async def reboot_client(...) -> OperationDocument: ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar, get_args

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from alfa_cloud.api import idempotency
from alfa_cloud.api.after import AfterCommit
from alfa_cloud.api.caller import caller_of
from alfa_cloud.api.jsonapi import query
from alfa_cloud.api.jsonapi.body import NO_BODY, BodyReader
from alfa_cloud.api.jsonapi.documents import Resource
from alfa_cloud.api.jsonapi.negotiation import JsonApiResponse, Media, choose
from alfa_cloud.api.streams import MediaReader

_SERVERS: Final = re.compile(r"^\^/servers?(?=/|$)")

EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])


class ApiRoute(APIRoute):
    """One method of one path. Around its endpoint: negotiation, known query parameters, repeats, sparse fieldsets."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, is_command: bool = False, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.is_command = is_command
        self.path_regex = tolerant(self.path_regex)
        self.resources = dict(_resources(self.response_model))
        """The fields of each resource type that can be in the answer."""
        self.readers = [dependant.call for dependant in _flat(self.dependant)]
        self.body_reader = next((reader for reader in self.readers if isinstance(reader, BodyReader)), None)
        self.offered = next((reader.offered for reader in self.readers if isinstance(reader, MediaReader)), None)
        self.parameter_names = frozenset(_parameter_names(self.dependant, self.readers))

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, with all that is the same for every endpoint around it."""
        run = super().get_route_handler()

        async def handle(request: Request) -> Response:
            fields = await self._admit(request)
            repeat = await idempotency.begin(request)
            if repeat is not None and repeat.answer is not None:
                return repeat.answer
            try:
                response = await run(request)
            except idempotency.AlreadyAnsweredError as error:
                return error.answer
            if isinstance(response, JsonApiResponse) and fields:
                response.replace(query.thin(response.content, fields))
            await idempotency.keep(request, response)
            after: AfterCommit = request.state.after_commit
            return after.wrap(response, fields)

        return handle

    async def _admit(self, request: Request) -> dict[str, frozenset[str]]:
        """The request can be read and answered here; the fields that it wants.

        Raises:
            RequestError: it cannot.
        """
        request.state.after_commit = AfterCommit(request)
        if self.response_class is JsonApiResponse or self.offered:
            request.state.media = choose(request.headers.get("accept"), self.offered or (Media.JSONAPI,))
            query.check_names(request.query_params, self.parameter_names, self.resources)
        request.state.caller = caller_of(request)
        if request.method == "POST" and self.body_reader is None:
            await NO_BODY(request)
        return query.fieldsets(request.query_params, self.resources)


class ApiRouter(APIRouter):
    """A router whose paths are served with and without a slash at the end, and as `/server...` and `/servers...`."""

    def __init__(self, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "route_class": ApiRoute,
            "default_response_class": JsonApiResponse,
            "generate_unique_id_function": _operation_id,
            "redirect_slashes": False,
        }
        super().__init__(**(defaults | options))

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Serve an endpoint; a read answers HEAD too, which no document shows."""
        methods = set(options.pop("methods", None) or ("GET",))
        for method in sorted(methods):
            super().add_api_route(path, endpoint, methods=[method], **options)
        if "GET" in methods:
            hidden = options | {"include_in_schema": False, "operation_id": None}
            super().add_api_route(path, endpoint, methods=["HEAD"], **hidden)

    def add_command(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Serve an endpoint by GET and by POST, and by no HEAD."""
        name = options.pop("operation_id", None) or endpoint.__name__
        options = {"status_code": 202, **options}
        super().add_api_route(
            path, endpoint, methods=["GET"], operation_id=name, route_class_override=_CommandRoute, **options
        )
        super().add_api_route(
            path, endpoint, methods=["POST"], operation_id=f"{name}_post", route_class_override=_CommandRoute, **options
        )

    @property
    def command_paths(self) -> list[re.Pattern[str]]:
        """The paths that change something even by GET."""
        return [route.path_regex for route in self.routes if isinstance(route, ApiRoute) and route.is_command]


class _CommandRoute(ApiRoute):
    """A route that changes something even by GET."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, is_command=True, **options)


def command(router: ApiRouter, path: str, **options: Any) -> Callable[[EndpointT], EndpointT]:
    """Register a command: GET and POST, each with its own operation id; 202 unless `status_code` says otherwise."""

    def register(endpoint: EndpointT) -> EndpointT:
        router.add_command(path, endpoint, **options)
        return endpoint

    return register


def tolerant(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """The pattern of a path, for both of its slashes and both of its spellings."""
    text = pattern.pattern.removesuffix("$").removesuffix("/")
    text = _SERVERS.sub("^/servers?", text).replace(">.*)", ">.+?)")
    return re.compile(text + r"/?\Z")


def _operation_id(route: APIRoute) -> str:
    return route.name


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    for inner in dependant.dependencies:
        yield inner
        yield from _flat(inner)


def _parameter_names(dependant: Dependant, readers: list[Any]) -> Iterator[str]:
    for model_field in get_flat_params(dependant):
        if isinstance(model_field.field_info, Query):
            yield model_field.alias
    for reader in readers:
        if isinstance(reader, query.ListReader | query.IncludeReader):
            yield from reader.names()


def _resources(model: Any) -> Iterator[tuple[str, frozenset[str]]]:
    """The resource types within a document model, each with its attributes and relationships."""
    if isinstance(model, type) and issubclass(model, Resource):
        names: set[str] = set()
        for member in ("attributes", "relationships"):
            for part in _models(model.model_fields[member].annotation):
                names |= set(part.model_fields)
        yield model.type_name(), frozenset(names)
    elif isinstance(model, type) and issubclass(model, BaseModel):
        for member in ("data", "included"):
            if member in model.model_fields:
                yield from _resources(model.model_fields[member].annotation)
    else:
        for part in get_args(model):
            yield from _resources(part)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
