"""What the checks speak to an endpoint with. Written from Payme's manual, not from our connector."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tillgate.conform import Answer, Failed, Orders, Payable, Wire, expect

FORBIDDEN: Final = (-32504,)
WRONG_AMOUNT: Final = (-31001,)
NO_TRANSACTION: Final = (-31003,)
CANNOT_PERFORM: Final = (-31008,)
ACCOUNT: Final = tuple(range(-31099, -31049))
REFUSES: Final = (*CANNOT_PERFORM, *ACCOUNT)
MALFORMED: Final = (-32700, -32600, -32602)

_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Settings:
    """The endpoint under test, as its owner describes it."""

    key: str = field(repr=False)
    orders: Orders
    login: str = "Paycom"
    one_time: bool = True
    missing_account: Mapping[str, str] | None = None  # an account nobody has


@dataclass(frozen=True, slots=True)
class Said:
    """One parsed answer."""

    answer: Answer
    envelope: dict[str, Any]

    @property
    def error(self) -> dict[str, Any] | None:
        return self.envelope.get("error")


class Client:
    """Payme's side of the wire for one check."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.settings: Settings = wire.target.settings

    async def order(self) -> Payable:
        return await self.settings.orders()

    # --- sending --------------------------------------------------------------------------------------------

    async def raw(self, body: bytes, *, password: str | None = None, method: str = "POST") -> Answer:
        return await self.wire.send(body, headers=self.headers(password), method=method)

    def headers(self, password: str | None = None, login: str | None = None) -> dict[str, str]:
        password = self.settings.key if password is None else password
        credentials = f"{self.settings.login if login is None else login}:{password}".encode()
        return {
            "Content-Type": "text/json; charset=UTF-8",
            "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
        }

    async def ask(
        self,
        method: str,
        params: Any,
        *,
        rpc_id: int | None = None,
        headers: Mapping[str, str] | None = None,
        echoed: bool = True,
    ) -> Said:
        """One request as Payme makes it (no `jsonrpc` member), its answer's envelope checked."""
        rpc_id = next(_ids) if rpc_id is None else rpc_id
        body = json.dumps({"method": method, "params": params, "id": rpc_id}).encode()
        answer = await self.wire.send(body, headers=self.headers() if headers is None else headers)
        return self.read(answer, rpc_id if echoed else None)

    def read(self, answer: Answer, rpc_id: int | None) -> Said:
        expect(answer.status == 200, f"HTTP {answer.status}: Payme takes anything but 200 for a system error")
        try:
            envelope = json.loads(answer.body)
        except ValueError:
            raise Failed("the answer is not JSON") from None
        expect(isinstance(envelope, dict), "the answer is no JSON object")
        has_result, has_error = (envelope.get(name) is not None for name in ("result", "error"))
        expect(has_result != has_error, "the answer must hold either `result` or `error`")
        if rpc_id is not None:
            got = envelope.get("id")
            expect(got == rpc_id, f"the answer's id is {got!r}, the request's was {rpc_id}")
        return Said(answer, envelope)

    # --- what is expected -----------------------------------------------------------------------------------

    async def result(self, method: str, params: Any, *, rpc_id: int | None = None) -> dict[str, Any]:
        return result_of(method, await self.ask(method, params, rpc_id=rpc_id))

    async def refused(self, method: str, params: Any, codes: tuple[int, ...], why: str) -> dict[str, Any]:
        return refusal_of(method, await self.ask(method, params), codes, why)

    async def repeated(self, method: str, params: Any, times: int = 2) -> dict[str, Any]:
        """The same request again and again, one after another: the answers must be equal byte for byte."""
        rpc_id = next(_ids)
        said = [await self.ask(method, params, rpc_id=rpc_id) for _ in range(times)]
        same_bytes(method, said)
        return result_of(method, said[0])

    async def at_once(self, method: str, params: Any, times: int = 20) -> list[Said]:
        rpc_id = next(_ids)
        return list(await asyncio.gather(*(self.ask(method, params, rpc_id=rpc_id) for _ in range(times))))

    # --- steps ----------------------------------------------------------------------------------------------

    async def create(self, order: Payable, **changes: Any) -> dict[str, Any]:
        """A transaction in state 1. Returns the parameters it was created with."""
        params = self.creation(order, **changes)
        made = await self.result("CreateTransaction", params)
        expect(made.get("state") == 1, f"CreateTransaction answered state {made.get('state')!r}, not 1")
        return params

    def creation(self, order: Payable, **changes: Any) -> dict[str, Any]:
        return {
            "id": new_id(),
            "time": now_ms(),
            "amount": order.amount_minor,
            "account": dict(order.account),
            **changes,
        }

    async def perform(self, order: Payable) -> dict[str, Any]:
        params = await self.create(order)
        done = await self.result("PerformTransaction", {"id": params["id"]})
        expect(done.get("state") == 2, f"PerformTransaction answered state {done.get('state')!r}, not 2")
        return params

    async def look(self, transaction_id: str) -> dict[str, Any]:
        return await self.result("CheckTransaction", {"id": transaction_id})

    async def stands(self, transaction_id: str, state: int) -> dict[str, Any]:
        found = await self.look(transaction_id)
        expect(found.get("state") == state, f"CheckTransaction: state {found.get('state')!r}, not {state}")
        return found

    async def statement(self, from_ms: int, to_ms: int) -> list[dict[str, Any]]:
        found = (await self.result("GetStatement", {"from": from_ms, "to": to_ms})).get("transactions")
        expect(isinstance(found, list), "GetStatement: `transactions` is no array")
        assert isinstance(found, list)
        return found


def result_of(method: str, said: Said) -> dict[str, Any]:
    if said.error is not None:
        raise Failed(f"{method} answered error {said.error.get('code')}, a result was due")
    found = said.envelope["result"]
    expect(isinstance(found, dict), f"{method}: `result` is no object")
    assert isinstance(found, dict)
    return found


def refusal_of(method: str, said: Said, codes: tuple[int, ...], why: str) -> dict[str, Any]:
    names = [str(code) for code in codes if code not in ACCOUNT]
    due = " or ".join([*names, "-31050..-31099"] if set(ACCOUNT) <= set(codes) else names)
    if said.error is None:
        raise Failed(f"{method} succeeded although {why}; error {due} was due")
    code = said.error.get("code")
    expect(code in codes, f"{method} answered {code!r} although {why}; {due} was due")
    return said.error


def same_bytes(method: str, said: list[Said]) -> None:
    different = len({one.answer.body for one in said})
    expect(different == 1, f"{method} repeated {len(said)} times was answered in {different} ways")


def new_id() -> str:
    return secrets.token_hex(12)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def is_time(value: Any) -> bool:
    return type(value) is int and 10**12 <= value < 10**13
