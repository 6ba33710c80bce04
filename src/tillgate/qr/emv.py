"""Reading and writing a merchant-presented EMVCo code.

Reading is strict where money is concerned (the grammar, the checksum, who is paid, how much) and keeps
everything else as it stands: unknown tags, odd names, unreadable extras. `lint` says what is wrong with
those. A code that was read proves nothing about a payment; it only says what a payer would be asked to do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from tillgate.domain.money import Money, MoneyError

from .profiles import CURRENCIES, NUMERIC, PRIMITIVES, SANDBOX, Profile, Template, recognise
from .tlv import DataObject, Fields, QrError, check_text, crc16, find, fold, parse, write

STATIC: Final = "11"
DYNAMIC: Final = "12"

MAX_AMOUNT_TEXT: Final = 13
MAX_GUID: Final = 32

_AMOUNT: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?", re.ASCII)
_WHOLE_UNITS: Final = frozenset({"IDR", "UZS", "VND"})
"""Written without decimals where the amount is whole; for rupiah and dong apps take nothing else."""


@dataclass(frozen=True, slots=True)
class Payee:
    """One account a code would pay.

    Two readings of a code are of the same payee when these are equal, which is how a swapped sticker shows:
    keep the payees and the merchant's name of what was printed and compare. `scheme` is a profile's name or a
    card brand, empty when unknown. `fields` is every sub-object by its path.
    """

    tag: str
    scheme: str
    guid: str = ""
    acquirer: str = ""
    account: str = field(default="", repr=False)
    service: str = ""
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Qr:
    """A payment code, read. `objects` is everything but the checksum, in order; `fields` writes it again."""

    text: str = field(repr=False)
    objects: tuple[DataObject, ...] = field(repr=False)
    crc: str
    profile: str | None
    """A profile's name, such as `"vietqr"`; None for a scheme we do not know."""
    payees: tuple[Payee, ...]
    money: Money | None
    """What the code asks for. None: the payer enters it, or we do not take the currency (see `amount`)."""

    def get(self, path: str) -> str | None:
        """The value at a dotted path, exactly as written: `"59"`, `"62.05"`, `"38.01.00"`."""
        return find(self.objects, path)

    @property
    def dynamic(self) -> bool:
        """Made for one order. A code that does not say is static."""
        return self.get("01") == DYNAMIC

    @property
    def sandbox(self) -> bool:
        return self.profile == SANDBOX.name

    @property
    def currency(self) -> str | None:
        """ISO 4217 letters for a currency we take, else the three digits as written."""
        number = self.get("53")
        return CURRENCIES.get(number, number) if number else None

    @property
    def amount(self) -> str | None:
        """The amount's text as written; it may be zero on a static code, which means open."""
        return self.get("54")

    @property
    def amount_minor(self) -> int | None:
        return self.money.minor if self.money else None

    @property
    def merchant_name(self) -> str | None:
        return self.get("59")

    @property
    def city(self) -> str | None:
        return self.get("60")

    @property
    def fields(self) -> dict[str, Any]:
        """The same as nested dictionaries, which `encode` takes back."""
        return _fields(self.objects)

    def as_dict(self) -> dict[str, Any]:
        """What a person or a program wants to know, ready for JSON."""
        return {
            "kind": "emv",
            "profile": self.profile,
            "sandbox": self.sandbox,
            "dynamic": self.dynamic,
            "currency": self.currency,
            "amount": self.amount,
            "amount_minor": self.amount_minor,
            "country": self.get("58"),
            "merchant_name": self.merchant_name,
            "city": self.city,
            "merchant_category_code": self.get("52"),
            "bill_number": self.get("62.01"),
            "reference": self.get("62.05"),
            "terminal": self.get("62.07"),
            "purpose": self.get("62.08"),
            "payees": [
                {
                    "tag": p.tag,
                    "scheme": p.scheme or None,
                    "guid": p.guid or None,
                    "acquirer": p.acquirer or None,
                    "account": p.account or None,
                    "service": p.service or None,
                }
                for p in self.payees
            ],
            "fields": self.fields,
            "crc": self.crc,
        }


def decode(text: str) -> Qr:
    """Read a code. Raises QrError when it must not be paid or shown.

    That is: broken grammar, a repeated tag, tag 00 not first or 63 not last, a wrong checksum, a payee
    template that does not read to its last character or leaves the payee out, an amount that is not one.
    """
    qr, problems = assess(text)
    if problems or qr is None:
        raise problems[0]
    return qr


def encode(fields: Fields) -> str:
    """Write a code from its fields, in their order, with tag 00 first and the checksum computed and last.

    Tag 00 is "01" unless given. Raises QrError for tag 63 (never the caller's to say), for anything that
    cannot be written, and for everything that `decode` would refuse.
    """
    if "63" in fields:
        raise QrError("the checksum is computed, not given", "63")
    ordered: Fields = {"00": fields.get("00", "01"), **{t: v for t, v in fields.items() if t != "00"}}
    text = sign(write(ordered))
    decode(text)
    return text


def sign(body: str) -> str:
    """`body` with its checksum object."""
    body = check_text(body) + "6304"
    return body + crc16(body)


def amount_text(amount_minor: int, currency: str) -> str:
    """The amount as tag 54 carries it, exactly: `1500000`, `"IDR"` → `"15000"`; `1050`, `"MYR"` → `"10.50"`.

    Raises QrError for what is not a positive `int`, for a currency we do not take, for sen of rupiah (no app
    takes them), and for more than 13 characters.
    """
    try:
        money = Money(amount_minor, currency)
        if money.minor <= 0:
            raise QrError("an amount is more than zero", "54")
        whole = currency in _WHOLE_UNITS and not (currency == "UZS" and money.minor % 100)
        text = str(money.major) if whole else money.decimal()
    except MoneyError as error:
        raise QrError(str(error), "54") from error
    if len(text) > MAX_AMOUNT_TEXT:
        raise QrError(f"the amount needs {len(text)} characters, a code has {MAX_AMOUNT_TEXT}", "54")
    return text


def parse_amount(text: str, currency: str, path: str = "54") -> Money:
    """Exactly what an amount's text says, zero included.

    Raises QrError for signs, commas, exponents and digits that would be lost.
    """
    if len(text) > MAX_AMOUNT_TEXT or _AMOUNT.fullmatch(text) is None:
        raise QrError(f"not an amount: {ascii(text)[:20]}", path)
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    try:
        return Money.parse(f"{whole}.{fraction}" if fraction else whole, currency)
    except MoneyError as error:
        raise QrError(str(error), path) from error


def assess(text: str) -> tuple[Qr | None, list[QrError]]:
    """Read as far as possible and say everything that makes `decode` refuse, in its order.

    There is no Qr when the grammar itself is broken; there is then exactly one problem.
    """
    try:
        check_text(text)
        if not text.startswith("00"):
            raise QrError("does not start with tag 00: not an EMVCo payment code")
        objects = parse(text)
    except QrError as error:
        return None, [error]
    problems: list[QrError] = []
    crc = _checksum(text, objects, problems)
    objects = tuple(o for o in objects if o.tag != "63")

    indonesian = find(objects, "53") == NUMERIC["IDR"] and find(objects, "58") == "ID"
    profiles: list[Profile] = []
    payees: list[Payee] = []
    expanded: list[DataObject] = []
    for item in objects:
        number = int(item.tag)
        if 2 <= number <= 25:
            scheme = next(name for name, tags in PRIMITIVES if number in tags)
            payees.append(Payee(item.tag, scheme, account=item.value))
        elif 26 <= number <= 51:
            item, payee, profile = _account(item, indonesian, problems)
            payees.append(payee)
            if profile:
                profiles.append(profile)
        elif number in (62, 64):
            item = DataObject(item.tag, item.value, tuple(map(_private, _readable(item.value))))
        elif number >= 80:
            item = _private(item)
        expanded.append(item)

    money = None
    try:
        money = _money(objects)
    except QrError as error:
        problems.append(error)
    name = next((p.name for p in profiles if p is SANDBOX), profiles[0].name if profiles else None)
    return Qr(text, tuple(expanded), crc, name, tuple(payees), money), problems


def _checksum(text: str, objects: tuple[DataObject, ...], problems: list[QrError]) -> str:
    last = objects[-1]
    if last.tag != "63" or len(last.value) != 4:
        problems.append(QrError("the code does not end with a four-digit checksum (tag 63)", "63"))
        return ""
    expected = crc16(text[:-4])
    if last.value.upper() != expected:
        # What it should be is not said: nobody vouches for a code whose checksum is mended by hand.
        problems.append(QrError("the checksum does not match: the code is damaged or was changed", "63"))
    return last.value


def _account(
    item: DataObject, indonesian: bool, problems: list[QrError]
) -> tuple[DataObject, Payee, Profile | None]:
    """Read an account template to its last character: a digit left over may belong to an account number."""
    try:
        children = parse(item.value, item.tag)
    except QrError as error:
        problems.append(error)
        return item, Payee(item.tag, "", fields=(("", item.value),)), None
    item = DataObject(item.tag, item.value, children)
    guid = item.get("00")
    if guid is None:
        problems.append(QrError("no identifier (00): it cannot be told whose account this is", item.tag))
        guid = ""
    known = recognise(item, indonesian=indonesian)
    if known is None:
        return item, Payee(item.tag, "", fold(guid), fields=_leaves(item.children)), None
    profile, template = known
    item = _descend(item, template, profile, problems)
    payee = Payee(
        item.tag,
        profile.name,
        fold(guid),
        item.get(template.acquirer) or "",
        item.get(template.account) or "",
        item.get(template.service) or "",
        _leaves(item.children),
    )
    return item, payee, profile


def _descend(item: DataObject, template: Template, profile: Profile, problems: list[QrError]) -> DataObject:
    children: list[DataObject] = []
    broken: set[str] = set()
    for child in item.children:
        if child.tag in template.nested:
            try:
                child = DataObject(child.tag, child.value, parse(child.value, f"{item.tag}.{child.tag}"))
            except QrError as error:
                broken.add(child.tag)
                problems.append(error)
        children.append(child)
    item = DataObject(item.tag, item.value, tuple(children))
    for path, part in template.parts.items():
        if part.required and path[:2] not in broken and item.get(path) is None:
            problems.append(QrError(f"no {part.name}", f"{item.tag}.{path}", profile.source))
    return item


def _readable(value: str) -> tuple[DataObject, ...]:
    """A template that names nobody: kept as plain text when it does not read."""
    try:
        return parse(value)
    except QrError:
        return ()


def _private(item: DataObject) -> DataObject:
    """A scheme's own object: a template if it starts with its identifier; DuitNow's tag 82 is a bare hash."""
    if int(item.tag) < 50 or not item.value.startswith("00"):
        return item
    return DataObject(item.tag, item.value, _readable(item.value))


def _leaves(children: tuple[DataObject, ...], path: str = "") -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for child in children:
        here = path + child.tag
        if child.children:
            found.extend(_leaves(child.children, here + "."))
        elif here == "00":
            found.append((here, fold(child.value)))
        else:
            found.append((here, child.value))
    return tuple(found)


def _money(objects: tuple[DataObject, ...]) -> Money | None:
    text = find(objects, "54")
    if text is None:
        return None
    if len(text) > MAX_AMOUNT_TEXT or _AMOUNT.fullmatch(text) is None:
        raise QrError(f"not an amount: {ascii(text)[:20]}", "54")
    if not text.replace(".", "").strip("0"):
        if find(objects, "01") == DYNAMIC:
            raise QrError("an amount is more than zero", "54")
        return None  # stickers of one Malaysian bank say "00.00" for "the payer enters it"
    currency = CURRENCIES.get(find(objects, "53") or "")
    return parse_amount(text, currency) if currency else None


def _fields(objects: tuple[DataObject, ...]) -> dict[str, Any]:
    return {o.tag: _fields(o.children) if o.children else o.value for o in objects}
