"""The stored working of an amount, in sentences for a reviewer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def working_sentences(working: Mapping[str, Any], unit: str) -> list[str]:
    """One sentence per step of `rating.model.Charge.to_plain`, the rounding last."""
    return list(_sentences(working, unit)) if working else []


def _sentences(working: Mapping[str, Any], unit: str) -> Iterator[str]:
    currency = working.get("currency", "")
    yield f"Quantity: {working.get('quantity')} {unit}."
    if working.get("share") not in (None, "1", "1/1"):
        yield f"In force for {working['share']} of the period: terms count for that share."
    for step in working.get("working", ()):
        label, amount = str(step["label"]), f"{step['amount']} {currency}"
        if label == "included":
            yield f"Included in the price: {step['quantity']} {unit} at no charge."
        elif step.get("quantity") is None or step.get("unit_price") is None:
            yield f"{label.capitalize()}: {amount}."
        else:
            counted = "" if label == "packages" else f" {unit}"
            yield (
                f"{label.capitalize()}: {step['quantity']}{counted} × {step['unit_price']} "
                f"{currency} = {amount}."
            )
    yield (
        f"Exactly {working.get('exact')} {currency}, rounded once half up: "
        f"{working.get('amount')} {currency}."
    )
