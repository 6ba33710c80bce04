"""Settings of the stand-alone IPN service, from arguments and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tillgate.domain.errors import Misconfigured
from tillgate.providers.atompos_vn.config import Auth, Config
from tillgate.providers.atompos_vn.tokens import Algorithm

ENVIRONMENT: Final = "TILLGATE_IPN_"
_PATH_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{32,200}", re.ASCII)
_ANYWHERE: Final = ("0.0.0.0/0", "::/0")
_FLAGS: Final = {"1": True, "true": True, "yes": True, "": False, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Options:
    """Every field may also come from the environment: `TILLGATE_IPN_DATABASE`, `…_JWT_SECRET`, `…_ALLOW`, …

    A secret may come from a file: `TILLGATE_IPN_JWT_SECRET_FILE`. `auth`: jwt, header, path or none; without
    it jwt where there is a `jwt_secret`, else none, as the sample service has it, and loudly. `allow`:
    addresses or networks that may send, `*` for any; without it any, with auth none the shop's own network.
    """

    database: str = "tillgate-ipn.db"
    partner: str = "default"
    auth: Auth | Literal[""] = ""
    jwt_secret: str = field(default="", repr=False)
    previous_jwt_secret: str = field(default="", repr=False)
    jwt_algorithm: Algorithm = "HS256"
    token_ttl_s: int = 300
    user: str = ""
    password: str = field(default="", repr=False)
    header_name: str = "x-callback-token"
    header_value: str = field(default="", repr=False)
    path_token: str = field(default="", repr=False)  # auth path: the IPN goes to /ipn/<this>
    allow: tuple[str, ...] = ()
    split_tender: bool = False  # one requestId may be paid in parts
    ack_permanent_errors: bool = False
    concurrency: int = 16
    tries: int = 15
    pause_s: float = 1.0
    timeout_s: float = 300.0

    @property
    def mode(self) -> str:
        return self.auth or ("jwt" if self.jwt_secret else "none")

    def account(self) -> Config:
        """The partner, as the connector knows one. Raises `Misconfigured`."""
        if self.mode not in get_args(Auth):
            raise Misconfigured(f"auth is one of {' '.join(get_args(Auth))}")
        if self.jwt_algorithm not in get_args(Algorithm):
            raise Misconfigured(f"jwt_algorithm is one of {' '.join(get_args(Algorithm))}")
        path = self.mode == "path"
        if path and not _PATH_TOKEN.fullmatch(self.path_token):
            raise Misconfigured("auth path needs a path_token of 32 or more letters, digits, - and _")
        here: Any = "none" if path else self.mode  # the path is checked before the connector is asked
        anywhere = "*" in self.allow or (path and not self.allow)
        return Config(
            auth=here,
            jwt_secret=self.jwt_secret,
            previous_jwt_secret=self.previous_jwt_secret,
            jwt_algorithm=self.jwt_algorithm,
            token_ttl_s=self.token_ttl_s,
            user=self.user,
            password=self.password,
            header_name=self.header_name,
            header_value=self.header_value,
            allow_ips=_ANYWHERE if anywhere else self.allow,
            ack_permanent_errors=self.ack_permanent_errors,
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Options:
        """What is given, then what the environment says. Raises `Misconfigured`."""
        options = cls(**given)
        said: dict[str, Any] = {}
        for name, default in vars(cls()).items():
            variable = ENVIRONMENT + name.upper()
            text = environ.get(variable)
            if (path := environ.get(f"{variable}_FILE")) is not None:
                try:
                    text = Path(path).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise Misconfigured(f"{variable}_FILE cannot be read: {error.strerror}") from None
            if text is not None and name not in given:
                said[name] = _typed(variable, text, default)
        return replace(options, **said)


def _typed(variable: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return _FLAGS[text.lower()]
        if isinstance(default, tuple):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return type(default)(text)
    except (KeyError, ValueError):
        raise Misconfigured(f"{variable} is not a {type(default).__name__}") from None
