"""What a last day of use means on a day, in any zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfa_cloud.services.expiry import is_over, today

ZONES = ("Europe/Moscow", "America/New_York", "Pacific/Apia", "Asia/Kathmandu", "UTC")
MOMENTS = st.integers(946_684_800, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
"""From 2000 to 2100."""


@pytest.mark.parametrize("zone", ZONES)
@given(moment=MOMENTS)
def test_the_last_day_counts_to_its_end_by_the_clocks_there(zone: str, moment: datetime) -> None:
    where = ZoneInfo(zone)
    last = today(moment, where)
    assert not is_over(last, today(moment, where))
    assert is_over(last - timedelta(days=1), today(moment, where))
    # Whoever looks at a wall clock there sees the same day.
    assert moment.astimezone(where).strftime("%Y-%m-%d") == last.isoformat()


@pytest.mark.parametrize("zone", ZONES)
@given(moment=MOMENTS, minutes=st.integers(0, 3 * 24 * 60))
def test_days_never_go_back(zone: str, moment: datetime, minutes: int) -> None:
    where = ZoneInfo(zone)
    first, later = today(moment, where), today(moment + timedelta(minutes=minutes), where)
    assert first <= later <= first + timedelta(days=5)


@pytest.mark.parametrize(
    ("zone", "last", "still_on", "over_at"),
    [
        # Moscow is UTC+3, all year.
        ("Europe/Moscow", date(2026, 12, 31), "2026-12-31T20:59:59+00:00", "2026-12-31T21:00:00+00:00"),
        # Clocks go back in the night: the day has 25 hours.
        ("America/New_York", date(2026, 11, 1), "2026-11-02T04:59:59+00:00", "2026-11-02T05:00:00+00:00"),
        # Clocks go forward: the day has 23 hours.
        ("America/New_York", date(2026, 3, 8), "2026-03-09T03:59:59+00:00", "2026-03-09T04:00:00+00:00"),
        # 30 December 2011 was left out: the day after the 29th was the 31st.
        ("Pacific/Apia", date(2011, 12, 29), "2011-12-30T09:59:59+00:00", "2011-12-30T10:00:00+00:00"),
    ],
)
def test_the_moment_at_which_a_term_ends(zone: str, last: date, still_on: str, over_at: str) -> None:
    where = ZoneInfo(zone)
    assert not is_over(last, today(datetime.fromisoformat(still_on), where))
    assert is_over(last, today(datetime.fromisoformat(over_at), where))
    midnight = datetime.combine(last, time(0), where)
    assert not is_over(last, today(midnight, where))


def test_no_last_day_is_without_end() -> None:
    assert not is_over(None, date.max)
