"""Payme's JSON-RPC envelope: strict reading, its error codes with their texts, and the two kinds of answer.

Sources: Payme Merchant API, "protocol", "data types" and "errors". Payme expects HTTP 200 whatever happens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

from tillgate.domain import errors as e
from tillgate.spi import Reply

MAX_BODY_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32  # the deepest message known, a fiscal object in its params, has 3
MAX_INT: Final = 2**63 - 1

# Codes, as "errors" lists them; -31050..-31099 concern what the payer typed, so each reason has its own.
NOT_POST, PARSE_ERROR, BAD_REQUEST, NO_METHOD = -32300, -32700, -32600, -32601
BAD_PARAMS, FORBIDDEN, SYSTEM_ERROR = -32602, -32504, -32400
NO_RECEIPT, WRONG_AMOUNT, NO_TRANSACTION, CANNOT_CANCEL, CANNOT_PERFORM = (
    -32001,
    -31001,
    -31003,
    -31007,
    -31008,
)
NO_ACCOUNT, ACCOUNT_PAID, ACCOUNT_CLOSED, ACCOUNT_BUSY = -31050, -31051, -31052, -31053

TEXTS: Final[Mapping[int, Mapping[str, str]]] = {
    NOT_POST: {
        "ru": "Запрос должен быть отправлен методом POST.",
        "uz": "So‘rov POST usulida yuborilishi kerak.",
        "en": "The request must be a POST.",
    },
    PARSE_ERROR: {
        "ru": "Не удалось прочитать JSON.",
        "uz": "JSON o‘qib bo‘lmadi.",
        "en": "The JSON cannot be read.",
    },
    BAD_REQUEST: {
        "ru": "В запросе нет обязательного поля или его тип неверен.",
        "uz": "So‘rovda majburiy maydon yo‘q yoki uning turi noto‘g‘ri.",
        "en": "A required field is missing or has the wrong type.",
    },
    BAD_PARAMS: {
        "ru": "Неверные параметры запроса.",
        "uz": "So‘rov parametrlari noto‘g‘ri.",
        "en": "The parameters are wrong.",
    },
    NO_METHOD: {
        "ru": "Метод не найден.",
        "uz": "Metod topilmadi.",
        "en": "There is no such method.",
    },
    FORBIDDEN: {
        "ru": "Недостаточно прав для выполнения метода.",
        "uz": "Metodni bajarish uchun huquq yetarli emas.",
        "en": "Not enough rights to call this method.",
    },
    SYSTEM_ERROR: {
        "ru": "Системная ошибка. Повторите позже.",
        "uz": "Tizim xatosi. Keyinroq qayta urinib ko‘ring.",
        "en": "System error. Please try again later.",
    },
    NO_RECEIPT: {
        "ru": "Чек не найден.",
        "uz": "Chek topilmadi.",
        "en": "The receipt is not found.",
    },
    WRONG_AMOUNT: {
        "ru": "Неверная сумма.",
        "uz": "Summa noto‘g‘ri.",
        "en": "The amount is wrong.",
    },
    NO_TRANSACTION: {
        "ru": "Транзакция не найдена.",
        "uz": "Tranzaksiya topilmadi.",
        "en": "The transaction is not found.",
    },
    CANNOT_CANCEL: {
        "ru": "Заказ выполнен, отменить его нельзя.",
        "uz": "Buyurtma bajarilgan, uni bekor qilib bo‘lmaydi.",
        "en": "The order is fulfilled and cannot be cancelled.",
    },
    CANNOT_PERFORM: {
        "ru": "Невозможно выполнить операцию.",
        "uz": "Amalni bajarib bo‘lmaydi.",
        "en": "The operation cannot be performed.",
    },
    NO_ACCOUNT: {
        "ru": "Заказ не найден. Проверьте введённые данные.",
        "uz": "Buyurtma topilmadi. Kiritilgan ma’lumotni tekshiring.",
        "en": "The order is not found. Please check what you entered.",
    },
    ACCOUNT_PAID: {
        "ru": "Заказ уже оплачен.",
        "uz": "Buyurtma allaqachon to‘langan.",
        "en": "The order is already paid.",
    },
    ACCOUNT_CLOSED: {
        "ru": "Заказ закрыт, оплатить его нельзя.",
        "uz": "Buyurtma yopilgan, uni to‘lab bo‘lmaydi.",
        "en": "The order is closed and cannot be paid.",
    },
    ACCOUNT_BUSY: {
        "ru": "Заказ сейчас оплачивается.",
        "uz": "Buyurtma hozir to‘lanmoqda.",
        "en": "The order is being paid right now.",
    },
}

REFUSALS: Final[Mapping[type[e.Refusal], int]] = {
    e.Unauthenticated: FORBIDDEN,
    e.Unreadable: BAD_REQUEST,
    e.UnknownMethod: NO_METHOD,
    e.UnknownReference: NO_ACCOUNT,
    e.UnknownTransaction: NO_TRANSACTION,
    e.WrongAmount: WRONG_AMOUNT,
    e.AlreadyPaid: CANNOT_PERFORM,
    e.AlreadyClosed: CANNOT_PERFORM,
    e.Busy: CANNOT_PERFORM,
    e.NotCancellable: CANNOT_CANCEL,
    e.TryLater: SYSTEM_ERROR,
}
"""Our refusals in Payme's codes, where the method does not say otherwise."""

CHECK_REFUSALS: Final[Mapping[type[e.Refusal], int]] = {
    **REFUSALS,
    e.AlreadyPaid: ACCOUNT_PAID,
    e.AlreadyClosed: ACCOUNT_CLOSED,
    e.Busy: ACCOUNT_BUSY,
}
"""For CheckPerformTransaction: before money moves the payer is told what is wrong with the order."""


class RpcError(e.Unreadable):
    """The request is refused with a code of Payme's own."""

    def __init__(self, rpc_code: int, data: str | None = None) -> None:
        super().__init__(TEXTS[rpc_code]["en"])
        self.rpc_code = rpc_code
        self.data = data


def code_for(refusal: e.Refusal, codes: Mapping[type[e.Refusal], int] = REFUSALS) -> int:
    if isinstance(refusal, RpcError):
        return refusal.rpc_code
    for kind in type(refusal).__mro__:
        if kind in codes:
            return codes[kind]
    return SYSTEM_ERROR


def read(body: bytes) -> dict[str, Any]:
    """The request object. Refuses what two readers could read differently: doubled keys, NaN, bad UTF-8; and
    what no other reader takes when we repeat it: numbers beyond a double, half a surrogate pair, any depth.

    Raises `RpcError` -32700 for what is no JSON and -32600 for JSON that is no object.
    """
    if len(body) > MAX_BODY_BYTES:
        raise RpcError(PARSE_ERROR)
    try:
        message = _plain(body)
        if message is None:
            message = _STRICT.decode(body.decode())
            if b"\\u" in body:  # the only way to write half a surrogate pair, which cannot be encoded
                json.dumps(message, ensure_ascii=False).encode()
        few = body.count(b"{") + body.count(b"[") <= MAX_DEPTH  # then it cannot be deep
        if not (few or _shallow(message, MAX_DEPTH)):
            raise RpcError(PARSE_ERROR)
    except (ValueError, RecursionError):
        raise RpcError(PARSE_ERROR) from None
    if not isinstance(message, dict):
        raise RpcError(BAD_REQUEST)
    return message


def _plain(body: bytes) -> Any:
    """What is written the one shortest way, as most messages are, read six times as fast: it comes out as it
    went in, so nothing in it is doubled, cut off or rounded. None for anything else."""
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message if msgspec.json.encode(message) == body else None


def _shallow(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_shallow(one, depth - 1) for one in inner)


def request_id(message: Mapping[str, Any]) -> int:
    """Raises `RpcError` -32600: Payme's `id` is an integer."""
    found = message.get("id")
    if type(found) is not int or abs(found) > MAX_INT:
        raise RpcError(BAD_REQUEST)
    return found


def id_of(body: bytes) -> int | None:
    """The id to answer a request with that was refused before it was read; None if it has none."""
    try:
        return request_id(read(body))
    except RpcError:
        return None


def scrubbed(body: bytes) -> bytes:
    """The body as it may be kept: its passwords empty. Nothing at all of one that may hold a password and
    cannot be read."""
    text = body.replace(b"\0", b"").lower()  # so that no other encoding hides it
    if b"password" not in text and b"\\u00" not in text:
        return body
    try:
        message = read(body)
    except RpcError:
        return b""
    if message.get("method") == "ChangePassword" and not isinstance(message.get("params"), dict):
        message["params"] = None
    return json.dumps(_emptied(message), ensure_ascii=False, separators=(",", ":")).encode()


def _emptied(value: Any) -> Any:
    if isinstance(value, list):
        return [_emptied(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: "" if "password" in name.lower() else _emptied(one) for name, one in value.items()}


def result(rpc_id: int | None, content: Mapping[str, Any]) -> Reply:
    return _reply({"jsonrpc": "2.0", "id": rpc_id, "result": content})


def error(rpc_id: int | None, code: int, data: str | None = None) -> Reply:
    content: dict[str, Any] = {"code": code, "message": TEXTS.get(code, TEXTS[SYSTEM_ERROR])}
    if data is not None:
        content["data"] = data
    return _reply({"jsonrpc": "2.0", "id": rpc_id, "error": content})


def _reply(content: Mapping[str, Any]) -> Reply:
    return Reply(200, msgspec.json.encode(content), "application/json; charset=UTF-8")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is doubled")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text[:40]} is beyond a double")
    return found


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse)
