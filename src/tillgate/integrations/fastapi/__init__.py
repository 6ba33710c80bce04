"""Payme and Click webhooks in a FastAPI application, on its own SQLAlchemy session, sync or async.

The names are those of the PayTechUZ document, so that code written for it changes its import line and nothing
else. What differs is written in the documentation page "Moving from PayTechUZ".
"""

from __future__ import annotations

from tillgate.embed import (
    BadSettings,
    Base,
    PaymentTransaction,
    run_async_migrations,
    run_migrations,
)
from tillgate.integrations.fastapi.routes import ClickWebhookHandler, PaymeWebhookHandler, router
from tillgate.integrations.fastapi.schemas import (
    ClickWebhookRequest,
    ClickWebhookResponse,
    PaymentTransactionBase,
    PaymentTransactionCreate,
    PaymentTransactionList,
    PaymeWebhookErrorResponse,
    PaymeWebhookRequest,
    PaymeWebhookResponse,
)
from tillgate.integrations.fastapi.schemas import PaymentTransaction as PaymentTransactionSchema

__all__ = [
    "BadSettings",
    "Base",
    "ClickWebhookHandler",
    "ClickWebhookRequest",
    "ClickWebhookResponse",
    "PaymeWebhookErrorResponse",
    "PaymeWebhookHandler",
    "PaymeWebhookRequest",
    "PaymeWebhookResponse",
    "PaymentTransaction",
    "PaymentTransactionBase",
    "PaymentTransactionCreate",
    "PaymentTransactionList",
    "PaymentTransactionSchema",
    "router",
    "run_async_migrations",
    "run_migrations",
]
