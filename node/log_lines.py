"""The node's log: one JSON object per line. Bodies of records, tokens and keys never stand in it."""

from __future__ import annotations

import logging
from typing import Any, Final, TextIO

import structlog

from comity.node.config import LogLevel

_LEVELS: Final = logging.getLevelNamesMapping()
_NOISY: Final = ("hypercorn", "libp2p", "multiaddr", "fastapi", "zeroconf")
"""Libraries that tell of every connection: only their warnings are kept."""


def configure_log(level: LogLevel, stream: TextIO) -> None:
    """Send what is logged, by us and by libraries, to a stream."""
    threshold = _LEVELS[level.upper()]
    common: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.processors.format_exc_info],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(sort_keys=True, default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def rejoin_libp2p(level: LogLevel) -> None:
    """Bring libp2p's log back into the node's: importing it cuts its logger off. Call it after the import.

    What it reports as errors is what a peer that goes away looks like, which the node's own lines say better.
    """
    logger = logging.getLogger("libp2p")
    logger.propagate = True
    logger.setLevel(logging.WARNING if level == "debug" else logging.CRITICAL)
