"""Plays Payme, offline: calls a merchant as Payme does, with real bytes over real HTTP and a menu of faults.

Serves Payme's checkout page and Subscribe API too. Written from Payme's manual; it shares no code with the
connector it tests.
"""

from tillgate.providers.payme.simulator.app import create_app
from tillgate.providers.payme.simulator.cards import Cards
from tillgate.providers.payme.simulator.desk import Desk, Inconsistent, Refused, Silent, Step
from tillgate.providers.payme.simulator.payer import FAULTS, PaymeSimulator, Receipt, read_link

__all__ = [
    "FAULTS",
    "Cards",
    "Desk",
    "Inconsistent",
    "PaymeSimulator",
    "Receipt",
    "Refused",
    "Silent",
    "Step",
    "create_app",
    "read_link",
]
