"""What takes part in a round: it can be started on a storage, driven for some seconds, and stopped."""

from __future__ import annotations

import http.client
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.load import ID, Load, Step, json_post, play
from bench.process import BenchError, Server, clean_environment, free_port, slug

if TYPE_CHECKING:
    from bench.postgres import Postgres
    from bench.storage import Storage

REPOSITORY = Path(__file__).resolve().parent.parent
CONNECTIONS = 32


@dataclass(frozen=True)
class Sample:
    """One contestant's slice of one round. CPU in seconds per 1000 requests; `db` is PostgreSQL's share."""

    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_per_1k: float | None = None
    db_cpu_per_1k: float | None = None

    def as_json(self) -> dict[str, float | None]:
        return asdict(self)


class Contestant(Protocol):
    """`start` returns when it is ready to be driven; `measure` never overlaps another contestant's."""

    name: str

    def start(self, storage: Storage) -> None: ...

    def measure(self, seconds: float) -> Sample: ...

    def finish(self) -> None:
        """Stop, after checking that what was acknowledged is what is stored."""


def request(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = 10,
) -> tuple[int, Any]:
    """One small request outside the measurement: (status, parsed JSON or text)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        data = None if body is None else json.dumps(body).encode()
        sent = ({"Content-Type": "application/json"} if data else {}) | (headers or {})
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        raw = answer.read()
        kind = answer.headers.get_content_type()
        return answer.status, json.loads(raw) if kind == "application/json" else raw.decode(errors="replace")
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    """Whether the server answers 200 there by now."""
    try:
        return request(port, "GET", path, timeout_s=2)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


@dataclass
class HttpContestant:
    """A server that takes `POST /payments`; subclasses say how it is started, authorised and checked."""

    name: str
    connections: int = CONNECTIONS
    postgres: Postgres | None = None
    acknowledged: int = field(default=0, init=False)
    url: str = field(default="", init=False)
    server: Server = field(init=False, repr=False)
    storage: Storage = field(init=False, repr=False)

    ready_path = "/healthz"

    def command(self, directory: Path) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment, for a database of its own at `self.url`."""
        raise NotImplementedError

    def bearer(self) -> str:
        raise NotImplementedError

    def flow(self) -> list[Step]:
        """A create, complete: token, JSON in, JSON out."""
        return [create_step(self.bearer())]

    def start(self, storage: Storage) -> None:
        self.storage = storage
        directory = storage.directory(slug(self.name))
        self.port = free_port()
        argv, env = self.command(directory)
        self.server = Server(
            self.name, argv, clean_environment(**storage.env(), **env), directory, port=self.port
        )
        self.server.wait_until(lambda: answers(self.port, self.ready_path))

    def measure(self, seconds: float) -> Sample:
        flow = self.flow()
        self.server.check()
        cpu, db_cpu = self.server.cpu_s(), self.postgres.cpu_s() if self.postgres else 0.0
        load = play(self.port, flow, seconds=seconds, connections=self.connections).right(self.name)
        cpu = self.server.cpu_s() - cpu
        db_cpu = self.postgres.cpu_s() - db_cpu if self.postgres else 0.0
        self.server.check()
        self.acknowledged += load.all_flows
        self.settle()
        return sample(load, cpu, db_cpu if self.postgres else None)

    def settle(self) -> None:
        """Let a fresh database look like a lived-in one.

        A connection keeps the plan that it made for a foreign key while the table was empty, and grows slower
        with every row until somebody runs ANALYZE. Everyone on PostgreSQL is spared that.
        """
        if self.postgres:
            self.postgres.sql(self.url.rpartition("/")[2], "ANALYZE")

    def stored(self) -> int:
        """How many payments its database holds."""
        raise NotImplementedError

    def finish(self) -> None:
        self.server.check()
        stored = self.stored()
        self.server.stop()
        if stored != self.acknowledged:
            raise BenchError(f"{self.name} acknowledged {self.acknowledged} payments but stores {stored}")


def sample(load: Load, cpu_s: float, db_cpu_s: float | None = None) -> Sample:
    per_1k = 1000 / max(1, load.all_flows)
    return Sample(
        load.rate, load.p50_ms, load.p99_ms, cpu_s * per_1k, None if db_cpu_s is None else db_cpu_s * per_1k
    )


def create_step(bearer: str, *, capture: str = "", **more: Any) -> Step:
    """The create that every contestant takes; `more` goes into its body."""
    body = {"wallet_id": "gopay", "amount": 150000, "currency": "IDR", "order_id": f"order-{ID}"}
    return json_post(
        "/payments",
        body | more,
        {"Authorization": f"Bearer {bearer}"},
        marker='"payment_id":"pay_',
        capture=capture,
    )


def uvicorn(application: str, port: int) -> list[str]:
    """A peer's command line: the hub's server and settings, so that only the application differs."""
    return [
        sys.executable, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", str(port),
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
        "--app-dir", str(REPOSITORY),
    ]  # fmt: skip
