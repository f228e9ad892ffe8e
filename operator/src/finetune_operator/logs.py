"""Logs as one JSON object per line, with the Kubernetes object that the line is about."""

import json
import logging
import sys
from datetime import UTC, datetime

_FIELDS = ("kind", "namespace", "object", "uid")
_NAMES = {"object": "name"}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, message, object and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for field in _FIELDS:
            value = getattr(record, field, None)
            if value is not None:
                line[_NAMES.get(field, field)] = str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def soften_retries(record: logging.LogRecord) -> bool:
    """Lower kopf's errors that it will retry to warnings; returns True, as a logging filter that drops nothing."""
    if record.name.startswith("kopf.") and "will retry" in record.getMessage():
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def configure_logs(level: str) -> None:
    """Write all logs to standard output as JSON; libraries log warnings and errors only."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(soften_retries)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("finetune_operator").setLevel(level.upper())
