"""`process_ipn` of a shop whose books are slow: five seconds for each IPN."""

import time
from typing import Any


def process_ipn(_ipn: Any) -> None:
    time.sleep(5)
