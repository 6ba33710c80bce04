"""`Tillgate`: every verb of `/v1`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack
from urllib.parse import quote

from tillgate.client import filters as where
from tillgate.client.wire import Wire, params
from tillgate.schemas_v1 import (
    AttemptV1,
    EventV1,
    PaymentV1,
    RefundV1,
    StandingOrderV1,
    bodies,
    links,
)


class Tillgate(Wire):
    """One merchant's way to a hub; use as an async context manager.

    Every method raises an `ApiError` where the hub refuses and `NoAnswer` where it does not answer. Amounts
    are whole numbers of minor units. A POST takes an `idempotency_key`, or makes one; give your own where you
    may have to repeat it after a crash of yours. Lists are async iterators, the newest first, that read a
    page when they need it."""

    # --- payments ---

    async def create_payment(
        self,
        *,
        order_id: str,
        amount_minor: int,
        currency: str,
        channel: str,
        account: str | None = None,
        terminal: str | None = None,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_in_s: int | None = None,
        idempotency_key: str | None = None,
    ) -> PaymentV1:
        """Open a payment; `amount_minor` is in the currency's minor units."""
        body = _without_none(
            order_id=order_id,
            amount_minor=amount_minor,
            currency=currency,
            channel=channel,
            account=account,
            terminal=terminal,
            callback_url=callback_url,
            metadata=dict(metadata) if metadata else None,
            expires_in_s=expires_in_s,
        )
        return await self._post("/v1/payments", PaymentV1, body, idempotency_key)

    async def get_payment(self, payment_id: str) -> PaymentV1:
        return await self._get(f"/v1/payments/{_part(payment_id)}", PaymentV1)

    def payments(self, **filters: Unpack[where.Payments]) -> AsyncIterator[PaymentV1]:
        return self._all("/v1/payments", PaymentV1, filters)

    async def cancel_payment(
        self, payment_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> PaymentV1:
        path = f"/v1/payments/{_part(payment_id)}/cancel"
        return await self._post(path, PaymentV1, _without_none(reason=reason), idempotency_key)

    async def resolve_payment(
        self,
        payment_id: str,
        outcome: Literal["accept", "paid", "failed"],
        reason: str,
        *,
        by: str | None = None,
        idempotency_key: str | None = None,
    ) -> PaymentV1:
        """An operator's word on a payment that is held for review, or unsure; `by` says whose."""
        path = f"/v1/payments/{_part(payment_id)}/resolve"
        body = _without_none(outcome=outcome, reason=reason, by=by)
        return await self._post(path, PaymentV1, body, idempotency_key)

    async def choose_plan(
        self, payment_id: str, plan_id: str, *, idempotency_key: str | None = None
    ) -> PaymentV1:
        """One of the instalment plans in `next_action.terminal.plans`."""
        path = f"/v1/payments/{_part(payment_id)}/plan"
        return await self._post(path, PaymentV1, {"plan_id": plan_id}, idempotency_key)

    async def play(
        self,
        payment_id: str,
        action: Literal["pay", "fail", "expire", "pay-late"],
        *,
        fault: str | None = None,
    ) -> PaymentV1:
        """Only in the sandbox: do what the payer does. `fault` is how the pretended bank misbehaves."""
        path = f"/sandbox/payments/{_part(payment_id)}/{action}"
        await self._send("POST", path, params={"fault": fault})
        return await self.get_payment(payment_id)

    async def attempts(self, payment_id: str) -> list[AttemptV1]:
        found = await self._get(f"/v1/payments/{_part(payment_id)}/attempts", bodies.AttemptList)
        return found.data

    # --- refunds ---

    async def create_refund(
        self, payment_id: str, amount_minor: int, reason: str, *, idempotency_key: str | None = None
    ) -> RefundV1:
        path = f"/v1/payments/{_part(payment_id)}/refunds"
        body = {"amount_minor": amount_minor, "reason": reason}
        return await self._post(path, RefundV1, body, idempotency_key)

    async def get_refund(self, refund_id: str) -> RefundV1:
        return await self._get(f"/v1/refunds/{_part(refund_id)}", RefundV1)

    def refunds(self, **filters: Unpack[where.Created]) -> AsyncIterator[RefundV1]:
        return self._all("/v1/refunds", RefundV1, filters)

    async def payment_refunds(self, payment_id: str) -> list[RefundV1]:
        return (await self._get(f"/v1/payments/{_part(payment_id)}/refunds", bodies.RefundListV1)).data

    # --- standing orders ---

    async def create_standing_order(
        self,
        *,
        order_id: str,
        currency: str,
        channel: str,
        account: str | None = None,
        min_minor: int | None = None,
        max_minor: int | None = None,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> StandingOrderV1:
        """What may be paid many times; each time makes a payment."""
        body = _without_none(
            order_id=order_id,
            currency=currency,
            channel=channel,
            account=account,
            min_minor=min_minor,
            max_minor=max_minor,
            callback_url=callback_url,
            metadata=dict(metadata) if metadata else None,
        )
        return await self._post("/v1/standing-orders", StandingOrderV1, body, idempotency_key)

    async def get_standing_order(self, standing_id: str) -> StandingOrderV1:
        return await self._get(f"/v1/standing-orders/{_part(standing_id)}", StandingOrderV1)

    def standing_orders(self, **filters: Unpack[where.Created]) -> AsyncIterator[StandingOrderV1]:
        return self._all("/v1/standing-orders", StandingOrderV1, filters)

    async def close_standing_order(self, standing_id: str) -> StandingOrderV1:
        return await self._post(f"/v1/standing-orders/{_part(standing_id)}/close", StandingOrderV1)

    # --- payment links ---

    async def create_payment_link(
        self,
        title: str,
        currency: str,
        *,
        amount_minor: int | None = None,
        min_minor: int | None = None,
        max_minor: int | None = None,
        reference: str | None = None,
        channels: Sequence[str] = (),
        once: bool = False,
        payment_expires_in_s: int | None = None,
        expires_at: where.When | None = None,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> links.PaymentLinkV1:
        """A page that makes a payment; without `amount_minor` the payer says how much, within the bounds."""
        body = _without_none(
            title=title,
            currency=currency,
            amount_minor=amount_minor,
            min_minor=min_minor,
            max_minor=max_minor,
            reference=reference,
            channels=list(channels),
            once=once,
            payment_expires_in_s=payment_expires_in_s,
            callback_url=callback_url,
            metadata=dict(metadata) if metadata else None,
            **params(expires_at=expires_at),
        )
        return await self._post("/v1/payment-links", links.PaymentLinkV1, body, idempotency_key)

    async def get_payment_link(self, link_id: str) -> links.PaymentLinkV1:
        return await self._get(f"/v1/payment-links/{_part(link_id)}", links.PaymentLinkV1)

    def payment_links(self, **filters: Unpack[where.Created]) -> AsyncIterator[links.PaymentLinkV1]:
        return self._all("/v1/payment-links", links.PaymentLinkV1, filters)

    async def disable_payment_link(self, link_id: str) -> links.PaymentLinkV1:
        return await self._post(f"/v1/payment-links/{_part(link_id)}/disable", links.PaymentLinkV1)

    # --- events, endpoints, deliveries ---

    def events(self, **filters: Unpack[where.Events]) -> AsyncIterator[EventV1]:
        return self._all("/v1/events", EventV1, filters)

    async def get_event(self, event_id: str) -> EventV1:
        return await self._get(f"/v1/events/{_part(event_id)}", EventV1)

    async def create_endpoint(
        self,
        url: str,
        event_types: Sequence[str] = (),
        *,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> bodies.EndpointSecret:
        """Its `secret` is shown this once."""
        body = _without_none(url=url, event_types=list(event_types), description=description)
        return await self._post("/v1/webhook-endpoints", bodies.EndpointSecret, body, idempotency_key)

    async def endpoints(self) -> list[bodies.EndpointV1]:
        return (await self._get("/v1/webhook-endpoints", bodies.EndpointList)).data

    async def get_endpoint(self, endpoint_id: str) -> bodies.EndpointV1:
        return await self._get(f"/v1/webhook-endpoints/{_part(endpoint_id)}", bodies.EndpointV1)

    async def update_endpoint(
        self,
        endpoint_id: str,
        *,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
        description: str | None = None,
    ) -> bodies.EndpointV1:
        types = None if event_types is None else list(event_types)
        changes = _without_none(url=url, event_types=types, description=description)
        return await self._patch(f"/v1/webhook-endpoints/{_part(endpoint_id)}", bodies.EndpointV1, changes)

    async def delete_endpoint(self, endpoint_id: str) -> None:
        await self._delete(f"/v1/webhook-endpoints/{_part(endpoint_id)}")

    async def enable_endpoint(self, endpoint_id: str) -> bodies.EndpointV1:
        return await self._post(f"/v1/webhook-endpoints/{_part(endpoint_id)}/enable", bodies.EndpointV1)

    async def disable_endpoint(self, endpoint_id: str) -> bodies.EndpointV1:
        return await self._post(f"/v1/webhook-endpoints/{_part(endpoint_id)}/disable", bodies.EndpointV1)

    async def rotate_endpoint(
        self, endpoint_id: str, *, overlap_s: int = 86_400, idempotency_key: str | None = None
    ) -> bodies.EndpointSecret:
        path = f"/v1/webhook-endpoints/{_part(endpoint_id)}/rotate"
        return await self._post(path, bodies.EndpointSecret, {"overlap_s": overlap_s}, idempotency_key)

    async def test_endpoint(self, endpoint_id: str) -> bodies.EndpointV1:
        return await self._post(f"/v1/webhook-endpoints/{_part(endpoint_id)}/test", bodies.EndpointV1)

    async def replay_endpoint(
        self,
        endpoint_id: str,
        *,
        since: where.When | None = None,
        until: where.When | None = None,
        after_number: int = 0,
        what: Literal["undelivered", "everything"] = "undelivered",
    ) -> int:
        """Send it again, in order, what it missed (or everything); how many deliveries that makes."""
        path, replayed = f"/v1/webhook-endpoints/{_part(endpoint_id)}/replay", 0
        span = params(since=since, until=until)
        while True:
            body = {**span, "what": what, "after_number": after_number}
            done = await self._post(path, bodies.ReplayOut, body)
            replayed += done.replayed
            if done.next_number is None:
                return replayed
            after_number = done.next_number

    def deliveries(self, **filters: Unpack[where.Deliveries]) -> AsyncIterator[bodies.DeliveryV1]:
        return self._all("/v1/deliveries", bodies.DeliveryV1, filters)

    async def get_delivery(self, delivery_id: str) -> bodies.DeliveryDetail:
        return await self._get(f"/v1/deliveries/{_part(delivery_id)}", bodies.DeliveryDetail)

    async def resend_delivery(
        self, delivery_id: str, *, idempotency_key: str | None = None
    ) -> bodies.DeliveryV1:
        path = f"/v1/deliveries/{_part(delivery_id)}/resend"
        return await self._post(path, bodies.DeliveryV1, None, idempotency_key)

    # --- accounts, settings, books ---

    async def create_account(
        self,
        provider: str,
        name: str,
        config: Mapping[str, Any],
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
    ) -> bodies.AccountV1:
        body = {"provider": provider, "name": name, "config": dict(config), "priority": priority}
        return await self._post("/v1/accounts", bodies.AccountV1, body, idempotency_key)

    async def accounts(self) -> list[bodies.AccountV1]:
        return (await self._get("/v1/accounts", bodies.AccountList)).data

    async def get_account(self, account_id: str) -> bodies.AccountV1:
        return await self._get(f"/v1/accounts/{_part(account_id)}", bodies.AccountV1)

    async def rotate_account(self, account_id: str, config: Mapping[str, Any]) -> bodies.AccountV1:
        path = f"/v1/accounts/{_part(account_id)}/rotate"
        return await self._post(path, bodies.AccountV1, {"config": dict(config)})

    async def disable_account(self, account_id: str) -> bodies.AccountV1:
        return await self._post(f"/v1/accounts/{_part(account_id)}/disable", bodies.AccountV1)

    async def enable_account(self, account_id: str) -> bodies.AccountV1:
        return await self._post(f"/v1/accounts/{_part(account_id)}/enable", bodies.AccountV1)

    async def providers(self) -> list[bodies.ProviderV1]:
        return (await self._get("/v1/providers", bodies.ProviderList)).data

    async def channels(self) -> list[bodies.ChannelV1]:
        return (await self._get("/v1/channels", bodies.ChannelList)).data

    async def settings(self) -> bodies.SettingsV1:
        return await self._get("/v1/settings", bodies.SettingsV1)

    async def update_settings(
        self,
        *,
        callback_url: str | Literal[False] | None = False,
        payment_ttl_s: int | None = None,
        late_money: Literal["accept", "review"] | None = None,
        preferences: Mapping[str, Sequence[str]] | None = None,
    ) -> bodies.SettingsV1:
        """Where results go by default (None: nowhere), how long payments stay open, what late money meets,
        which accounts serve a channel in which order (by name)."""
        changes = _without_none(payment_ttl_s=payment_ttl_s, late_money=late_money, preferences=preferences)
        if callback_url is not False:
            changes["callback_url"] = callback_url
        return await self._patch("/v1/settings", bodies.SettingsV1, changes)

    async def rotate_callback_secret(self, *, overlap_s: int = 86_400) -> bodies.CallbackSecret:
        body = {"overlap_s": overlap_s}
        return await self._post("/v1/settings/callback-secret", bodies.CallbackSecret, body)

    async def balances(self) -> list[bodies.BalanceV1]:
        return (await self._get("/v1/ledger/balances", bodies.BalanceList)).data

    def postings(self, **filters: Unpack[where.Created]) -> AsyncIterator[bodies.PostingV1]:
        return self._all("/v1/ledger/postings", bodies.PostingV1, filters)

    def export(
        self, what: Literal["payments", "postings"], **filters: Unpack[where.Export]
    ) -> AsyncIterator[bytes]:
        """CSV in pieces, the oldest row first. `status` is for payments alone."""
        return self._pieces(f"/v1/exports/{what}.csv", filters)

    async def export_to(
        self, path: Path | str, what: Literal["payments", "postings"], **filters: Unpack[where.Export]
    ) -> int:
        """Write an export to a file, whole or not at all; its size in bytes. Raises `OSError`, too."""
        target = Path(path)
        growing, size = target.with_name(f".{target.name}.part"), 0
        try:
            with growing.open("wb") as file:
                async for piece in self.export(what, **filters):
                    size += file.write(piece)
            growing.replace(target)
        finally:
            growing.unlink(missing_ok=True)
        return size

    def inbound(self, **filters: Unpack[where.Inbound]) -> AsyncIterator[bodies.InboundV1]:
        return self._all("/v1/inbound", bodies.InboundV1, filters)

    async def get_inbound(self, message_id: str) -> bodies.InboundDetail:
        return await self._get(f"/v1/inbound/{_part(message_id)}", bodies.InboundDetail)


def _part(value: str) -> str:
    if value in ("", ".", ".."):
        raise ValueError("that is no id")
    return quote(value, safe="")


def _without_none(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
