"""Which terminals there are, which connection each of them is on, and which may be given a payment.

The link has no hello: a terminal says nothing until it is asked. So who is at the other end of a connection
is known from the port it came to, from its certificate, or from the first message it signs; until then it
is a stranger, and a stranger is asked for a payment only where no other terminal could be meant.
"""

import itertools
from collections.abc import Container, Iterator
from typing import Protocol

from tillgate.providers.mobypay.errors import NoTerminal, TerminalBusy, UnknownTerminal
from tillgate.providers.mobypay.money import AmountForm
from tillgate.providers.mobypay.protocol import Key, Link, Received

SHARED = "shared"
NAMELESS = "unidentified-"


class Connection(Protocol):
    """One TCP connection, as far as the kiosk cares."""

    number: int
    address: str
    link: Link
    terminal: "Terminal | None"
    identified: bool

    @property
    def alive(self) -> bool:
        """Whether bytes could still leave on it."""

    async def send(self, frame: bytes) -> None:
        """Hand over bytes. Raises ConnectionError when they may not all have left."""

    def close(self, why: str) -> None:
        """Let go of it, soon."""


class Terminal:
    """One terminal. `learned` ones named themselves with the shared secret; the others are enrolled with
    their own.
    """

    def __init__(
        self,
        pos_id: str,
        key: Key,
        *,
        port: int | None = None,
        amount_form: AmountForm = "decimal",
        learned: bool = False,
    ):
        self.pos_id = pos_id
        self.key = key
        self.port = port
        self.amount_form: AmountForm = amount_form
        self.learned = learned
        self.nameless = False
        self.connection: Connection | None = None
        self.in_flight: str | None = None
        self.skew_ms: int | None = None
        self.heard_ms: int | None = None
        self.used_ms = 0

    def __repr__(self) -> str:
        return f"Terminal({self.pos_id!r})"

    @property
    def connected(self) -> bool:
        """Whether there is a live connection on which it can be reached."""
        return self.connection is not None and self.connection.alive


class Impostor(Exception):
    """A well-signed message from a connection that is not, or cannot be known to be, the terminal it
    names.
    """

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


class Terminals:
    """The terminals of one kiosk."""

    def __init__(self, shared: Key | None):
        self.shared = shared
        self._by_name: dict[str, Terminal] = {}
        self._connections: dict[int, Connection] = {}
        self._strangers = itertools.count(1)

    def __iter__(self) -> Iterator[Terminal]:
        return iter(list(self._by_name.values()))

    def get(self, pos_id: str) -> Terminal | None:
        """A terminal by its name."""
        return self._by_name.get(pos_id)

    def that_has(self, txn_id: str, pos_id: str) -> Terminal | None:
        """The terminal that a payment was given to under this name; it may have said another one since."""
        found = self._by_name.get(pos_id)
        if found is None:
            found = next((one for one in self._by_name.values() if one.in_flight == txn_id), None)
        return found

    def add(self, terminal: Terminal) -> None:
        """Enrol a terminal, or replace the one of that name."""
        before = self._by_name.get(terminal.pos_id)
        self._by_name[terminal.pos_id] = terminal
        if before is not None and before.connection is not None:
            before.connection.close("its secret was replaced")

    def keys_for(self, port_owner: Terminal | None) -> list[Key]:
        """The secrets a connection may turn out to hold."""
        if port_owner is not None:
            return [port_owner.key]
        keys = [terminal.key for terminal in self._enrolled() if terminal.port is None]
        return keys if self.shared is None else [*keys, self.shared]

    def opened(self, connection: Connection, owner: Terminal | None, *, proven: bool) -> Connection | None:
        """A connection began; `owner` is known from its port or, `proven`, from its certificate.

        The older connection of the same terminal, if a proven one supersedes it.
        """
        self._connections[connection.number] = connection
        connection.identified = proven
        if owner is None and connection.link.key is not None and connection.link.key is not self.shared:
            owner = self._by_name[connection.link.key.name]  # the only terminal this port can have
        if owner is None and connection.link.key is not None:  # it can only hold the shared secret
            owner = self._nameless()
        connection.terminal = owner
        if owner is None:
            return None
        connection.link.amount_form = owner.amount_form
        older = owner.connection if owner.connected else None
        if older is not None and not proven:
            return None
        owner.connection = connection
        return older

    def heard(self, connection: Connection, received: Received) -> tuple[Terminal, Connection | None]:
        """Who signed a message, and the older connection of the same terminal, if it is thereby superseded.

        Raises Impostor when the message names a terminal that this connection cannot speak for.
        """
        if received.key is self.shared:
            return self._learn(connection, received.pos_id), None
        terminal = self._by_name[received.key.name]
        older = terminal.connection if terminal.connection is not connection and terminal.connected else None
        self._forget_nameless(connection, terminal)
        connection.terminal, connection.identified = terminal, True
        connection.link.amount_form = terminal.amount_form
        if not connection.alive:
            return terminal, None  # its last words; a newer connection has taken its place, or none
        terminal.connection = connection
        return terminal, older

    def closed(self, connection: Connection) -> None:
        """A connection ended. Another one to the same terminal, if there is one, takes its place."""
        self._connections.pop(connection.number, None)
        terminal = connection.terminal
        if terminal is None or terminal.connection is not connection:
            return
        waiting = [
            other for other in self._connections.values() if other.terminal is terminal and other.alive
        ]
        terminal.connection = waiting[0] if waiting else None
        if terminal.nameless:
            self._by_name.pop(terminal.pos_id, None)

    def is_open(self, number: int) -> bool:
        """Whether the connection of that number has not ended."""
        return number in self._connections

    def choose(self, pos_id: str | None, doubtful: Container[str] = ()) -> tuple[Terminal, Connection]:
        """The terminal for a new payment and the connection to it: the one named, or the idle one used
        longest ago.

        Terminals in `doubtful`, where an outcome is still open, come last. One payment at a time: nothing
        queues behind another. Raises UnknownTerminal, NoTerminal or TerminalBusy.
        """
        if pos_id is not None:
            terminal = self._by_name.get(pos_id)
            if terminal is None:
                raise UnknownTerminal(f"there is no terminal named {pos_id}")
            connection = self._reachable(terminal)
            if terminal.in_flight is not None:
                raise TerminalBusy(f"{terminal.pos_id} is busy with {terminal.in_flight}")
            return terminal, connection
        connected = [terminal for terminal in self._by_name.values() if terminal.connected]
        named = [terminal for terminal in connected if not terminal.nameless]
        if not named and len(connected) > 1:
            raise NoTerminal(
                "several terminals are connected and none has said who it is:"
                " name one, or give each its own port"
            )
        usable = [(terminal, self._trusted(terminal)) for terminal in named or connected]
        reachable = [(terminal, connection) for terminal, connection in usable if connection is not None]
        if not reachable:
            raise NoTerminal(_AMBIGUOUS if usable else self._nobody())
        idle = [pair for pair in reachable if pair[0].in_flight is None]
        if not idle:
            raise TerminalBusy("every connected terminal is busy")
        return min(idle, key=lambda pair: (pair[0].pos_id in doubtful, pair[0].used_ms))

    def _nobody(self) -> str:
        if any(connection.alive for connection in self._connections.values()):
            return (
                "a terminal is connected, but has not said which one it is: give each a port of its own,"
                " or have it sign something first"
            )
        return "no terminal is connected"

    def _reachable(self, terminal: Terminal) -> Connection:
        if not terminal.connected:
            raise NoTerminal(f"{terminal.pos_id} is not connected")
        connection = self._trusted(terminal)
        if connection is None:
            raise NoTerminal(f"{terminal.pos_id}: {_AMBIGUOUS}")
        return connection

    def _trusted(self, terminal: Terminal) -> Connection | None:
        """The connection that is the terminal's; None when several claim to be and none has proven it."""
        mine = [item for item in self._connections.values() if item.terminal is terminal and item.alive]
        proven = [item for item in mine if item.identified]
        return proven[-1] if proven else mine[0] if len(mine) == 1 else None

    def _learn(self, connection: Connection, name: str | None) -> Terminal:
        current = connection.terminal
        if current is not None and not current.nameless:
            if name not in (None, current.pos_id):
                text = f"A connection that is {current.pos_id} sent a message in the name of {name[:64]}."
                raise Impostor("other_pos_id", text)
            return current
        if name is None:
            return self._bind(connection, current or self._nameless())
        known = self._by_name.get(name)
        if known is not None and not known.learned:
            text = f"A message in the name of {name[:64]} was signed with the shared secret."
            raise Impostor("not_its_secret", text)
        if known is not None and known is not current and known.connected:
            text = f"A second connection speaks in the name of {name[:64]} while the first is alive."
            raise Impostor("second_connection", text)
        terminal = known or Terminal(name, self._shared(), learned=True)
        if current is not None:
            terminal.in_flight = terminal.in_flight or current.in_flight
        self._by_name[name] = terminal
        self._forget_nameless(connection, terminal)
        return self._bind(connection, terminal)

    def _bind(self, connection: Connection, terminal: Terminal) -> Terminal:
        connection.terminal, connection.identified, terminal.connection = terminal, True, connection
        connection.link.amount_form = terminal.amount_form
        return terminal

    def _forget_nameless(self, connection: Connection, successor: Terminal) -> None:
        before = connection.terminal
        if before is not None and before is not successor and before.nameless:
            self._by_name.pop(before.pos_id, None)

    def _shared(self) -> Key:
        assert self.shared is not None, "only connections that may hold the shared secret get here"
        return self.shared

    def _nameless(self) -> Terminal:
        terminal = Terminal(f"{NAMELESS}{next(self._strangers)}", self._shared(), learned=True)
        terminal.nameless = True
        self._by_name[terminal.pos_id] = terminal
        return terminal

    def _enrolled(self) -> list[Terminal]:
        return [terminal for terminal in self._by_name.values() if not terminal.learned]


_AMBIGUOUS = "several connections claim to be this terminal and none has proven it; close the others"
