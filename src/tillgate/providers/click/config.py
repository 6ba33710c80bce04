"""What one Click service needs to be talked to: the numbers and the key that Click's cabinet shows."""

from __future__ import annotations

from typing import Literal

import msgspec

from tillgate.domain.errors import Misconfigured

API_URL = "https://api.click.uz/v2/merchant"
PAY_URL = "https://my.click.uz/services/pay"
MIN_SECRET_CHARS = 8  # Click issues 10 to 15; shorter is a typing slip or a placeholder


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One counterparty's part of every payment of a Split service, in hundredths of a percent."""

    cntrg_id: int
    basis_points: int


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One Click service. Everything has a default so that `checked` can name all that is missing at once.

    `service_id`, `merchant_id` and `merchant_user_id` are numbers that people write as text; both are taken.
    """

    service_id: int | str = ""
    merchant_id: int | str = ""
    secret_key: str = ""
    previous_secret_key: str | None = None  # still accepted while Click is being told the new one
    merchant_user_id: int | str | None = None  # opens the Merchant API: status, reversal, Click Pass
    reserve_minutes: int = 30  # how long a Prepare holds the order when no Complete follows
    card_type: Literal["uzcard", "humo"] | None = None  # offers only these cards on the pay page
    api_url: str = API_URL
    pay_url: str = PAY_URL
    protocol: Literal["shop", "advanced", "split"] = "shop"
    account_param: str = "account"  # Advanced and Split: the member of `params` that names our order
    answer_params: dict[str, str | int] = {}  # Advanced and Split: what Prepare answers in `params`
    shares: tuple[Share, ...] = ()  # Split only; they sum to 10 000

    def __repr__(self) -> str:
        return f"Config(service_id={self.service_id!r}, merchant_id={self.merchant_id!r}, secret_key=***)"

    @property
    def service(self) -> str:
        """The service id as it stands in a signature: decimal digits."""
        return _number(self.service_id) or ""

    @property
    def merchant(self) -> str:
        return _number(self.merchant_id) or ""

    @property
    def user(self) -> str | None:
        return _number(self.merchant_user_id)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that a signature may be made with, the current one first."""
        return (self.secret_key, self.previous_secret_key) if self.previous_secret_key else (self.secret_key,)


def checked(config: Config) -> Config:
    """Raises `Misconfigured`, naming every field that is missing or wrong and showing no value."""
    wrong = [
        name for name in ("service_id", "merchant_id") if not _number(getattr(config, name))
    ]  # an empty key would let anyone sign, so it stops the start instead
    if config.merchant_user_id is not None and not config.user:
        wrong.append("merchant_user_id")
    if not _usable(config.secret_key):
        wrong.append("secret_key")
    if config.previous_secret_key is not None and not _usable(config.previous_secret_key):
        wrong.append("previous_secret_key")
    if not 1 <= config.reserve_minutes <= 24 * 60:
        wrong.append("reserve_minutes")
    wrong += [name for name in ("api_url", "pay_url") if not getattr(config, name).startswith("http")]
    if config.protocol != "shop" and not config.account_param:
        wrong.append("account_param")
    if config.protocol == "split" and not _whole(config.shares):
        wrong.append("shares")
    if wrong:
        raise Misconfigured(f"Click: missing or unusable: {', '.join(wrong)}")
    return config


def _number(value: int | str | None) -> str | None:
    text = str(value).strip() if value is not None else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        return None
    return str(int(text))


def _usable(key: str) -> bool:
    return len(key) >= MIN_SECRET_CHARS and key == key.strip() and key.isprintable()


def _whole(shares: tuple[Share, ...]) -> bool:
    return (
        0 < len(shares) <= 20
        and all(share.basis_points > 0 and share.cntrg_id > 0 for share in shares)
        and sum(share.basis_points for share in shares) == 10_000
    )
