"""Plays Click, from Click's manual: real signed forms over HTTP, a payer who pays, and a menu of faults.

Shares no code with the connector: a misreading of the manual here cannot agree with one there.
"""

from tillgate.providers.click.simulator.desk import build_app
from tillgate.providers.click.simulator.payer import FAULTS, ClickSimulator, Receipt
from tillgate.providers.click.simulator.wire import Step

__all__ = ["FAULTS", "ClickSimulator", "Receipt", "Step", "build_app"]
