"""Webhooks: addresses that only we can have given out, and jobs that are asked about the moment one is called.

The manual is `README.md` beside this file.
"""

from mirage_async.webhooks._inbox import Hint
from mirage_async.webhooks._receiver import ReceiverStatistics, WebhookReceiver, WebhookReply
from mirage_async.webhooks._signatures import StandardWebhooks
from mirage_async.webhooks._standalone import QuietServerLog, serving

__all__ = [
    "Hint",
    "QuietServerLog",
    "ReceiverStatistics",
    "StandardWebhooks",
    "WebhookReceiver",
    "WebhookReply",
    "serving",
]
