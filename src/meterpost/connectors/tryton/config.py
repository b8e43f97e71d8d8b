"""What a connection to Tryton needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem

#: Seconds after which a look-up that answers nothing is given up.
LOOKUP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class TrytonConfig:
    """One company in one Tryton database, and the user we sign in as."""

    url: str = field(
        metadata={
            "description": "Address of the Tryton server, without the database.",
            "example": "https://tryton.example.com",
        }
    )
    database: str = field(metadata={"description": "Name of the database.", "example": "tryton"})
    username: str = field(
        metadata={
            "description": "Login of a user who may create customer invoices.",
            "example": "integration",
        }
    )
    password: str = field(
        repr=False, metadata={"description": "That user's password.", "secret": True}
    )
    company: int | None = field(
        default=None,
        metadata={"description": "Id of the company; needed where the user has several."},
    )
    quantity_decimals: int = field(
        default=0,
        metadata={
            "description": "Decimals that the units of all mapped products keep. Tryton's own "
            "'Unit' keeps none; a quantity that does not fit is billed as 1 × amount."
        },
    )
    price_decimals: int = field(
        default=4,
        metadata={"description": "Decimals of prices: `price_decimal` in Tryton's settings."},
    )
    request_limit_s: float = field(
        default=120.0,
        metadata={
            "description": "Longest time the server (or a proxy before it) works on one request. "
            "Tryton itself sets no limit on writing; take the web server's."
        },
    )

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            problems.append(
                Problem(
                    "bad-url",
                    f"{self.url!r} is no http(s) address.",
                    "url",
                    "Write it like https://tryton.example.com.",
                )
            )
        elif parts.username or parts.password or parts.query or parts.fragment:
            problems.append(Problem("bad-url", "The address holds more than host and path.", "url"))
        if not self.database or "/" in self.database:
            problems.append(Problem("bad-database", "A database needs a name.", "database"))
        if not self.username:
            problems.append(Problem("missing-username", "A login is needed.", "username"))
        if not self.password:
            problems.append(Problem("missing-password", "A password is needed.", "password"))
        if not 0 <= self.quantity_decimals <= 9:
            problems.append(
                Problem("bad-decimals", "Decimals are between 0 and 9.", "quantity_decimals")
            )
        if not 0 <= self.price_decimals <= 12:
            problems.append(
                Problem("bad-decimals", "Decimals are between 0 and 12.", "price_decimals")
            )
        if self.request_limit_s <= 0:
            problems.append(
                Problem("bad-limit", "The limit is a number of seconds above 0.", "request_limit_s")
            )
        if problems:
            raise InvalidInput("The Tryton connection cannot be used as configured.", problems)
