"""Structured logs: one JSON object a line on standard error, facts as members, never a key."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

_ROOT = "openresource"


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, message, facts."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = getattr(record, "facts", None)
        if isinstance(facts, dict):
            line.update((name, value) for name, value in facts.items() if name not in line)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def log_to(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send the logs of this process to a stream, standard error by default; calling it again replaces the way."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger(_ROOT)
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    # What libraries warn of belongs into the same stream.
    library = logging.getLogger("uvicorn")
    library.handlers = [handler]
    library.setLevel(logging.WARNING)
    library.propagate = False
