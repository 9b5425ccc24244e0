"""Pages that nginx shows by itself, also while a client's container is down: Russian and English, on each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from alfa_cloud.specs import ClientSpec, Layout, PageKind

RETRY_S: Final = {PageKind.MAINTENANCE: 300, PageKind.EXPIRED: 86_400}
"""When a visitor's program may try again."""


@dataclass(frozen=True, slots=True)
class Words:
    """A page's words in one language."""

    title: str
    heading: str
    body: str


UNAVAILABLE: Final = {
    "ru": Words(
        "Временно недоступно",
        "Облако временно недоступно",
        "Мы уже восстанавливаем работу. Данные лаборатории в сохранности. Обновите страницу через минуту.",
    ),
    "en": Words(
        "Temporarily unavailable",
        "This cloud is temporarily unavailable",
        "We are bringing it back. The laboratory’s data is safe. Please try again in a minute.",
    ),
}
WORDS: Final = {
    PageKind.MAINTENANCE: {
        "ru": Words(
            "Техническое обслуживание",
            "Техническое обслуживание",
            "Облако скоро снова будет доступно. Данные лаборатории в сохранности.",
        ),
        "en": Words(
            "Maintenance",
            "Maintenance",
            "This cloud will be back soon. The laboratory’s data is safe.",
        ),
    },
    PageKind.EXPIRED: {
        "ru": Words(
            "Срок использования истёк",
            "Срок использования истёк",
            "Чтобы продлить его, напишите тому, кто предоставил вам облако. Данные лаборатории в сохранности.",
        ),
        "en": Words(
            "The term of use has ended",
            "The term of use has ended",
            "To prolong it, please write to whoever provided this cloud. The laboratory’s data is safe.",
        ),
    },
}


def unavailable_path(layout: Layout, locale: str) -> str:
    """Where the page for a container that does not answer lies."""
    return f"{layout.root}/pages/unavailable.{_locale(locale)}.html"


def render_unavailable(locale: str) -> bytes:
    """The page for a container that does not answer."""
    return _render(UNAVAILABLE, locale)


def client_path(spec: ClientSpec) -> str:
    """Where the page that stands for one client's application lies."""
    return f"{spec.layout.root}/pages/clients/{spec.name}.html"


def render(spec: ClientSpec) -> bytes:
    """The page that stands for a client's application.

    Raises:
        ValueError: none does.
    """
    if spec.page is None:
        raise ValueError("no page stands for this client")
    return _render(WORDS[spec.page], spec.locale, text=spec.page_text)


def retry_after(spec: ClientSpec) -> str:
    """The page's `Retry-After`: a moment where the end is known, else seconds (RFC 9110, 10.2.3)."""
    if spec.page is PageKind.MAINTENANCE and spec.page_ends_at:
        return format_datetime(datetime.fromisoformat(spec.page_ends_at).astimezone(UTC), usegmt=True)
    return str(RETRY_S[spec.page]) if spec.page else ""


def _locale(locale: str) -> str:
    return locale if locale in UNAVAILABLE else "ru"


def _render(words: dict[str, Words], locale: str, *, text: str = "") -> bytes:
    first = _locale(locale)
    second = "en" if first == "ru" else "ru"
    return _template().render(first=first, second=second, words=words, text=text).encode()


@cache
def _template() -> Template:
    loader = PackageLoader("alfa_cloud.remote")
    return Environment(loader=loader, undefined=StrictUndefined, autoescape=True).get_template("page.html.j2")
