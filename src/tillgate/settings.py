"""The hub's configuration: read once from `TILLGATE_*`, then passed in.

Every variable can also be given as a file: `TILLGATE_SECRET_KEY_FILE=/run/secrets/key`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tillgate.domain.errors import Misconfigured

SANDBOX_SECRET_KEY = "sandbox-only-this-key-is-published-never-use-it-for-money"  # noqa: S105
_WEAK = frozenset({SANDBOX_SECRET_KEY, "secret", "changeme", "change-me", "password"})
MIN_SECRET_CHARS = 32
MIN_TOKEN_CHARS = 16


class Settings(BaseSettings):
    """What a deployment says. The descriptions are the documentation (`docs/settings.md`)."""

    model_config = SettingsConfigDict(env_prefix="TILLGATE_", extra="ignore", frozen=True)

    database_url: str = Field("sqlite:///tillgate.db", description="`sqlite:///file.db` or `postgresql://…`.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    public_url: str = Field(
        "", description="How payers and providers reach this hub; default `http://HOST:PORT`."
    )
    secret_key: SecretStr = Field(
        SecretStr(""), description="Seals accounts and signs tokens; 32 characters or more."
    )
    secret_key_previous: SecretStr = Field(
        SecretStr(""), description="Keys that old values may still be sealed with, separated by commas."
    )
    sandbox: bool = Field(
        False, description="Play with pretended wallets: no money moves, no network is needed."
    )
    bootstrap_api_key: str = Field("", description="Make this merchant at the start if it is absent.")
    bootstrap_api_secret: SecretStr = Field(SecretStr(""), description="Its API secret.")
    bootstrap_api_key_2: str = Field("", description="A second merchant.")
    bootstrap_api_secret_2: SecretStr = Field(SecretStr(""), description="Its API secret.")
    config: str = Field(
        "",
        description="A [file that declares merchants and accounts](configuration.md), applied at the start.",
    )
    token_ttl_s: int = Field(3600, ge=30, le=86400, description="How long an access token lives.")
    rate_limit: int = Field(
        6000,
        ge=0,
        description="Requests a minute for each merchant (or address, before login); 0 is no limit.",
    )
    page_rate_limit: int = Field(
        1200,
        ge=0,
        description="Requests a minute for each address to the pages that payers see, and a tenth of it for "
        "payments opened by links; 0 is no limit. Behind a proxy on another machine set "
        "`FORWARDED_ALLOW_IPS`, or all payers are one address.",
    )
    callback_allow: str = Field("", description="`host:port,…` inside addresses that callbacks may go to.")
    legacy_error_code_200: bool = Field(
        False,
        description='Print errorCode "200" for bad credentials, as early documents did; HTTP stays 401.',
    )
    body_limit_bytes: int = Field(65536, ge=1024, description="The largest request body of the merchant API.")
    endpoint_disable_after_s: int = Field(
        432_000,
        ge=3600,
        description="Switch a webhook endpoint off when nothing could be delivered to it for so long.",
    )
    log_level: str = Field("info", description="debug, info, warning or error.")
    log_format: str = Field("auto", description="json, text, or auto: text on a terminal.")
    ops_listen: str = Field(
        "",
        description="`host:port` of a second listener for `/metrics`, `/healthz` and `/readyz`, of hubs and"
        " workers; keep it [inside your network](operations.md).",
    )
    metrics_token: SecretStr = Field(
        SecretStr(""),
        description="Serve `/metrics` on the public port, too, to who sends this as a bearer token.",
    )
    tracing: bool = Field(
        False,
        description="Export [OpenTelemetry traces](operations.md#traces) over OTLP; needs the extra `otel`.",
    )
    process_ipn: str = Field(
        "",
        description="`module:function` that is called with every [ATOM POS IPN](atom-pos.md), once each.",
    )
    worker: bool = Field(
        True, description="Run due work inside `tillgate up`; off where `tillgate worker` runs."
    )

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("must be debug, info, warning or error")
        return value.lower()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _FileSource(settings_cls)

    @property
    def url(self) -> str:
        if self.public_url:
            return self.public_url.rstrip("/")
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def secret_keys(self) -> tuple[str, ...]:
        """The current key first. Raises `Misconfigured` for a missing or weak one outside the sandbox."""
        key = self.secret_key.get_secret_value()
        if self.sandbox and not key:
            return (SANDBOX_SECRET_KEY,)
        if not key:
            raise Misconfigured("TILLGATE_SECRET_KEY is not set (for a try without money: --sandbox)")
        given = self.secret_key_previous.get_secret_value().split(",")
        previous = [one.strip() for one in given if one.strip()]
        if not self.sandbox:
            _require_strong("TILLGATE_SECRET_KEY", key)
            for one in previous:  # tokens that it signed are still taken
                _require_strong("TILLGATE_SECRET_KEY_PREVIOUS", one)
        return (key, *previous)

    def metrics_bearer(self) -> str | None:
        """Raises `Misconfigured` for a weak one outside the sandbox."""
        token = self.metrics_token.get_secret_value()
        if token and not self.sandbox and len(token) < MIN_TOKEN_CHARS:
            raise Misconfigured(f"TILLGATE_METRICS_TOKEN is weak: {MIN_TOKEN_CHARS} characters or more")
        return token or None

    def ops_address(self) -> tuple[str, int] | None:
        """Raises `Misconfigured` for what is no `host:port`."""
        if not self.ops_listen:
            return None
        host, _, port = self.ops_listen.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise Misconfigured("TILLGATE_OPS_LISTEN is host:port, for example 127.0.0.1:9464")
        return host, int(port)

    def bootstrap(self) -> list[tuple[str, str]]:
        """API keys and secrets of merchants to make. Raises `Misconfigured` for half a pair or a weak one."""
        pairs = [
            ("", self.bootstrap_api_key, self.bootstrap_api_secret.get_secret_value()),
            ("_2", self.bootstrap_api_key_2, self.bootstrap_api_secret_2.get_secret_value()),
        ]
        for number, key, secret in pairs:
            if bool(key) != bool(secret):
                raise Misconfigured(f"TILLGATE_BOOTSTRAP_API_KEY{number} and _SECRET{number} belong together")
            if secret and not self.sandbox and len(secret) < MIN_SECRET_CHARS:
                raise Misconfigured(
                    f"TILLGATE_BOOTSTRAP_API_SECRET{number} is weak: {MIN_SECRET_CHARS} characters or more"
                )
        return [(key, secret) for _, key, secret in pairs if key]


def _require_strong(name: str, key: str) -> None:
    if key.lower() in _WEAK or len(key) < MIN_SECRET_CHARS or len(set(key)) < 8:
        raise Misconfigured(
            f"{name} is weak: give {MIN_SECRET_CHARS} random characters or more, "
            "for example from: openssl rand -hex 32"
        )


class _FileSource(PydanticBaseSettingsSource):
    """`TILLGATE_NAME_FILE`: the value is in that file."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"TILLGATE_{field_name.upper()}_FILE")
        return (Path(path).read_text(encoding="utf-8").strip() if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the environment. Raises `Misconfigured` with a line per mistake."""
    try:
        return Settings(**dict(overrides or {}))
    except ValidationError as error:
        lines = [f"TILLGATE_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()]
        raise Misconfigured("\n".join(lines)) from None
    except OSError as error:
        raise Misconfigured(f"a *_FILE setting cannot be read: {error}") from None
