"""The handlers and an empty router, under the names that existing imports use."""

from fastapi import APIRouter

from tillgate.providers.click.handler import ClickWebhookHandler
from tillgate.providers.payme.handler import PaymeWebhookHandler

router = APIRouter()

__all__ = ["ClickWebhookHandler", "PaymeWebhookHandler", "router"]
