"""Cron lines with cron's own meaning, as triggers of APScheduler.

APScheduler counts weekdays from Monday, and wants a day of the month and a weekday at once where cron takes either. So
weekdays are handed over by name, and a line that restricts both becomes two triggers.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(?P<first>\*|[0-7]|[a-z]{3})(?:-(?P<last>[0-7]|[a-z]{3}))?(?:/(?P<step>[1-9]\d?))?")
_EVERY = ("*", "*/1", "?")


def cron_trigger(line: str, timezone: str = "UTC") -> Any:
    """Return the trigger of a five-field line; raises ValueError where it is none, or never fires."""
    minute, hour, day, month, weekday = line.split()
    fields = {"minute": minute, "hour": hour, "month": month, "timezone": timezone}
    days = {"day": "*" if day == "?" else day}
    weekdays = {"day_of_week": ",".join(_weekdays(weekday))}
    if day in _EVERY or weekday in _EVERY:
        found = CronTrigger(**fields, **(weekdays if day in _EVERY else days))
    else:
        found = OrTrigger([CronTrigger(**fields, **days), CronTrigger(**fields, **weekdays)])
    if found.get_next_fire_time(None, datetime.now().astimezone()) is None:
        raise ValueError("it never fires: no month has such a day")
    return found


def _weekdays(field: str) -> list[str]:
    """Return the names of the days that a weekday field means: 0 and 7 are Sunday."""
    numbers = set[int]()
    for part in field.lower().split(","):
        found = _PART.fullmatch("*" if part == "?" else part)
        if found is None:
            raise ValueError(f"'{field}' is no weekday: 0 to 7 (0 and 7 are Sunday), or sun to sat")
        first = 0 if found["first"] == "*" else _number(found["first"])
        if found["last"] is not None:
            last = _number(found["last"])
        else:
            last = 6 if found["first"] == "*" or found["step"] else first
        last = 7 if last == 0 and first > 0 else last
        if last < first:
            raise ValueError(f"'{part}' ends before it begins")
        numbers |= {number % 7 for number in range(first, last + 1, int(found["step"] or 1))}
    return [_WEEKDAYS[number] for number in sorted(numbers)]


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    if name not in _WEEKDAYS:
        raise ValueError(f"'{name}' is no weekday")
    return _WEEKDAYS.index(name)
