"""Structured logs: JSON for machines, text for a terminal. Nothing secret is ever passed to them."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any, Final

import structlog

REQUEST: Final[ContextVar[bytes]] = ContextVar("request")
"""The id of the request that is being answered. Setting it is all that a request costs; a line that is logged
reads it."""


def configure(level: str, style: str) -> None:
    """`style`: json, text, or auto (text on a terminal)."""
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if as_text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _whose,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _whose(_logger: Any, _method: str, line: Any) -> Any:
    request = REQUEST.get(None)
    if request is not None:
        line.setdefault("request", request.decode("latin-1"))
    return line
