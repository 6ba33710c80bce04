"""Migrations without downtime: scripts only add, and a version works on a newer one's database."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Commands
from support.postgres import free_port
from support.serving import client, hub_in_thread, new_merchant, rows
from support.sink import sink
from tillgate.domain.errors import Misconfigured
from tillgate.store import schema
from tillgate.store.tables import metadata

SCRIPTS = sorted((Path(schema.__file__).parent / "migrations" / "versions").glob("*.py"))
FIRST = "7d2fc2bb28c3"
# What adds, and what is written inside it.
ADDS = {
    "create_table",
    "create_index",
    "add_column",
    "batch_alter_table",
    "f",
    "get_context",
    "autocommit_block",
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in ("op", "batch_op"):
                yield node.func.attr, node


def keywords(call: ast.Call) -> dict[str, object]:
    return {one.arg: getattr(one.value, "value", one.value) for one in call.keywords if one.arg}


def broken_rules(source: str) -> list[str]:
    """What a script does that the version before could not live with."""
    tree = ast.parse(source)
    [upgrade] = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "upgrade"]
    made = {
        one.args[0].value
        for name, one in calls(upgrade)
        if name == "create_table" and isinstance(one.args[0], ast.Constant)
    }
    wrong = []
    for name, call in calls(upgrade):
        if name not in ADDS:
            wrong.append(f"{name} takes away or changes")
        elif name == "add_column":
            for column in (one for one in ast.walk(call) if isinstance(one, ast.Call) and one is not call):
                if getattr(column.func, "attr", "") == "Column":
                    given = keywords(column)
                    if given.get("nullable") is not True and "server_default" not in given:
                        wrong.append("add_column of what the version before does not fill")
        elif name == "create_index" and keywords(call).get("unique") is True:
            tables = {one.value for one in call.args if isinstance(one, ast.Constant)}
            if not tables & made:
                wrong.append("create_index that refuses what the version before writes")
    return wrong


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.stem)
def test_scripts_after_the_first_only_add(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    if f'revision = "{FIRST}"' not in source:
        assert broken_rules(source) == []


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ('op.drop_column("payments", "late")', 1),
        ('op.execute("UPDATE payments SET late = true")', 1),
        ('op.rename_table("due", "work")', 1),
        ('op.add_column("payments", sa.Column("shop", sa.Text(), nullable=False))', 1),
        ('op.add_column("payments", sa.Column("shop", sa.Text()))', 1),
        ('op.add_column("payments", sa.Column("shop", sa.Text(), nullable=True))', 0),
        ('op.add_column("payments", sa.Column("n", sa.Integer(), nullable=False, server_default="0"))', 0),
        ('op.create_index("uq", "payments", ["order_id"], unique=True)', 1),
        (
            'op.create_table("shops", sa.Column("i"))\n    op.create_index("u", "shops", ["i"], unique=True)',
            0,
        ),
        ('with op.batch_alter_table("due") as batch_op:\n        batch_op.alter_column("kind")', 1),
        ('with op.batch_alter_table("due") as batch_op:\n        batch_op.create_index("ix", ["kind"])', 0),
    ],
)
def test_the_rules_see_what_breaks_them(body: str, count: int) -> None:
    assert len(broken_rules(f"def upgrade():\n    {body}\n")) == count


async def next_version_was_here(database_url: str) -> None:
    """What an additive migration may do, everywhere, under a revision that this version has not heard of."""
    for table in metadata.sorted_tables:
        for statement in (
            f"ALTER TABLE {table.name} ADD COLUMN next_text TEXT",
            f"ALTER TABLE {table.name} ADD COLUMN next_number BIGINT NOT NULL DEFAULT 7",
            f"CREATE INDEX next_ix_{table.name} ON {table.name} (next_text)",
        ):
            await rows(database_url, statement)
    await rows(
        database_url,
        "CREATE TABLE next_things (id TEXT PRIMARY KEY, payment_id TEXT REFERENCES payments (id))",
    )
    await rows(database_url, "UPDATE alembic_version SET version_num = 'feedfacecafe'")


async def test_this_version_works_on_the_next_ones_database(tmp_path: Path, database_url: str) -> None:
    """As during every update: first the migration, then one process after another; old ones may restart."""
    port = free_port()
    with hub_in_thread(database_url, callback_allow=f"127.0.0.1:{port}") as url:
        shop = new_merchant(database_url)
        async with client(url, shop) as till, sink(port) as ear:
            before = await till.paid(callback_url=ear.url)
            await ear.until(1)
            await next_version_was_here(database_url)  # beside a hub that runs

            async def walk(known: int) -> None:
                paid = await till.paid(callback_url=ear.url)
                await ear.until(known + 1)
                assert (await till.refund(paid, 1000)).status == 200
                await till.until(paid, status_detail="partially_refunded")
                await ear.until(known + 2)
                assert (await till.refund(before, 100)).status == 200
                await ear.until(known + 3)
                unsure = await till.open(amount=20_901)
                await till.until(unsure, status_detail="unsure")
                v1 = await till.ask("GET", "/v1/payments?limit=50")
                assert (v1.status, v1.json["data"][0]["id"]) == (200, unsure)
                endpoint = {"url": ear.url, "event_types": ["payment.paid"]}
                assert (await till.ask("POST", "/v1/webhook-endpoints", endpoint)).status == 201

            await walk(1)
    # Its processes may also start again.
    with hub_in_thread(database_url, callback_allow=f"127.0.0.1:{port}") as url:
        async with client(url, shop) as till:
            assert (await till.status(await till.paid()))["status"] == "success"
    given = {"database_url": database_url, "sandbox": 1}
    with Commands() as commands:
        for arguments, says in (
            (("ledger", "verify"), "Everything fits"),
            (("migrate",), "newer than this version"),
            (("migrate", "--check"), "newer than this version"),
        ):
            done = commands.run(tmp_path, *arguments, **given)
            assert (done.returncode, says in done.stdout) == (0, True), done
    assert schema.upgrade(database_url) == "feedfacecafe"


async def test_a_version_that_is_too_old_is_told(database_url: str) -> None:
    schema.upgrade(database_url)
    await rows(database_url, "UPDATE alembic_version SET version_num = 'feedfacecafe'")
    await rows(database_url, f"INSERT INTO meta (key, value) VALUES ('usable_from', '{schema.head()}')")
    assert schema.usable(database_url)
    await rows(database_url, "UPDATE meta SET value = 'feedfacecafe'")
    for ask in (schema.upgrade, schema.usable):
        with pytest.raises(Misconfigured, match="install a newer one"):
            ask(database_url)
