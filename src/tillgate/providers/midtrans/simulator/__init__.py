"""Plays Midtrans, offline: its Core API, its notifications, and a page on which a person plays the payer.

Written from Midtrans' pages; it shares no code with the connector that it tests.
"""

from tillgate.providers.midtrans.simulator.app import create_app
from tillgate.providers.midtrans.simulator.desk import Desk, MidtransError, Transaction
from tillgate.providers.midtrans.simulator.player import API_FAULTS, FAULTS, MidtransSimulator

__all__ = ["API_FAULTS", "FAULTS", "Desk", "MidtransError", "MidtransSimulator", "Transaction", "create_app"]
