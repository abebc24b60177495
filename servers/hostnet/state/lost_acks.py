"""Messages whose acknowledgement is lost, on both sides."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Counts a message as done although Redis could not be told.

    kombu takes as many messages as a worker is to have at once, and none while it believes that it has them all. A
    message that Redis died on would count for ever: with one message at once the worker would never look into its queue
    again, and so not even notice that its connection is gone. What Redis still knows of the message when it is back is
    queued again after the visibility timeout, and every task may come twice.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise


class HostQoS(QoS):
    """Of a host, which has no right to look for what was not acknowledged: that takes a script. Its next full state
    makes up for a message that was lost."""

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Nothing."""


class Channel(redis.Channel):
    QoS = QoS


class SentinelChannel(redis.SentinelChannel):
    QoS = QoS


def survive(host: bool = False) -> None:
    """From now on, in this whole process; ``host``: which is a host's worker."""
    Channel.QoS = SentinelChannel.QoS = HostQoS if host else QoS
    redis.Transport.Channel = Channel
    redis.SentinelTransport.Channel = SentinelChannel
