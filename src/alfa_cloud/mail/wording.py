"""Dates and spans of days as a letter writes them, in each of its languages."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Final


class Language(StrEnum):
    """A language that letters are written in."""

    RU = "ru"
    EN = "en"

    @classmethod
    def of(cls, locale: str) -> Language:
        """The language of a locale (`en_GB`, `ru-RU`); Russian, where there are no letters in it."""
        spoken = locale.replace("_", "-").partition("-")[0].lower()
        return cls.EN if spoken == cls.EN else cls.RU


MONTHS: Final = {
    Language.RU: "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    Language.EN: "January February March April May June July August September October November December",
}
NEAR: Final = {Language.RU: ("сегодня", "завтра"), Language.EN: ("today", "tomorrow")}


def written_date(day: date, language: Language) -> str:
    """A date in words: `22 ноября 2026 г.`, `22 November 2026`."""
    ending = " г." if language is Language.RU else ""
    return f"{day.day} {MONTHS[language].split()[day.month - 1]} {day.year}{ending}"


def in_days(count: int, language: Language) -> str:
    """How soon: `сегодня`, `завтра`, `через 14 дней`; `today`, `tomorrow`, `in 14 days`."""
    if count < len(NEAR[language]):
        return NEAR[language][count]
    if language is Language.EN:
        return f"in {count} days"
    return f"через {count} {_russian_days(count)}"


def _russian_days(count: int) -> str:
    if count % 100 in range(11, 15):
        return "дней"
    return "день" if count % 10 == 1 else "дня" if count % 10 in (2, 3, 4) else "дней"
