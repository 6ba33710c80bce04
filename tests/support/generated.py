"""What is asked of answers to generated requests, beside the checks that come with the generator."""

from __future__ import annotations

from typing import Any

import requests
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi import checks as openapi_checks


def refuses_bad_bodies(context: Any, response: Any, case: Any) -> bool | None:
    """Unknown parameters and blank ones are ignored by design; a body that does not fit is refused."""
    if case.meta is None or not case.meta.is_negative_at(ParameterLocation.BODY):
        return None
    if response.status_code == requests.codes.request_entity_too_large:
        return None  # refused before anybody looked at what it says
    refused: bool | None = openapi_checks.negative_data_rejection(context, response, case)
    return refused
