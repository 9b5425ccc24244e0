"""The Docker stand-in's command line: dispatch, images and networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from alfa_cloud.sandbox.practice import compose, docker_containers, docker_output, docker_views, options
from alfa_cloud.sandbox.practice.call import Call
from alfa_cloud.sandbox.practice.docker_state import DockerState, Image, Network, digest, make_image, now
from alfa_cloud.sandbox.practice.engine import DockerError, Engine

Handler = Callable[[Engine, Call, list[str]], int]

GLOBAL: Final = ("--host", "-H", "--context", "-c", "--config", "--log-level", "-l")


def docker(engine: Engine, call: Call) -> int:
    """Be `docker`; the exit status."""
    words = options.parse(call.argv, GLOBAL, stop_at_word=True).words
    for length in (2, 1):
        handler = HANDLERS.get(" ".join(words[:length]))
        if handler is not None and len(words) >= length:
            try:
                return handler(engine, call, words[length:])
            except DockerError as error:
                call.err(f"{error}\n")
                return 1
    if not words:
        call.out("Usage:  docker [OPTIONS] COMMAND (a stand-in)\n")
        return 0
    call.err(f"docker: '{' '.join(words[:2])}' is not a docker command.\nSee 'docker --help'\n")
    return 1


def version(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker version`."""
    template = options.parse(argv, ("--format", "-f")).get("--format", "-f", default="Docker {{.Server.Version}}")
    call.out(options.render(template, docker_views.version()) + "\n")
    return 0


def info(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker info`."""
    template = options.parse(argv, ("--format", "-f")).get("--format", "-f", default="{{json .}}")
    call.out(options.render(template, docker_views.info(engine.state)) + "\n")
    return 0


def image_ls(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker image ls`."""
    given = options.parse(argv, ("--format", "--filter", "-f"))
    rows = []
    for image in engine.state.images:
        rows += [docker_views.image_row(engine.state, image, tag) for tag in image.tags or ["<none>:<none>"]]
    if given.words:
        wanted = given.words[0]
        rows = [row for row in rows if wanted in (row["Repository"], f"{row['Repository']}:{row['Tag']}")]
    for filter_ in given.all("--filter", "-f"):
        key, _, value = filter_.partition("=")
        if key == "reference":
            rows = [row for row in rows if value.rstrip("*").rstrip(":") in f"{row['Repository']}:{row['Tag']}"]
        if key == "dangling" and value == "true":
            rows = [row for row in rows if row["Tag"] == "<none>"]
    return docker_output.rows(call, rows, given.get("--format"), quiet=given.has("-q", "--quiet"))


def image_inspect(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker image inspect`."""
    given = options.parse(argv, ("--format", "-f", "--platform"))
    found = [(name, engine.state.image(name)) for name in given.words]
    missing = [f"No such image: {name}" for name, image in found if image is None]
    there = [docker_views.image(image) for _, image in found if image is not None]
    return docker_output.objects(call, there, missing, given.get("--format", "-f"))


def image_rm(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker image rm`."""
    given = options.parse(argv, ())
    status = 0
    with engine.change() as state:
        for name in given.words:
            status |= _remove_image(state, call, name, force=given.has("--force", "-f"))
    return status


def _remove_image(state: DockerState, call: Call, name: str, *, force: bool) -> int:
    """Take a tag away, and the image with its last one."""
    image = state.image(name)
    if image is None:
        call.err(f"Error response from daemon: No such image: {name}\n")
        return 0 if force else 1
    tag = name if ":" in name and not name.startswith("sha256:") else ""
    user = next((item for item in state.containers if item.image_id == image.id), None)
    last = not tag or image.tags == [tag]
    if user is not None and last and (user.running or not force):
        call.err(
            f"Error response from daemon: conflict: unable to remove repository reference {name!r} (must force) - "
            f"container {user.id[:12]} is using its referenced image {image.id[7:19]}\n"
        )
        return 1
    for gone in [tag] if tag else list(image.tags):
        image.tags.remove(gone)
        call.out(f"Untagged: {gone}\n")
    if not image.tags and user is None:
        state.images.remove(image)
        call.out(f"Deleted: {image.id}\n")
    return 0


def image_tag(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker image tag SOURCE TARGET`."""
    source, target = options.parse(argv, ()).words
    with engine.change() as state:
        image = state.image(source)
        if image is None:
            raise DockerError(f"Error response from daemon: No such image: {source}")
        _take_tag(state, target)
        image.tags.append(target)
    return 0


def _take_tag(state: DockerState, tag: str) -> None:
    """No image has the tag."""
    for image in state.images:
        if tag in image.tags:
            image.tags.remove(tag)


def image_prune(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker image prune`: images without a tag (with --all: without a container) are gone."""
    given = options.parse(argv, ("--filter",))
    with engine.change() as state:
        used = {container.image_id for container in state.containers}
        every = given.has("--all", "-a")
        gone = [image for image in state.images if image.id not in used and (every or not image.tags)]
        for image in gone:
            state.images.remove(image)
            call.out(f"deleted: {image.id}\n")
    call.out(f"Total reclaimed space: {sum(image.size for image in gone) / 1e6:.1f}MB\n")
    return 0


def build(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker build`: there is an image with this tag and these labels; nothing is really built."""
    valued = (
        "--tag",
        "-t",
        "--label",
        "--build-arg",
        "--file",
        "-f",
        "--target",
        "--network",
        "--progress",
        "--iidfile",
    )
    given = options.parse(argv, valued)
    context = Path(call.cwd, given.words[0] if given.words else ".")
    if given.words[:1] != ["-"] and not context.is_dir():
        raise DockerError(f'ERROR: unable to prepare context: path "{context}" not found')
    tags = given.all("--tag", "-t")
    labels = dict(label.partition("=")[::2] for label in given.all("--label"))
    arguments = dict(value.partition("=")[::2] for value in given.all("--build-arg"))
    image = make_image(tags[0] if tags else "", labels.get("alfa.branch", ""), now())
    image.tags = tags
    image.labels |= labels
    image.env += [f"{key}={value}" for key, value in arguments.items()]
    for number, words in enumerate(("load build definition", "FROM php (a stand-in)", "exporting to image"), 1):
        call.err(f"#{number} {words}\n#{number} DONE 0.0s\n")
    with engine.change() as state:
        for tag in tags:
            _take_tag(state, tag)
        state.images.append(image)
    if given.get("--iidfile"):
        Path(call.cwd, given.get("--iidfile")).write_text(image.id)
    if given.has("--quiet", "-q"):
        call.out(f"{image.id}\n")
    return 0


def image_save(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker image save`: the stand-in's own form, which its `load` takes."""
    given = options.parse(argv, ("--output", "-o"))
    images = [engine.state.image(name) for name in given.words]
    if None in images:
        raise DockerError("Error response from daemon: reference does not exist")
    fields = ("id", "tags", "created", "labels", "env", "size")
    data = json.dumps([{name: getattr(image, name) for name in fields} for image in images])
    target = given.get("--output", "-o")
    if target:
        Path(call.cwd, target).write_text(data)
    else:
        call.out(data)
    return 0


def image_load(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker image load`."""
    source = options.parse(argv, ("--input", "-i")).get("--input", "-i")
    data = Path(call.cwd, source).read_bytes() if source else call.read_all()
    try:
        images = [Image(**item) for item in json.loads(data)]
    except (ValueError, TypeError) as error:
        raise DockerError("Error response from daemon: unexpected EOF") from error
    with engine.change() as state:
        for image in images:
            for tag in image.tags:
                _take_tag(state, tag)
                call.out(f"Loaded image: {tag}\n")
            state.images.append(image)
    return 0


def network_ls(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker network ls`."""
    given = options.parse(argv, ("--format", "--filter", "-f"))
    rows = [docker_views.network_row(network) for network in engine.state.networks]
    for filter_ in given.all("--filter", "-f"):
        key, _, value = filter_.partition("=")
        rows = [row for row in rows if key != "name" or value in row["Name"]]
    return docker_output.rows(call, rows, given.get("--format"), quiet=given.has("-q", "--quiet"))


def network_inspect(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker network inspect`."""
    given = options.parse(argv, ("--format", "-f"))
    found = [(name, engine.state.network(name)) for name in given.words]
    missing = [f"network {name} not found" for name, network in found if network is None]
    there = [docker_views.network(engine.state, network) for _, network in found if network is not None]
    return docker_output.objects(call, there, missing, given.get("--format", "-f"))


def network_create(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker network create`."""
    valued = ("--driver", "-d", "--subnet", "--gateway", "--opt", "-o", "--label", "--ip-range")
    given = options.parse(argv, valued)
    if len(given.words) != 1:
        raise DockerError('"docker network create" requires exactly 1 argument.')
    name = given.words[0]
    with engine.change() as state:
        if state.network(name):
            raise DockerError(f"Error response from daemon: network with name {name} already exists")
        subnet = given.get("--subnet")
        if subnet and any(network.subnet == subnet for network in state.networks):
            raise DockerError("Error response from daemon: Pool overlaps with other one on this address space")
        pairs = [
            dict(pair.partition("=")[::2] for pair in given.all(*names)) for names in (("--opt", "-o"), ("--label",))
        ]
        driver = given.get("--driver", "-d", default="bridge")
        gateway = given.get("--gateway")
        network = Network(digest(name + now()), name, driver, subnet, gateway, pairs[0], pairs[1], now())
        state.networks.append(network)
    call.out(f"{network.id}\n")
    return 0


def network_rm(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker network rm`."""
    status = 0
    with engine.change() as state:
        for name in options.parse(argv, ()).words:
            network = state.network(name)
            if network is None:
                call.err(f"Error response from daemon: network {name} not found\n")
                status = 1
            elif any(network.name in container.networks for container in state.containers):
                call.err(
                    f"Error response from daemon: error while removing network: network {name} has active endpoints\n"
                )
                status = 1
            else:
                state.networks.remove(network)
                call.out(f"{name}\n")
    return status


def inspect(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker inspect`: a container, else an image."""
    words = options.parse(argv, ("--format", "-f", "--type")).words
    is_container = bool(words) and engine.state.container(words[0]) is not None
    return (docker_containers.inspect if is_container else image_inspect)(engine, call, argv)


HANDLERS: Final[dict[str, Handler]] = {
    "version": version,
    "--version": version,
    "-v": version,
    "info": info,
    "system info": info,
    "compose": compose.compose,
    "inspect": inspect,
    "build": build,
    "image build": build,
    "buildx build": build,
    "images": image_ls,
    "image ls": image_ls,
    "image list": image_ls,
    "image inspect": image_inspect,
    "image rm": image_rm,
    "rmi": image_rm,
    "image tag": image_tag,
    "tag": image_tag,
    "image prune": image_prune,
    "image save": image_save,
    "save": image_save,
    "image load": image_load,
    "load": image_load,
    "network ls": network_ls,
    "network inspect": network_inspect,
    "network create": network_create,
    "network rm": network_rm,
    **docker_containers.HANDLERS,
}
