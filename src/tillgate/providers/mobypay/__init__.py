"""MobyPay's POS-KIOSK link: signed JSON lines over TCP between a kiosk (server) and its card terminals
(clients).

`protocol` speaks the wire with no I/O in it, `lifecycle` rules over a payment's life, `journal` remembers,
`kiosk` and `server` run them, `control` and `menu` are its two front doors. `simulator` plays a terminal and
shares no code with the rest.
"""

PROVIDER = None  # until the hub takes payments from kiosks, the hub has nothing to offer here

PROVIDER = None  # a kiosk runs by itself; it does not enrol with a hub yet
