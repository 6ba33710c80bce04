"""The use cases. Each is one commit, or two around a call; no transaction is open during a call."""

from __future__ import annotations

from tillgate.hub.accounts import Accounts
from tillgate.hub.declaring import Declaring
from tillgate.hub.endpoints import Endpoints
from tillgate.hub.handing import KIND, Handing
from tillgate.hub.keys import Key
from tillgate.hub.kiosks import Kiosks
from tillgate.hub.kit import Kit
from tillgate.hub.links import PaymentLinks
from tillgate.hub.listening import Listening
from tillgate.hub.opening import Intent, Opened, Opening
from tillgate.hub.reconciling import Reconciling
from tillgate.hub.refunding import Refunding, RefundOpened
from tillgate.hub.resending import Resending
from tillgate.hub.serving import Serving
from tillgate.hub.standing import Standing
from tillgate.hub.upkeep import Upkeep
from tillgate.hub.watching import Watching


class Hub:
    """What the web, the workers and the command line call."""

    def __init__(self, kit: Kit) -> None:
        listening = Listening(kit)
        refunding = Refunding(kit, listening)
        upkeep = Upkeep(kit, listening, refunding)
        self.kit = kit
        opening = Opening(kit)
        self.open = opening.open
        self.serve = Serving(kit, opening).serve
        self.receive = listening.receive
        self.told = listening.told
        self.polled = Watching(kit).polled
        self.refund = refunding.refund
        self.cancel = upkeep.cancel
        self.resolve = upkeep.resolve
        self.cancel_once = upkeep.cancel_once
        self.resolve_once = upkeep.resolve_once
        self.handing = Handing(kit)
        self.due_work = {**upkeep.kinds, KIND: self.handing.run}
        self.kiosks = Kiosks(kit)
        self.accounts = Accounts(kit)
        self.declaring = Declaring(kit, self.accounts)
        self.standing = Standing(kit)
        self.links = PaymentLinks(kit, kit.reads.links, opening, upkeep)
        self.reconciling = Reconciling(kit)
        self.endpoints = Endpoints(kit)
        self.resending = Resending(kit)


__all__ = ["Hub", "Intent", "Key", "Kit", "Opened", "RefundOpened"]
