"""Master data held in a dict, and an invoice that passes every check."""

import copy

import pytest

MASTER = {
    ("customers", "C-100"): {"code": "C-100", "currency": "EUR", "active": True},
    ("customers", "C-ANY"): {"code": "C-ANY", "currency": None, "active": True},
    ("customers", "C-OLD"): {"code": "C-OLD", "currency": None, "active": False},
    ("items", "TOKENS"): {"unit": "token", "account": "4000", "tax_code": "VAT20", "active": True},
    ("items", "BARE"): {"unit": "unit", "account": None, "tax_code": None, "active": True},
    ("accounts", "4000"): {"code": "4000", "active": True},
    ("taxes", "VAT20"): {"code": "VAT20", "rate": "0.2", "active": True},
    ("taxes", "VAT10"): {"code": "VAT10", "rate": "0.1", "active": True},
    ("periods", "2026-10"): {"code": "2026-10", "state": "open"},
    ("periods", "2026-09"): {"code": "2026-09", "state": "closed"},
}
INVOICE = {
    "reference": "U1",
    "customer": "C-100",
    "date": "2026-10-31",
    "currency": "EUR",
    "lines": [{"item": "TOKENS", "quantity": "10", "unit_price": "1.5"}],
}


@pytest.fixture
def lookup():
    return lambda kind, code: MASTER.get((kind, code))


@pytest.fixture
def invoice():
    return copy.deepcopy(INVOICE)
