"""The versions of Dagster with which the tests of this package have passed."""

import dagster

TRIED = ("1.13.27",)


def is_tried() -> bool:
    """Whether the installed Dagster is one of them."""
    return dagster.__version__ in TRIED
