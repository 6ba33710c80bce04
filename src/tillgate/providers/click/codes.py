"""Click's codes, its words for them, and which of our refusals each one says."""

from __future__ import annotations

from typing import Final

from tillgate.domain.errors import (
    AlreadyClosed,
    AlreadyPaid,
    Busy,
    NotCancellable,
    Refusal,
    TryLater,
    Unauthenticated,
    UnknownMethod,
    UnknownReference,
    UnknownTransaction,
    Unreadable,
    WrongAmount,
)

SUCCESS: Final = 0
SIGN_FAILED: Final = -1
WRONG_AMOUNT: Final = -2
UNKNOWN_ACTION: Final = -3
ALREADY_PAID: Final = -4
UNKNOWN_ORDER: Final = -5
UNKNOWN_TRANSACTION: Final = -6
NOT_UPDATED: Final = -7
BAD_REQUEST: Final = -8
CANCELLED: Final = -9

NOTES: Final[dict[int, str]] = {
    SUCCESS: "Success",
    SIGN_FAILED: "SIGN CHECK FAILED!",
    WRONG_AMOUNT: "Incorrect parameter amount",
    UNKNOWN_ACTION: "Action not found",
    ALREADY_PAID: "Already paid",
    UNKNOWN_ORDER: "User does not exist",
    UNKNOWN_TRANSACTION: "Transaction does not exist",
    NOT_UPDATED: "Failed to update user",
    BAD_REQUEST: "Error in request from click",
    CANCELLED: "Transaction cancelled",
}
"""Click's words for its codes (SHOP API, errors)."""

REFUSALS: Final[dict[type[Refusal], int]] = {
    Unauthenticated: SIGN_FAILED,
    WrongAmount: WRONG_AMOUNT,
    UnknownMethod: UNKNOWN_ACTION,
    AlreadyPaid: ALREADY_PAID,
    UnknownReference: UNKNOWN_ORDER,
    UnknownTransaction: UNKNOWN_TRANSACTION,
    TryLater: NOT_UPDATED,
    Unreadable: BAD_REQUEST,
    AlreadyClosed: CANCELLED,
    NotCancellable: CANCELLED,
    # Click has no word for "another transaction holds this order". -9 ends this one and no other: Click then
    # sends the Complete that cancels it, and the payer may begin again.
    Busy: CANCELLED,
}


def code_of(refusal: Refusal) -> int:
    """The code for a refusal, also for one that a host's hook made itself: of its nearest kind, or -9."""
    for kind in type(refusal).__mro__:
        if kind in REFUSALS:
            return REFUSALS[kind]
    return CANCELLED
