"""An endpoint that reads a request and answers: what the framework, the server and the loader cost alone."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

app = FastAPI()
ANSWER = {"result": {"allow": True, "state": 1, "then": {"state": 2}}, "id": 1}


@app.post("/payments/payme/webhook")
async def payme_webhook(request: Request) -> dict[str, Any]:
    await request.json()
    return ANSWER


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"ok": True}
