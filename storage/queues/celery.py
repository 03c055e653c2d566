"""The bell of distributed mode: a Celery message without content, through Redis.

Redis may lose, double or delay what it is given; nobody minds, because a message only says that some row waits.
Each setting below answers a way to lose, double or delay tasks that was seen with Celery 5.7 on Redis 7.
"""

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from celery import Celery
from kombu.exceptions import KombuError
from redis.backoff import NoBackoff
from redis.retry import Retry

from domain.errors import Unavailable

TASK: Final = "workers.drain"
QUEUE: Final = "doorbell"
KEY_PREFIX: Final = "openpeek:"

_ANSWER_WITHIN_SECONDS: Final = 2
_HEALTH_CHECK_SECONDS: Final = 15


def celery_app(url: str) -> Celery:
    """Return a Celery application that knows the one queue, for those who ring and for the worker that answers.

    Args:
        url: ``redis://[:password@]host[:port]/db``, ``rediss://…`` or ``redis+socket:///path?virtual_host=db``.
    """
    app = Celery("openpeek", broker=_with_checked_certificate(url), set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        # A worker that dies in the middle leaves its message, and Redis hands it out again after the timeout below.
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # else a row that kills its worker would kill the next one at once
        # No limit. With one, a message that could not be acknowledged because Redis was away counts as in hand for
        # ever, and its worker takes no other and never notices that the connection is gone (2 of 2 tries; with 0 it
        # came back within 1 s). A solo worker fetches nothing while it works, and the queue holds one message.
        worker_prefetch_multiplier=0,
        # The rows tell how work ended. No time limit either: a worker gives up what does not move.
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        # Said only because Celery warns of its default. The solo pool notices a lost connection between tasks.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_transport_options={
            "visibility_timeout": 120,
            # Both are needed: by default what a dead worker held comes back after 100 s, whatever the timeout.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": _ANSWER_WITHIN_SECONDS,
            "socket_connect_timeout": _ANSWER_WITHIN_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": _HEALTH_CHECK_SECONDS,
            "global_keyprefix": KEY_PREFIX,
        },
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,  # its reply queues would live on in Redis
        worker_send_task_events=False,
    )
    return app


class CeleryQueue:
    """A queue that sends the one task by its name; it imports no worker. Threads may share it.

    Making one opens no connection.
    """

    def __init__(self, url: str) -> None:
        self._app = celery_app(url)
        # A worker tries again until Redis is back; who rings must not wait for that.
        self._app.conf.broker_transport_options = {**self._app.conf.broker_transport_options, "max_retries": 0}
        self._redis = redis.Redis.from_url(
            _as_redis_names_it(url),
            socket_timeout=_ANSWER_WITHIN_SECONDS,
            socket_connect_timeout=_ANSWER_WITHIN_SECONDS,
            health_check_interval=_HEALTH_CHECK_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    def ring(self) -> None:
        """Put one message into the queue, unless one waits there already; takes at most about 4 s.

        Raises:
            Unavailable: Redis does not answer, refuses us, or is full.
        """
        try:
            # Asked first, so that without workers the queue does not grow; and a Redis that hangs is found out here.
            if self._redis.llen(KEY_PREFIX + QUEUE):
                return
            self._app.send_task(TASK, retry=False)
        except (redis.RedisError, KombuError, OSError) as error:
            raise _unavailable(error) from error

    def check(self) -> None:
        """Prove that Redis answers. Raises as `ring`."""
        try:
            self._redis.ping()
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()
        self._app.close()


def _with_checked_certificate(url: str) -> str:
    """Ask for a check of the server's certificate where the URL says nothing: Celery by itself would not check it."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url
    asked = dict(parse_qsl(parts.query))
    # Celery's spelling is CERT_REQUIRED, that of redis-py is required; both know the second one.
    asked["ssl_cert_reqs"] = asked.get("ssl_cert_reqs", "required").removeprefix("CERT_").lower()
    return urlunsplit(parts._replace(query=urlencode(asked)))


def _as_redis_names_it(url: str) -> str:
    """Return the URL under which redis-py finds the same server and database as Celery."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return _with_checked_certificate(url)
    database = dict(parse_qsl(parts.query)).get("virtual_host", "").strip("/") or "0"
    return urlunsplit(("unix", parts.netloc, parts.path, urlencode({"db": database}), ""))


def _unavailable(error: BaseException) -> Unavailable:
    """Say what is wrong in words of our own: those of the libraries may name addresses and users."""
    cause = error.__cause__ if isinstance(error, KombuError) and error.__cause__ else error
    reasons: list[tuple[type[BaseException], str]] = [
        (redis.AuthenticationError, "Redis refuses the password of OPENPEEK_QUEUE_URL"),
        (redis.OutOfMemoryError, "Redis has no memory left (maxmemory)"),
        (redis.TimeoutError, f"Redis gave no answer within {_ANSWER_WITHIN_SECONDS} s"),
        (redis.ConnectionError, "there is no connection to Redis"),
    ]
    reason = next((words for kind, words in reasons if isinstance(cause, kind)), f"Redis says {type(cause).__name__}")
    return Unavailable("queue", reason)
