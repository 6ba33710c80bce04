"""Names under which a provider is told of our attempts, where these are neither ours nor its own: kept before
it is told, so that what it says before, or without, an answer finds its payment."""

from __future__ import annotations

from tillgate.domain.errors import OrderConflict
from tillgate.domain.payment import LIVE, Attempt
from tillgate.domain.record import record
from tillgate.store.book import Plan, Remembered
from tillgate.store.ids import digest


@record
class Pushed:
    """A name as one account's provider is told it."""

    account_id: str
    name: str

    @property
    def digest(self) -> bytes:
        return digest("pushed", self.account_id, self.name)

    def take(self, plan: Plan, attempt_id: str) -> None:
        """Keep it for this attempt. Raises `OrderConflict` where a payer may have seen it before: what is
        paid under a name must be money for one attempt only."""
        known = self.attempt(plan)
        if known is not None and (known.phase in LIVE or known.external_id == self.name or known.paid_minor):
            raise OrderConflict(f"{self.name} was pushed before: another attempt needs another name")
        plan.answers.append(Remembered(self.digest, self.digest, attempt_id, 200, None, plan.now))

    def attempt(self, plan: Plan) -> Attempt | None:
        """The one that was last told by this name."""
        found = plan.answer(self.digest)
        return plan.attempt(found.subject) if found else None
