"""A defect of topod's own: its details go to the log under a number, and the asker gets the number."""

import logging
import uuid

from topod.errors import InternalError
from topod.shell.logs import Key


def internal(log: logging.Logger, name: str, at: object, error: Exception, text: str) -> InternalError:
    """Log `error` as `name`, met at a request or an event, and return what the asker is told.

    `text` says who failed at what, such as `topod failed at this request`.
    """
    problem = uuid.uuid4().hex[:8]
    log.error(name, extra={Key.EVENT: type(at).__name__, Key.PROBLEM: problem}, exc_info=error)
    told = f"{text} by a defect of its own; its log has it as {problem} ({type(error).__name__})"
    return InternalError(told)
