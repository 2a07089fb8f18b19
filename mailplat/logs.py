"""
The lines of the log: how one is said for each message and each login, and how they are written.

What is said is an event of `twisted.logger`, with all its fields, and observers see it like any
other.  What is written is what twistd writes.  Both are done for every message, so the ways here are short: a
line is filled in when it is said, and the date is that of the line before as long as the second is.
"""

from __future__ import annotations

from time import time
from typing import IO, Any

from twisted.logger import FileLogObserver, Logger, LogLevel, formatEventAsClassicLogText, formatTime

#: The format of what `tell` says; the field has no braces left.
_TOLD = "{line}"


def tell(log: Logger, line: str, **fields: object) -> None:
    """
    One event, as `log.info` makes it; observers see the same fields.

    Args:
        line: names the fields in braces.
        fields: beside them `line` itself, filled in.
    """
    fields.update(
        line=line.format_map(fields),
        log_logger=log,
        log_level=LogLevel.info,
        log_namespace=log.namespace,
        log_source=log.source,
        log_format=_TOLD,
        log_time=time(),
    )
    # As `log.info` does, which looks for its level among all that there are: that takes as long as the rest.
    log.observer(fields)


def text_observer(file: IO[Any]) -> FileLogObserver:
    """
    As `twisted.logger.textFileLogObserver`, at half the price; the text is the same to the octet.

    Args:
        file: written and flushed with each event.
    """
    return FileLogObserver(file, _Text())


class _Text:
    """From an event to the text of its line, None for no line."""

    def __init__(self) -> None:
        self._date = (0, "")  # a second and its text; together, as events come from several threads

    def __call__(self, event: dict[str, Any]) -> str | None:
        line = event.get("line") if event.get("log_format") == _TOLD else None
        if not line or not isinstance(line, str) or "log_system" in event or "log_failure" in event:
            return formatEventAsClassicLogText(event, self._time)
        date, line = self._time(event["log_time"]), line.replace("\n", "\n\t")
        return f"{date} [{event['log_namespace']}#{event['log_level'].name}] {line}\n"

    def _time(self, when: float | None) -> str:
        if when is None:
            return formatTime(when)
        second, text = self._date
        if second != int(when):
            second, text = self._date = int(when), formatTime(when)
        return text
