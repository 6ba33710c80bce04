"""Pydantic models of a `payments` row and of the two gateways' messages, for a host's own endpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class PaymentTransactionBase(BaseModel):
    gateway: str = Field(description="payme or click")
    transaction_id: str = Field(description="the gateway's id")
    account_id: str = Field(description="primary key of the order or account, as text")
    amount: float = Field(description="som; `amount_tiyin` is exact")
    state: int = 0


class PaymentTransactionCreate(PaymentTransactionBase):
    extra_data: dict[str, Any] | None = None


class PaymentTransaction(PaymentTransactionBase):
    model_config = ConfigDict(from_attributes=True)

    id: int
    amount_tiyin: int | None = None
    reason: int | None = None
    extra_data: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    updated_at: datetime
    performed_at: datetime | None = None
    cancelled_at: datetime | None = None


class PaymentTransactionList(BaseModel):
    transactions: list[PaymentTransaction]
    total: int


class PaymeWebhookRequest(BaseModel):
    method: str
    params: dict[str, Any]
    id: int


class PaymeWebhookResponse(BaseModel):
    jsonrpc: str = "2.0"
    id: int
    result: dict[str, Any]


class PaymeWebhookErrorResponse(BaseModel):
    jsonrpc: str = "2.0"
    id: int | None
    error: dict[str, Any]


class ClickWebhookRequest(BaseModel):
    click_trans_id: str
    service_id: str
    merchant_trans_id: str
    amount: str = Field(description="som")
    action: str = Field(description="0 Prepare, 1 Complete")
    sign_time: str
    sign_string: str
    error: str | None = None
    error_note: str | None = None


class ClickWebhookResponse(BaseModel):
    click_trans_id: str
    merchant_trans_id: str
    merchant_prepare_id: int | None = None
    error: int = 0
    error_note: str = "Success"
