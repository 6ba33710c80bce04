"""Who may be a terminal here: the configuration's, those enrolled while running, and the shared secret."""

import hmac
from collections.abc import Callable
from contextlib import suppress

from tillgate.providers.mobypay import journal_rows as rows
from tillgate.providers.mobypay.config import KioskConfig, TerminalConfig, check_terminal
from tillgate.providers.mobypay.errors import JournalUnavailable, TerminalBusy, TerminalExists, WeakSecret
from tillgate.providers.mobypay.journal import Journal
from tillgate.providers.mobypay.journal_rows import EnrolledTerminal
from tillgate.providers.mobypay.money import AmountForm
from tillgate.providers.mobypay.protocol import Key
from tillgate.providers.mobypay.signing import ALL_FORMS, Form, Forms, Secret
from tillgate.providers.mobypay.terminals import SHARED, Terminal, Terminals
from tillgate.providers.mobypay.vault import Vault


class Enrolment:
    """Keeps the register of terminals and what was learnt about how each of them signs."""

    def __init__(self, config: KioskConfig, journal: Journal, vault: Vault, clock: Callable[[], int]):
        """Reads the register. Raises JournalUnavailable when the vault's key does not open it."""
        self._config = config
        self._journal = journal
        self._vault = vault
        self._clock = clock
        shared = config.shared_secret
        self.terminals = Terminals(_key(SHARED, shared) if shared is not None else None)
        known = {entry.pos_id: entry for entry in journal.terminals()}
        configured = {terminal.pos_id for terminal in config.terminals}
        for entry in known.values():
            if not entry.configured and entry.pos_id not in configured:
                secret = vault.open(entry.pos_id, entry.sealed_secret).decode()
                self._add(entry.pos_id, secret, entry.port, _amount_form(entry.amount_form), _forms(entry))
        for terminal in config.terminals:
            before = known.get(terminal.pos_id)
            same = before is not None and self._is_secret(before, terminal.secret)
            forms = _forms(before) if before is not None and same else ALL_FORMS
            self._add(terminal.pos_id, terminal.secret, terminal.port, terminal.amount_form, forms)

    async def enrol(self, terminal: TerminalConfig, *, replace: bool = False) -> Terminal:
        """Add a terminal, or with `replace` give one a new secret. Repeating it changes nothing.

        Raises BadRequest, WeakSecret, TerminalExists, TerminalBusy or JournalUnavailable.
        """
        check_terminal(terminal, sandbox=self._config.sandbox)
        secret = terminal.secret.encode()
        known = self.terminals.get(terminal.pos_id)
        if known is not None and not known.learned and hmac.compare_digest(known.key.secret.raw, secret):
            return known
        if known is not None and not replace:
            raise TerminalExists(f"{terminal.pos_id} is known with another secret")
        if known is not None and known.in_flight is not None:
            raise TerminalBusy(f"{terminal.pos_id} is busy with {known.in_flight}")
        others = [other.key for other in self.terminals if other is not known]
        others += [self.terminals.shared] if self.terminals.shared else []
        if any(hmac.compare_digest(key.secret.raw, secret) for key in others):
            raise WeakSecret("another terminal has this secret")
        await self._write(terminal.pos_id, secret, terminal.port, terminal.amount_form, ALL_FORMS)
        return self._add(terminal.pos_id, terminal.secret, terminal.port, terminal.amount_form, ALL_FORMS)

    async def learnt(self, terminal: Terminal, forms: Forms) -> None:
        """Remember in which forms a terminal can be signing, also after a restart."""
        if terminal.learned or forms == terminal.key.forms:
            return
        terminal.key.forms = forms
        secret = terminal.key.secret.raw
        with suppress(JournalUnavailable):  # it will be learnt again
            await self._write(terminal.pos_id, secret, terminal.port, terminal.amount_form, forms)

    def _add(
        self, pos_id: str, secret: str, port: int | None, amount_form: AmountForm, forms: Forms
    ) -> Terminal:
        terminal = Terminal(pos_id, _key(pos_id, secret, forms), port=port, amount_form=amount_form)
        self.terminals.add(terminal)
        return terminal

    async def _write(
        self, pos_id: str, secret: bytes, port: int | None, amount_form: AmountForm, forms: Forms
    ) -> None:
        sealed = self._vault.seal(pos_id, secret)
        configured = any(terminal.pos_id == pos_id for terminal in self._config.terminals)
        entry = EnrolledTerminal(pos_id, sealed, port, amount_form, tuple(forms), configured)
        await self._journal.write([rows.terminal_row(entry, self._clock())])

    def _is_secret(self, entry: EnrolledTerminal, secret: str) -> bool:
        return hmac.compare_digest(self._vault.open(entry.pos_id, entry.sealed_secret), secret.encode())


def _key(name: str, secret: str, forms: Forms = ALL_FORMS) -> Key:
    return Key(
        name=name, secret=Secret(secret.encode()), pos_id=None if name == SHARED else name, forms=forms
    )


def _forms(entry: EnrolledTerminal) -> Forms:
    return tuple(Form(form) for form in entry.forms)


def _amount_form(text: str) -> AmountForm:
    return "integer" if text == "integer" else "decimal"
