"""The bell of distributed mode: one Celery task over Redis, without arguments and without a result."""

from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from domain.errors import Unavailable

TASK: Final = "workers.drain"
QUEUE: Final = "openpeek"
# Nothing is ever lost with a message, so it may be short-lived: whoever misses it looks at the rows.
_TRANSPORT: Final[dict[str, Any]] = {
    "visibility_timeout": 120,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 2,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 15,
    "global_keyprefix": "openpeek:",
}


def celery_app(url: str) -> Celery:
    """Return the Celery application that both sides use; it connects on first use."""
    app = Celery("openpeek", broker=url, set_as_current=False)
    app.conf.update(
        broker_transport_options=_TRANSPORT,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=2,
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        task_publish_retry=False,
    )
    return app


class CeleryQueue:
    """Rings Celery workers. Publishing takes at most about 3 s, and is done by the relay only."""

    def __init__(self, url: str) -> None:
        self._app = celery_app(url)

    def ring(self) -> None:
        """Send the one task. Raises Unavailable."""
        try:
            self._app.send_task(TASK, retry=False, ignore_result=True, expires=60)
        except (OperationalError, RedisError, OSError) as error:
            raise Unavailable("queue", _reason(error)) from error

    def check(self) -> None:
        """Prove that Redis answers. Raises Unavailable."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
                connection.default_channel.client.ping()
        except (OperationalError, RedisError, OSError) as error:
            raise Unavailable("queue", _reason(error)) from error


def _reason(error: Exception) -> str:
    """Return what happened without the URL, which may hold a password."""
    cause = error.__cause__ or error
    return type(cause).__name__
