"""Links and forms that bring a payer to Payme's checkout. Pure, exact to the tiyin.

Source: Payme Business, "sending a cheque by GET" and "… by POST". The GET form joins `key=value` pairs with
`;` and knows no escaping, so a value that holds a separator could add a parameter of its own: it is refused.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tillgate.providers.payme.config import CHECKOUT_URL, Language

MAX_LINK_CHARS: Final = 2048
MAX_DESCRIPTION_CHARS: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}", re.ASCII)


class BadLink(ValueError):
    """Something cannot be put into a link without changing what the link says."""


def checkout_link(
    merchant_id: str,
    account: Mapping[str, str],
    amount_tiyin: int,
    *,
    checkout_url: str = CHECKOUT_URL,
    language: Language | None = None,
    return_url: str | None = None,
    return_after_ms: int | None = None,
) -> str:
    """`<checkout>/base64("m=…;ac.order_id=…;a=…")`. `amount_tiyin` 0 leaves the amount to the payer.

    Raises `BadLink` for a `;` or a control character in a value, a bad name, or an amount that is no
    whole number.
    """
    if type(amount_tiyin) is not int or amount_tiyin < 0:
        raise BadLink("an amount is a whole number of tiyin")
    pairs = [("m", merchant_id)]
    pairs += [(f"ac.{_name(field)}", value) for field, value in account.items()]
    if amount_tiyin:
        pairs.append(("a", str(amount_tiyin)))
    if language is not None:
        pairs.append(("l", language))
    if return_url is not None:
        pairs.append(("c", return_url))
    if return_after_ms is not None:
        pairs.append(("ct", str(int(return_after_ms))))
    if not account:
        raise BadLink("an account is needed")
    text = ";".join(f"{key}={_value(key, value)}" for key, value in pairs)
    link = f"{checkout_url.rstrip('/')}/{base64.b64encode(text.encode()).decode()}"
    if len(link) > MAX_LINK_CHARS:
        raise BadLink(f"the link would have {len(link)} characters")
    return link


def checkout_form(
    merchant_id: str,
    account: Mapping[str, str],
    amount_tiyin: int,
    *,
    language: Language = "ru",
    callback: str | None = None,
    callback_timeout_ms: int | None = None,
    description: str | Mapping[Language, str] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The fields of the POST form, to be sent to the checkout address by the payer's browser.

    `callback` may hold Payme's placeholders `:transaction` and `:account.<field>`; `detail` is the fiscal
    object of CheckPerformTransaction. Whoever writes the fields into HTML escapes them there.
    Raises `BadLink`.
    """
    if type(amount_tiyin) is not int or amount_tiyin <= 0:
        raise BadLink("an amount is a positive whole number of tiyin")
    if not account:
        raise BadLink("an account is needed")
    fields = {"merchant": merchant_id, "amount": str(amount_tiyin)}
    fields |= {f"account[{_name(field)}]": value for field, value in account.items()}
    fields["lang"] = language
    if callback is not None:
        fields["callback"] = callback
    if callback_timeout_ms is not None:
        fields["callback_timeout"] = str(int(callback_timeout_ms))
    if isinstance(description, str):
        fields["description"] = description[:MAX_DESCRIPTION_CHARS]
    elif description is not None:
        fields |= {f"description[{lang}]": text[:MAX_DESCRIPTION_CHARS] for lang, text in description.items()}
    if detail is not None:
        compact = json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
        fields["detail"] = base64.b64encode(compact.encode()).decode()
    for name, value in fields.items():
        if not isinstance(value, str) or not value.isprintable():
            raise BadLink(f"{name} holds a control character")
    return fields


def _name(field: str) -> str:
    if not _NAME.fullmatch(field):
        raise BadLink(f"{field[:40]!r} cannot be an account field")
    return field


def _value(key: str, value: str) -> str:
    if not isinstance(value, str) or not value or ";" in value or not value.isprintable():
        raise BadLink(f"{key} is empty or holds ';' or a control character")
    return value
