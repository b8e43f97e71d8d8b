"""What a connection to Tryton needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem
from meterpost.posting.config import ConnectionConfig

#: Seconds after which a look-up that answers nothing is given up.
LOOKUP_TIMEOUT_S = 30.0

#: The options of a connection's file: type, and whether it is needed.
_OPTIONS: dict[str, tuple[type, bool]] = {
    "database": (str, True),
    "username": (str, True),
    "company": (int, False),
    "quantity_decimals": (int, False),
    "price_decimals": (int, False),
}


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
    visibility_s: float = 0.0
    margin_s: float = 5.0

    @classmethod
    def from_connection(
        cls, connection: ConnectionConfig, secrets: Mapping[str, str]
    ) -> TrytonConfig:
        """The settings of a connection's file and its resolved secrets.

        Raises: InvalidInput with every option that is missing, unknown or of the wrong type.
        """
        problems = [
            Problem("unknown-option", f"{name} is not an option of Tryton.", f"options.{name}")
            for name in connection.options
            if name not in _OPTIONS
        ]
        for name, (kind, needed) in _OPTIONS.items():
            value = connection.options.get(name)
            if value is None and needed:
                problems.append(
                    Problem("missing-option", f"Tryton needs {name}.", f"options.{name}")
                )
            elif value is not None and type(value) is not kind:
                word = "a text" if kind is str else "a whole number"
                problems.append(Problem("invalid-option", f"{name} is {word}.", f"options.{name}"))
        if problems:
            raise InvalidInput(f"Connection {connection.name} has options it cannot use.", problems)
        return cls(
            url=connection.url,
            password=secrets["password"],
            request_limit_s=connection.request_limit_s,
            visibility_s=connection.visibility_s,
            margin_s=connection.margin_s,
            **connection.options,  # type: ignore[arg-type]
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
