"""Plays Xendit, offline: its Payments API v3, its webhooks, and a page on which a person plays the payer.

Written from Xendit's pages; it shares no code with the connector that it tests.
"""

from tillgate.providers.xendit.simulator.app import create_app
from tillgate.providers.xendit.simulator.desk import Desk, Request, XenditError
from tillgate.providers.xendit.simulator.player import API_FAULTS, FAULTS, XenditSimulator

__all__ = ["API_FAULTS", "FAULTS", "Desk", "Request", "XenditError", "XenditSimulator", "create_app"]
