"""docs/api.md against the routes."""

from __future__ import annotations

import re
from pathlib import Path

from meterpost.api import asking, calling, endpoints
from meterpost.api.routes import NOT_ROUTED, ROUTES

_PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_paths_in_the_examples_exist() -> None:
    """Every /v1 path of a curl line is one of a route."""
    patterns = [
        re.compile(
            re.sub(r"\\{\w+(:path)?\\}", r"[^?]+", re.escape(route.path).replace(r"\:", ":"))
        )
        for route in ROUTES
    ]
    paths = re.findall(r"\$METERPOST(/v1/[^\s\"?]+)", _PAGE)
    assert len(paths) > 10
    for path in paths:
        assert any(pattern.fullmatch(path) for pattern in patterns), path


def test_limits_are_told_as_they_are() -> None:
    """The page's figures are the code's."""
    for number in (
        endpoints.BODY_BYTES_MAX,
        endpoints.UPLOAD_BYTES_MAX,
        endpoints.QUERY_BYTES_MAX,
        endpoints.PATH_BYTES_MAX,
        endpoints.HEADERS_BYTES_MAX,
        asking.QUERY_FIELDS_MAX,
        calling.WAITING_MAX,
    ):
        assert f"{number:,}" in _PAGE, number


def test_what_is_left_out_is_named() -> None:
    """Operations without a route stand on the page."""
    for name in NOT_ROUTED:
        assert f"`{name}`" in _PAGE
