"""One till for every way to pay."""
