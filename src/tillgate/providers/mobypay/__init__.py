"""MobyPay's POS-KIOSK link: signed JSON lines over TCP between a kiosk (server) and its card terminals
(clients).

`protocol` speaks the wire with no I/O in it, `lifecycle` rules over a payment's life, `journal` remembers,
`kiosk` and `server` run them, `control` and `menu` are its two front doors. `connector` is what a hub sees
of all that; `uplink` is the kiosk's way to its hub. `simulator` plays a terminal and shares no code with the
rest.
"""

from tillgate.providers.mobypay.connector import PROVIDER

__all__ = ["PROVIDER"]
