"""The configuration file: applied at every start, the same twice, wrong in clear words."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.commands import Done
from support.serving import Client, Credentials, Process, rows
from tillgate.declarations import read
from tillgate.runtime import Runtime
from tillgate.settings import load

Run = Callable[..., Done]
SECRET_KEY = "f3a9c41d2b7e8056" * 4
SHOP_SECRET = "a secret of the shop that is long enough to be one"
PAYME_KEY = "a-key-as-payme-gives-them-to-a-desk"
GOOD = """
[merchant.shop]
api_key = "key_shop"
api_secret = { env = "SHOP_SECRET" }
payment_ttl_s = 1800
preferences = { click = ["click"] }

[account.main-payme]
merchant = "shop"
provider = "payme"
default = true            # the documented paths of this provider serve this account
merchant_id = "587f72c72cac0d162c722ae2"
key = { file = "payme.key" }

[account.click]
merchant = "shop"
provider = "click"
service_id = { env = "CLICK_SERVICE" }
merchant_id = 54321
merchant_user_id = 77777
secret_key = "a-secret-as-click-gives-them"
priority = 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "payme.key").write_text(f"{PAYME_KEY}\n")
    path = tmp_path / "till.toml"
    path.write_text(GOOD)
    return path


def start(tmp_path: Path, database_url: str, file: Path, **more: str) -> Process:
    process = Process(
        tmp_path,
        ["up", "--port", "0", "--config", str(file)],
        {"database_url": database_url, "secret_key": SECRET_KEY, "log_format": "json", "rate_limit": 0},
    )
    process.settings |= {"SHOP_SECRET": SHOP_SECRET, "CLICK_SERVICE": "12345", **more}
    return process.start()


async def test_a_file_makes_a_hub_and_changes_it(tmp_path: Path, database_url: str, file: Path) -> None:
    with start(tmp_path, database_url, file).listening() as process:
        known = Credentials("key_shop", SHOP_SECRET, "", "")
        async with Client(process.url, known) as shop:
            await shop.login()
            accounts = {one["name"]: one for one in (await shop.ask("GET", "/v1/accounts")).json["data"]}
            assert accounts["main-payme"]["default"] is True
            assert accounts["main-payme"]["secrets"] == ["key"]
            assert accounts["click"]["config"]["service_id"] == "12345"
            assert accounts["click"]["priority"] == 5
            settings = (await shop.ask("GET", "/v1/settings")).json
            assert (settings["payment_ttl_s"], settings["preferences"]) == (1800, {"click": ["click"]})
            await elsewhere(shop)
            answer = await shop.ask("POST", "/payments/payme/webhook", {"id": 1, "method": "x", "params": {}})
            assert answer.json["error"]["code"] == -32504  # it serves the documented path
        assert "account.main-payme" in process.log
        assert process.stop() == 0
        for secret in (SHOP_SECRET, PAYME_KEY, "a-secret-as-click-gives-them"):
            assert secret not in process.log

    before = [await rows(database_url, f"SELECT * FROM {table}") for table in ("accounts", "credentials")]
    with start(tmp_path, database_url, file).listening() as process:
        assert process.stop() == 0
        assert "applied" not in process.log  # there was nothing to do
    after = [await rows(database_url, f"SELECT * FROM {table}") for table in ("accounts", "credentials")]
    assert after == before

    (tmp_path / "payme.key").write_text("another-key-as-payme-gives-them")
    file.write_text(GOOD.replace("priority = 5", "priority = 6\ndisabled = true").replace("1800", "3600"))
    with start(tmp_path, database_url, file, SHOP_SECRET=SHOP_SECRET + " anew").listening() as process:
        async with Client(process.url, Credentials("key_shop", SHOP_SECRET, "", "")) as shop:
            login = {"api_key": "key_shop", "api_secret": SHOP_SECRET}
            assert (await shop.ask("POST", "/token", login)).status == 401
            shop.credentials = Credentials("key_shop", SHOP_SECRET + " anew", "", "")
            await shop.login()
            accounts = {one["name"]: one for one in (await shop.ask("GET", "/v1/accounts")).json["data"]}
            assert (accounts["click"]["priority"], accounts["click"]["status"]) == (6, "disabled")
            assert (await shop.ask("GET", "/v1/settings")).json["payment_ttl_s"] == 3600
            basic = {"Authorization": "Basic UGF5Y29tOmFub3RoZXIta2V5LWFzLXBheW1lLWdpdmVzLXRoZW0="}
            call = {"id": 1, "method": "CheckTransaction", "params": {"id": "5305e3bab097f420a62ced0b"}}
            answer = await shop.ask("POST", "/payments/payme/webhook", call, headers=basic)
            assert answer.json["error"]["code"] == -31003
        assert process.stop() == 0


async def elsewhere(shop: Client) -> None:
    """A merchant may not have the hub call addresses of the hub's own network."""
    key = "xnd_development_AnExampleKeyThatOpensNothing"
    config = {"secret_key": key, "callback_token": "an-example-webhook-verification-token"}
    wanted = {"provider": "xendit", "name": "own", "config": config | {"base_url": "http://10.0.0.7/"}}
    answer = await shop.ask("POST", "/v1/accounts", wanted)
    assert (answer.status, answer.json["param"]) == (400, "config.base_url")
    made = await shop.ask("POST", "/v1/accounts", wanted | {"config": config})
    assert made.status == 201
    rotated = f"/v1/accounts/{made.json['id']}/rotate"
    answer = await shop.ask("POST", rotated, {"config": {"base_url": "https://vault.example"}})
    assert (answer.status, answer.json["param"]) == (400, "config.base_url")
    assert (await shop.ask("POST", rotated, {"config": {"secret_key": f"{key}Anew"}})).status == 200


async def test_two_that_start_at_once_make_it_once(tmp_path: Path, pg_url: str, file: Path) -> None:
    processes = [start(tmp_path, pg_url, file) for _ in range(3)]
    try:
        for process in processes:
            process.listening()
    finally:
        for process in processes:
            process.stop()
    for table, count in (("merchants", 1), ("credentials", 1), ("accounts", 2)):
        assert await rows(pg_url, f"SELECT count(*) FROM {table}") == [(count,)]


async def test_of_hubs_that_apply_it_at_the_same_instant_one_makes_it(pg_url: str, file: Path) -> None:
    """Again and again with new names, for a process meets the others' commits at another step each time."""
    settings = load({"database_url": pg_url, "secret_key": SECRET_KEY, "public_url": "http://127.0.0.1:1"})
    environment = {"SHOP_SECRET": SHOP_SECRET, "CLICK_SERVICE": "12345"}
    rounds, hubs = 8, 4
    async with AsyncExitStack() as stack:
        runtimes = [await stack.enter_async_context(Runtime(settings)) for _ in range(hubs)]
        for number in range(rounds):
            text = GOOD.replace("shop", f"shop-{number}").replace("priority = 5", "disabled = true")
            file.write_text(text)
            declared = read(file, environment)
            applied = await asyncio.gather(
                *(one.hub.declaring.apply(declared, sandbox=False) for one in runtimes)
            )
            made = Counter(one.what for done in applied for one in done if one.did == "made")
            assert made == {f"merchant.shop-{number}": 1, "account.main-payme": 1, "account.click": 1}
            for one in runtimes:
                assert await one.hub.declaring.apply(declared, sandbox=False) == []
            done = "UPDATE accounts SET is_default = false"  # so that the next shop may have it
            await rows(pg_url, done)
    for table, count in (("merchants", 1), ("credentials", 1), ("accounts", 2)):
        assert await rows(pg_url, f"SELECT count(*) FROM {table}") == [(count * rounds,)]
    assert await rows(pg_url, "SELECT count(*) FROM accounts WHERE disabled_at IS NULL") == [(rounds,)]


MISTAKES = [
    ("[merchant.shop]", "[merchant.shop", "till.toml: "),
    ('api_key = "key_shop"', "", "till.toml: merchant.shop.api_key: is missing"),
    ('{ env = "SHOP_SECRET" }', '"short"', "merchant.shop.api_secret: is weak"),
    ('env = "SHOP_SECRET"', 'env = "NOWHERE"', "shop.api_secret: the environment variable NOWHERE is"),
    ('file = "payme.key"', 'file = "nowhere.key"', "payme.key: the file nowhere.key cannot be read"),
    ('provider = "payme"', 'provider = "paypal"', "account.main-payme.provider: There is no such provider"),
    ('merchant = "shop"\nprovider = "payme"', 'merchant = "ship"\nprovider = "payme"',
     "account.main-payme.merchant: there is no such merchant"),
    ("default = true", 'default = "yes"', "account.main-payme.default: must be true or false"),
    ("priority = 5", "priority = -1", "account.click.priority: must be a whole number"),
    ("payment_ttl_s = 1800", "payment_ttl_s = 1", "merchant.shop.payment_ttl_s: must be"),
    ('click = ["click"]', 'payme = "main-payme"', "shop.preferences: must be such as"),
    ('click = ["click"]', 'payme = ["main"]', "there is no account named 'main'"),
    ('click = ["click"]', 'payme = ["click"]', "account click has no channel 'payme'"),
    ("payment_ttl_s", "payment_ttl", "merchant.shop.payment_ttl: there is no such setting"),
    ("merchant_id = 54321", 'merchant_id = "many"', "account.click: Click: missing or unusable: merchant_id"),
    ("default = true", 'sandbox = "maybe"', "account.main-payme.sandbox: "),
    ('merchant_id = "587f72c72cac0d162c722ae2"', "", "account.main-payme.merchant_id: is missing"),
    ("payment_ttl_s = 1800", 'callback_url = "http://10.0.0.7/hook"', "shop.callback_url: the URL must"),
    ("secret_key =", "secretkey =", "account.click: Click has no setting 'secretkey'"),
    ("[account.click]", "[acount.click]", "acount: there is no such table"),
    ("[account.click]", "[account.'a b']", "account.a b: a name is"),
    ('[merchant.shop]', '[merchant.other]\napi_key = "key_shop"\napi_secret = "x"\n[merchant.shop]',
     "merchant.shop.api_key: merchant.other has it, too"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), MISTAKES, ids=[one[2][:60] for one in MISTAKES])
def test_mistakes_are_named_by_their_place(tillgate: Run, file: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    done = check(tillgate, file)
    assert done.returncode == 1, done
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    for secret in (SHOP_SECRET, PAYME_KEY, "a-secret-as-click-gives-them"):
        assert secret not in done.stderr


def check(tillgate: Run, file: Path, *more: str) -> Done:
    """With the file's variables in a file of their own, as the environment of these commands is fixed."""
    text = file.read_text()
    for name, value in (("SHOP_SECRET", SHOP_SECRET), ("CLICK_SERVICE", "12345")):
        (file.parent / name).write_text(value)
        text = text.replace(f'env = "{name}"', f'file = "{name}"')
    file.write_text(text)
    return tillgate("config", "check", str(file), *more, secret_key=SECRET_KEY)


def test_a_good_file_is_called_good(tillgate: Run, file: Path) -> None:
    done = check(tillgate, file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file} is good: 1 merchant, 2 accounts.\n"
    found = json.loads(check(tillgate, file, "--json").stdout)
    assert found["ok"] is True
    assert [one["name"] for one in found["accounts"]] == ["main-payme", "click"]


def test_all_mistakes_are_said_at_once(tillgate: Run, file: Path) -> None:
    file.write_text(GOOD.replace("priority = 5", "priority = -1").replace("default = true", "default = 1"))
    done = check(tillgate, file, "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["ok"] is False
    assert len(said["mistakes"]) == 2


def test_settings_are_checked_too(tillgate: Run, file: Path) -> None:
    done = tillgate("config", "check", secret_key="weak")
    assert done.returncode == 1
    assert "TILLGATE_SECRET_KEY is weak" in done.stderr
    assert "good" in tillgate("config", "check", secret_key=SECRET_KEY).stdout
    missing = tillgate("config", "check", "nowhere.toml", secret_key=SECRET_KEY)
    assert "nowhere.toml: cannot be read" in missing.stderr


def test_a_hub_does_not_start_on_a_bad_file(tmp_path: Path, sqlite_url: str, file: Path) -> None:
    file.write_text(GOOD.replace("priority = 5", "priority = -1"))
    with start(tmp_path, sqlite_url, file) as process:
        assert process.wait() == 1
    assert (
        process.log.strip()
        == f"tillgate: {file}: account.click.priority: must be a whole number from 0 to 1000000"
    )
