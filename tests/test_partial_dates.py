"""Dates that are as exact as they were given."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.partial_dates import PartialDate, Precision
from app.schemas import parse_date

MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(MOMENTS, st.sampled_from(Precision))
def test_a_date_is_read_back_from_its_text_and_from_its_bounds(
    moment: datetime, precision: Precision
) -> None:
    date = PartialDate.ending(moment, precision) if moment.year > 1 else PartialDate(moment)
    assert parse_date(str(date)) == date
    assert PartialDate.ending(date.end, date.precision) == date
    assert date.start <= date.end
    if date.precision is not Precision.TIME:
        assert date.start < moment <= date.end


@given(MOMENTS)
def test_a_moment_lies_in_its_day_month_and_year_and_in_no_other(moment: datetime) -> None:
    day = moment.date().isoformat()
    for text in (day, day[:7], day[:4]):
        period = parse_date(text)
        assert period.start <= moment <= period.end
        assert str(period) == text
        if period.start > datetime.min.replace(tzinfo=UTC):
            before = PartialDate.ending(period.start, period.precision)
            assert (before.end, str(before) < text) == (period.start, True)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2022", datetime(2023, 1, 1, tzinfo=UTC)),
        ("2024-02", datetime(2024, 3, 1, tzinfo=UTC)),
        ("2022-12", datetime(2023, 1, 1, tzinfo=UTC)),
        ("2022-12-31", datetime(2023, 1, 1, tzinfo=UTC)),
        ("2022-12-31T00:00:00Z", datetime(2022, 12, 31, tzinfo=UTC)),
        ("9999", datetime.max.replace(tzinfo=UTC)),
        ("9999-12-31", datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_a_period_lasts_until_the_next_begins(text: str, end: datetime) -> None:
    assert parse_date(text).end == end
    assert str(parse_date(text))[:10] == text[:10]


@pytest.mark.parametrize("text", ["0000", "2022-00", "2022-13", "2023-02-29", "22", "2022-1", ""])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_date(text)
    assert timedelta(0) < parse_date("2024-02-29").end - parse_date("2024-02-29").start
