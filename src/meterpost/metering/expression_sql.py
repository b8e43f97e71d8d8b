"""The exact SQL of one expression: every accepted node is written out anew, nothing is passed on.

The emitter decides what each part *is* (number, text, truth, time) from its context, so that a
payload field is read as an exact DECIMAL where a number is meant and as text otherwise. What it
writes refers to a payload field by two columns that the event store provides: the text of the
field (``"data.tokens"``) and its exact number (``"#data.tokens"``, NULL where the text is not a
number that fits).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from sqlglot import exp

from meterpost.core.money import VALUE_DIGITS_MAX, VALUE_SCALE_MAX

#: A place in an event's data: the names of the members that lead to it.
FieldPath = tuple[str, ...]

ATTRIBUTES = ("id", "source", "type", "subject", "time")
FUNCTIONS = (
    "abs, case, cast, coalesce, concat, date_trunc, div, extract, greatest, least, length, lower, "
    "nullif, regexp_matches, substring, trim, upper"
)
DEPTH_MAX = 40
PATH_PARTS_MAX = 12
NAME_LENGTH_MAX = 200
PATTERN_LENGTH_MAX = 200
ITEMS_MAX = 500
SQL_LENGTH_MAX = 60_000

_SIMPLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXTRACT_UNITS = {
    "YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "DOW", "ISODOW", "DOY"
}  # fmt: skip
_TRUNC_UNITS = {"YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE"}
_NUMBER_TYPE = f"DECIMAL({VALUE_DIGITS_MAX + VALUE_SCALE_MAX},{VALUE_SCALE_MAX})"
_PLAIN_NUMBER = r"-?[0-9]{1,18}(\.[0-9]{1,9}0*)?"
# Down to e-9 at most 18 decimals result, which DECIMAL(38,19) holds without rounding.
_SHORT_EXPONENT = r"-?[0-9]{1,18}(\.[0-9]{1,9})?[eE](\+?[0-9]{1,2}|-0?[0-9])"


class Kind(StrEnum):
    """What a part of an expression is."""

    NUMBER = "number"
    TEXT = "text"
    TRUTH = "truth"
    TIME = "time"


class Refused(Exception):
    """An expression outside the language, with the sentence that helps."""

    def __init__(self, code: str, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.hint = code, sentence, hint


def quoted(text: str) -> str:
    """The text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def path_name(path: FieldPath) -> str:
    """How people write the field: ``data.a.b`` or ``data['a b']``."""
    return "data" + "".join(
        f".{part}" if _SIMPLE_NAME.fullmatch(part) else f"[{quoted(part)}]" for part in path
    )


def json_path(path: FieldPath) -> str:
    """How DuckDB's JSON functions address the field."""
    return "$" + "".join(f'."{part}"' for part in path)


def exact_number_sql(text: str) -> str:
    """SQL that gives ``text`` as an exact number, or NULL where it is none that fits.

    A plain CAST would round the tenth decimal away and accept ``1_000``; the patterns do not.
    """
    wide = f"CAST({text} AS DECIMAL(38,19))"
    return (
        f"CASE WHEN regexp_full_match({text}, {quoted(_PLAIN_NUMBER)})"
        f" THEN CAST({text} AS {_NUMBER_TYPE})"
        f" WHEN regexp_full_match({text}, {quoted(_SHORT_EXPONENT)})"
        f" THEN TRY(CASE WHEN CAST({wide} AS {_NUMBER_TYPE}) = {wide}"
        f" THEN CAST({wide} AS {_NUMBER_TYPE}) END) END"
    )


class Emitter:
    """Writes one expression as DuckDB SQL and remembers the fields it reads."""

    def __init__(self) -> None:
        self.texts: set[FieldPath] = set()
        self.numbers: set[FieldPath] = set()

    @property
    def fields(self) -> set[FieldPath]:
        """Every payload field the expression reads."""
        return self.texts | self.numbers

    def emit(self, node: exp.Expr, want: Kind | None, depth: int = 0) -> tuple[str, Kind]:
        """The SQL of a node and its kind; ``want`` decides what a payload field is read as.

        Raises: Refused.
        """
        if depth > DEPTH_MAX:
            raise Refused("too-deep", f"The expression is nested deeper than {DEPTH_MAX} levels.")
        path = field_path(node)
        if path is not None:
            return self._field(path, want or Kind.TEXT)
        handler = _HANDLERS.get(type(node))
        if handler is None:
            raise _refusal(node)
        sql, kind = handler(self, node, want, depth + 1)
        if len(sql) > SQL_LENGTH_MAX:
            raise Refused("too-long", "The expression becomes too long; split it or send a field.")
        return sql, kind

    def as_kind(self, node: exp.Expr, want: Kind, depth: int) -> str:
        """The SQL of a node that has to be of that kind."""
        sql, kind = self.emit(node, want, depth)
        if kind is not want:
            raise Refused(
                "wrong-kind",
                f"{_shown(node)} is a {kind}, where a {want} is needed.",
                "Use CAST to say what is meant." if kind is Kind.TEXT else "",
            )
        return sql

    def common_kind(self, nodes: Sequence[exp.Expr], otherwise: Kind) -> Kind:
        """The kind that the first part with a kind of its own gives to all of them."""
        return next((kind for node in nodes if (kind := kind_of(node))), otherwise)

    def _field(self, path: FieldPath, want: Kind) -> tuple[str, Kind]:
        name = path_name(path)
        text = identifier(name)
        match want:
            case Kind.NUMBER:
                self.numbers.add(path)
                number = identifier("#" + name)
                # The CAST of "not a number: …" raises for this row alone; TRY around the whole
                # expression makes that a failed measurement.
                return (
                    f"CASE WHEN {number} IS NULL AND {text} IS NOT NULL THEN"
                    f" CAST(concat('not a number: ', {text}) AS {_NUMBER_TYPE}) ELSE {number} END",
                    want,
                )
            case Kind.TRUTH:
                self.texts.add(path)
                return (
                    f"CASE {text} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE ELSE"
                    f" CASE WHEN {text} IS NOT NULL"
                    f" THEN CAST(concat('not true or false: ', {text}) AS BOOLEAN) END END",
                    want,
                )
            case Kind.TIME:
                self.texts.add(path)
                return f"timezone('UTC', CAST({text} AS TIMESTAMPTZ))", want
            case Kind.TEXT:
                self.texts.add(path)
                return text, want

    # One method per node type (see _HANDLERS); each gives SQL and kind.

    def _column(self, node: exp.Column, want: Kind | None, depth: int) -> tuple[str, Kind]:
        name = str(node.name).lower()
        if len(node.parts) == 1 and name in ATTRIBUTES:
            return identifier(name), Kind.TIME if name == "time" else Kind.TEXT
        if len(node.parts) == 1 and name == "data":
            raise Refused(
                "whole-data", "data stands for the whole payload.", "Name a field: data.tokens."
            )
        raise Refused(
            "unknown-name",
            f"{_shown(node)} is not a part of an event.",
            f"Use {', '.join(ATTRIBUTES)} or a payload field such as data.{node.name}.",
        )

    def _literal(self, node: exp.Literal, want: Kind | None, depth: int) -> tuple[str, Kind]:
        text = str(node.this)
        if not node.is_string:
            return exact_literal(text), Kind.NUMBER
        if "\x00" in text:
            raise Refused("bad-text", "A text must not contain a NUL character.")
        if want is Kind.TIME:
            return time_literal(text), Kind.TIME
        return quoted(text), Kind.TEXT

    def _boolean(self, node: exp.Boolean, want: Kind | None, depth: int) -> tuple[str, Kind]:
        return ("TRUE" if node.this else "FALSE"), Kind.TRUTH

    def _null(self, node: exp.Null, want: Kind | None, depth: int) -> tuple[str, Kind]:
        return "NULL", want or Kind.TEXT

    def _paren(self, node: exp.Paren, want: Kind | None, depth: int) -> tuple[str, Kind]:
        sql, kind = self.emit(node.this, want, depth)
        return f"({sql})", kind

    def _arithmetic(self, node: exp.Binary, want: Kind | None, depth: int) -> tuple[str, Kind]:
        sign = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*"}[type(node)]
        left = self.as_kind(node.left, Kind.NUMBER, depth)
        right = self.as_kind(node.right, Kind.NUMBER, depth)
        return f"({left} {sign} {right})", Kind.NUMBER

    def _negation(self, node: exp.Neg, want: Kind | None, depth: int) -> tuple[str, Kind]:
        return f"(-{self.as_kind(node.this, Kind.NUMBER, depth)})", Kind.NUMBER

    def _division(self, node: exp.Div, want: Kind | None, depth: int) -> tuple[str, Kind]:
        raise Refused(
            "inexact-division",
            f"{_shown(node)} has no exact decimal result.",
            "Write div(a, b, scale), which rounds half up at the scale you choose.",
        )

    def _comparison(self, node: exp.Binary, want: Kind | None, depth: int) -> tuple[str, Kind]:
        signs = {exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
        sign = signs[type(node)]
        kind = self.common_kind(
            [node.left, node.right], Kind.TEXT if sign in {"=", "<>"} else Kind.NUMBER
        )
        if kind is Kind.TEXT and Kind.TIME in {kind_of(node.left), kind_of(node.right)}:
            kind = Kind.TIME
        left = self.as_kind(node.left, kind, depth)
        return f"({left} {sign} {self.as_kind(node.right, kind, depth)})", Kind.TRUTH

    def _connection(self, node: exp.Connector, want: Kind | None, depth: int) -> tuple[str, Kind]:
        # a AND b AND c … is a chain to the left: unrolled, it does not count as depth.
        cls = type(node)
        parts: list[exp.Expr] = []
        rest: exp.Expr = node
        while isinstance(rest, cls):
            parts.append(rest.right)
            rest = rest.left
        parts.append(rest)
        word = " AND " if cls is exp.And else " OR "
        emitted = [self.as_kind(part, Kind.TRUTH, depth) for part in reversed(parts)]
        return f"({word.join(emitted)})", Kind.TRUTH

    def _inversion(self, node: exp.Not, want: Kind | None, depth: int) -> tuple[str, Kind]:
        return f"(NOT {self.as_kind(node.this, Kind.TRUTH, depth)})", Kind.TRUTH

    def _presence(self, node: exp.Is, want: Kind | None, depth: int) -> tuple[str, Kind]:
        if not isinstance(node.expression, exp.Null):
            raise _refusal(node)
        sql, _ = self.emit(node.this, kind_of(node.this), depth)
        return f"({sql} IS NULL)", Kind.TRUTH

    def _membership(self, node: exp.In, want: Kind | None, depth: int) -> tuple[str, Kind]:
        items = node.expressions
        if node.args.get("query") or not items:
            raise Refused("no-list", "IN needs a list of values in parentheses.")
        if len(items) > ITEMS_MAX:
            raise Refused(
                "too-many", f"IN lists {len(items)} values; at most {ITEMS_MAX} are read."
            )
        kind = self.common_kind([node.this, *items], Kind.TEXT)
        left = self.as_kind(node.this, kind, depth)
        listed = ", ".join(self.as_kind(item, kind, depth) for item in items)
        return f"({left} IN ({listed}))", Kind.TRUTH

    def _between(self, node: exp.Between, want: Kind | None, depth: int) -> tuple[str, Kind]:
        low, high = node.args["low"], node.args["high"]
        kind = self.common_kind([node.this, low, high], Kind.NUMBER)
        value, least, most = (self.as_kind(part, kind, depth) for part in (node.this, low, high))
        return f"({value} BETWEEN {least} AND {most})", Kind.TRUTH

    def _like(self, node: exp.Like, want: Kind | None, depth: int) -> tuple[str, Kind]:
        value = self.as_kind(node.this, Kind.TEXT, depth)
        return f"({value} LIKE {quoted(_pattern(node.expression, 'LIKE'))})", Kind.TRUTH

    def _regexp(self, node: exp.RegexpLike, want: Kind | None, depth: int) -> tuple[str, Kind]:
        if node.args.get("flag") is not None:
            raise Refused(
                "regexp-options",
                "regexp_matches takes two arguments.",
                "Write (?i) in the pattern.",
            )
        value = self.as_kind(node.this, Kind.TEXT, depth)
        pattern = _pattern(node.expression, "regexp_matches")
        return f"regexp_matches({value}, {quoted(pattern)})", Kind.TRUTH

    def _case(self, node: exp.Case, want: Kind | None, depth: int) -> tuple[str, Kind]:
        ifs, default = node.args["ifs"], node.args.get("default")
        results = [item.args["true"] for item in ifs] + ([default] if default else [])
        kind = want or self.common_kind(results, Kind.TEXT)
        subject = node.this
        parts = ["CASE"]
        for item in ifs:
            test = (
                exp.EQ(this=subject.copy(), expression=item.this.copy()) if subject else item.this
            )
            parts.append(
                f"WHEN {self.as_kind(test, Kind.TRUTH, depth)}"
                f" THEN {self.as_kind(item.args['true'], kind, depth)}"
            )
        if default:
            parts.append(f"ELSE {self.as_kind(default, kind, depth)}")
        return "(" + " ".join([*parts, "END"]) + ")", kind

    def _alike(self, node: exp.Func, want: Kind | None, depth: int) -> tuple[str, Kind]:
        """COALESCE, LEAST and GREATEST: all arguments of one kind, which is the result's."""
        name = type(node).__name__.lower()
        arguments = [node.this, *node.expressions]
        otherwise = Kind.TEXT if name == "coalesce" else Kind.NUMBER
        kind = want or self.common_kind(arguments, otherwise)
        emitted = ", ".join(self.as_kind(item, kind, depth) for item in arguments)
        return f"{name}({emitted})", kind

    def _nullif(self, node: exp.Nullif, want: Kind | None, depth: int) -> tuple[str, Kind]:
        kind = want or self.common_kind([node.this, node.expression], Kind.TEXT)
        left = self.as_kind(node.this, kind, depth)
        return f"nullif({left}, {self.as_kind(node.expression, kind, depth)})", kind

    def _absolute(self, node: exp.Abs, want: Kind | None, depth: int) -> tuple[str, Kind]:
        return f"abs({self.as_kind(node.this, Kind.NUMBER, depth)})", Kind.NUMBER

    def _letters(self, node: exp.Func, want: Kind | None, depth: int) -> tuple[str, Kind]:
        """UPPER, LOWER, TRIM: text to text."""
        if isinstance(node, exp.Trim) and (node.args.get("position") or node.expression):
            raise Refused("trim-options", "trim(text) removes spaces on both sides, nothing else.")
        name = type(node).__name__.lower()
        return f"{name}({self.as_kind(node.this, Kind.TEXT, depth)})", Kind.TEXT

    def _length(self, node: exp.Length, want: Kind | None, depth: int) -> tuple[str, Kind]:
        text = self.as_kind(node.this, Kind.TEXT, depth)
        return f"CAST(length({text}) AS DECIMAL(18,0))", Kind.NUMBER

    def _substring(self, node: exp.Substring, want: Kind | None, depth: int) -> tuple[str, Kind]:
        text = self.as_kind(node.this, Kind.TEXT, depth)
        bounds = [_small_integer(node.args[name], "substring", 1, 100_000)
                  for name in ("start", "length") if node.args.get(name) is not None]  # fmt: skip
        return f"substring({', '.join([text, *map(str, bounds)])})", Kind.TEXT

    def _concat(self, node: exp.Expr, want: Kind | None, depth: int) -> tuple[str, Kind]:
        """CONCAT and ||: NULL as soon as one part is missing."""
        parts = [node.left, node.right] if isinstance(node, exp.DPipe) else node.expressions
        emitted = [self.as_kind(part, Kind.TEXT, depth) for part in parts]
        return f"({' || '.join(emitted)})", Kind.TEXT

    def _cast(self, node: exp.Cast, want: Kind | None, depth: int) -> tuple[str, Kind]:
        target = node.to
        kind, sql_type = _cast_target(target)
        inner_kind = kind_of(node.this) or kind
        inner = self.as_kind(node.this, inner_kind, depth)
        match inner_kind, kind:
            case (Kind.TEXT, Kind.NUMBER):
                failing = f"CAST(concat('not a number: ', {inner}) AS {_NUMBER_TYPE})"
                exact = f"coalesce({exact_number_sql(inner)}, {failing})"
                number = f"CASE WHEN {inner} IS NOT NULL THEN {exact} END"
                return f"CAST({number} AS {sql_type})", kind
            case (Kind.TEXT, Kind.TIME):
                return f"timezone('UTC', CAST({inner} AS TIMESTAMPTZ))", kind
            case (Kind.TEXT, Kind.TRUTH) | (_, Kind.TEXT) | (Kind.NUMBER, Kind.NUMBER):
                return f"CAST({inner} AS {sql_type})", kind
            case (Kind.TIME, Kind.TIME) | (Kind.TRUTH, Kind.TRUTH):
                return inner, kind
        raise Refused("bad-cast", f"A {inner_kind} cannot become a {kind}: {_shown(node)}.")

    def _extract(self, node: exp.Extract, want: Kind | None, depth: int) -> tuple[str, Kind]:
        unit = str(node.this.name).upper()
        if unit not in _EXTRACT_UNITS:
            raise Refused(
                "bad-unit",
                f"extract does not read {unit.lower()} here.",
                f"Use one of {', '.join(sorted(_EXTRACT_UNITS)).lower()}.",
            )
        moment = self.as_kind(node.expression, Kind.TIME, depth)
        return f"CAST(extract({unit} FROM {moment}) AS DECIMAL(18,0))", Kind.NUMBER

    def _truncation(
        self, node: exp.TimestampTrunc, want: Kind | None, depth: int
    ) -> tuple[str, Kind]:
        unit = str(node.args["unit"].name).upper()
        if unit not in _TRUNC_UNITS:
            raise Refused(
                "bad-unit",
                f"date_trunc does not cut at {unit.lower()} here.",
                f"Use one of {', '.join(sorted(_TRUNC_UNITS)).lower()}.",
            )
        # The cast matters: DuckDB turns a truncated day into a DATE.
        moment = self.as_kind(node.this, Kind.TIME, depth)
        return f"CAST(date_trunc({quoted(unit.lower())}, {moment}) AS TIMESTAMP)", Kind.TIME

    def _named(self, node: exp.Anonymous, want: Kind | None, depth: int) -> tuple[str, Kind]:
        if str(node.name).lower() != "div":
            raise _refusal(node)
        if len(node.expressions) != 3:
            raise Refused("bad-div", "div takes three arguments: div(a, b, scale).")
        above, below, places = node.expressions
        scale = _small_integer(places, "div", 0, VALUE_SCALE_MAX)
        units = "1000000000"
        a, b = (
            f"CAST(CAST({self._exactly(part, depth)} AS DECIMAL(28,9)) * {units} AS HUGEINT)"
            for part in (above, below)
        )
        # Half up (away from zero) in whole numbers: (2·|a|·10^scale + |b|) // (2·|b|).
        tens = f"CAST({10**scale} AS HUGEINT)"
        rounded = f"((2 * abs({a}) * {tens} + abs({b})) // nullif(2 * abs({b}), 0))"
        sign = f"CASE WHEN ({a} < 0) = ({b} < 0) THEN 1 ELSE -1 END"
        step = f"CAST('{Decimal(1).scaleb(-scale):f}' AS DECIMAL({max(scale, 1)},{scale}))"
        return f"(CAST({rounded} * {sign} AS DECIMAL(28,0)) * {step})", Kind.NUMBER

    def _exactly(self, node: exp.Expr, depth: int) -> str:
        """A number cut to nine decimals only where the rest is zeros, else a failure."""
        sql = self.as_kind(node, Kind.NUMBER, depth)
        if field_path(node) is not None or isinstance(node, exp.Literal):
            return sql
        short = f"CAST({sql} AS {_NUMBER_TYPE})"
        return f"CASE WHEN {short} = {sql} THEN {short} END"


def field_path(node: exp.Expr) -> FieldPath | None:
    """The payload field a node names, or None where it is something else.

    Raises: Refused for names that cannot be looked up.
    """
    parts = _parts(node)
    if parts is None or len(parts) < 2 or parts[0].lower() != "data":
        return None
    path = tuple(parts[1:])
    if len(path) > PATH_PARTS_MAX:
        raise Refused("too-deep", f"A field lies at most {PATH_PARTS_MAX} levels deep.")
    for part in path:
        if not part or len(part) > NAME_LENGTH_MAX or any(c in '"\\*\x00' for c in part):
            raise Refused(
                "bad-name",
                f"{part[:40]!r} cannot be read as a field name.",
                'Names have 1 to 200 characters, none of them ", \\ or *.',
            )
    return path


def _parts(node: exp.Expr) -> list[str] | None:
    match node:
        case exp.Column():
            return [str(part.name) for part in node.parts]
        case exp.Dot():
            before = _parts(node.this)
            after = node.expression
            return None if before is None else [*before, str(after.name)]
        case exp.Bracket():
            before = _parts(node.this)
            if before is None:
                return None
            if len(node.expressions) != 1 or not node.expressions[0].is_string:
                raise Refused(
                    "bad-index",
                    f"{_shown(node)} picks from a list.",
                    "Only names can be looked up: data['a b'].",
                )
            return [*before, str(node.expressions[0].this)]
    return None


def kind_of(node: exp.Expr) -> Kind | None:
    """The kind a node has by itself; None for payload fields and NULL, which take any."""
    match node:
        case exp.Paren():
            return kind_of(node.this)
        case exp.Column() if len(node.parts) == 1:
            return Kind.TIME if str(node.name).lower() == "time" else Kind.TEXT
        case exp.Literal():
            return Kind.TEXT if node.is_string else Kind.NUMBER
        case (
            exp.Add() | exp.Sub() | exp.Mul() | exp.Neg() | exp.Abs() | exp.Length()
            | exp.Extract() | exp.Anonymous()
        ):  # fmt: skip
            return Kind.NUMBER
        case (
            exp.Boolean() | exp.Predicate() | exp.Connector() | exp.Not() | exp.In() | exp.Between()
            | exp.RegexpLike()
        ):  # fmt: skip
            return Kind.TRUTH
        case exp.Upper() | exp.Lower() | exp.Trim() | exp.Substring() | exp.Concat() | exp.DPipe():
            return Kind.TEXT
        case exp.TimestampTrunc():
            return Kind.TIME
        case exp.Cast():
            return _cast_target(node.to)[0]
        case exp.Case():
            results = [item.args["true"] for item in node.args["ifs"]]
            default = node.args.get("default")
            return next((k for r in [*results, default] if r and (k := kind_of(r))), None)
        case exp.Coalesce() | exp.Least() | exp.Greatest():
            return next((k for r in [node.this, *node.expressions] if (k := kind_of(r))), None)
        case exp.Nullif():
            return kind_of(node.this) or kind_of(node.expression)
    return None


def exact_literal(text: str) -> str:
    """A number literal as a DECIMAL as narrow as its digits, so that products keep room."""
    try:
        value = Decimal(text)
    except InvalidOperation as exc:
        raise Refused("bad-number", f"{text!r} is not a number.") from exc
    plain = format(value, "f").lstrip("-")
    whole, _, fraction = plain.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0")
    if len(whole) > VALUE_DIGITS_MAX or len(fraction) > VALUE_SCALE_MAX:
        raise Refused(
            "bad-number",
            f"{text} has more than {VALUE_DIGITS_MAX} whole digits or {VALUE_SCALE_MAX} decimals.",
        )
    width = max(len(whole) + len(fraction), 1)
    number = f"{whole or '0'}.{fraction}" if fraction else whole or "0"
    return f"CAST('{number}' AS DECIMAL({width},{len(fraction)}))"


def time_literal(text: str) -> str:
    """A moment written as a date or as RFC 3339 with its zone, as a UTC TIMESTAMP."""
    try:
        if len(text) == len("2026-01-31"):
            moment = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        else:
            moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise Refused(
            "bad-time", f"{text!r} is not a moment.", "Write 2026-01-31 or 2026-01-31T12:00:00Z."
        ) from exc
    if moment.tzinfo is None:
        raise Refused("bad-time", f"{text!r} has no zone.", "Write 2026-01-31T12:00:00Z.")
    return f"TIMESTAMP '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _cast_target(target: exp.DataType) -> tuple[Kind, str]:
    kinds = exp.DType
    match target.this:
        case kinds.DECIMAL:
            sizes = [int(str(p.this.this)) for p in target.expressions] or [18, 3]
            width, scale = sizes[0], sizes[1] if len(sizes) > 1 else 0
            if scale > VALUE_SCALE_MAX or width - scale > VALUE_DIGITS_MAX or width < 1:
                raise Refused(
                    "bad-cast",
                    f"decimal({width},{scale}) does not fit a metered value.",
                    f"At most decimal({VALUE_DIGITS_MAX + VALUE_SCALE_MAX},{VALUE_SCALE_MAX}).",
                )
            return Kind.NUMBER, f"DECIMAL({width},{scale})"
        case kinds.BIGINT:
            return Kind.NUMBER, "DECIMAL(18,0)"
        case kinds.VARCHAR | kinds.TEXT:
            return Kind.TEXT, "VARCHAR"
        case kinds.BOOLEAN:
            return Kind.TRUTH, "BOOLEAN"
        case kinds.TIMESTAMP | kinds.TIMESTAMPTZ | kinds.TIMESTAMPNTZ:
            return Kind.TIME, "TIMESTAMP"
    hint = "Cast to decimal(p, s), bigint, varchar, boolean or timestamp."
    if target.this in {kinds.DOUBLE, kinds.FLOAT}:
        raise Refused("inexact-type", "A floating number is never exact.", hint)
    raise Refused("bad-cast", f"{_shown(target)} is not a type for expressions.", hint)


def _pattern(node: exp.Expr, name: str) -> str:
    if not node.is_string or len(str(node.this)) > PATTERN_LENGTH_MAX:
        raise Refused(
            "bad-pattern",
            f"{name} needs its pattern as a text of at most {PATTERN_LENGTH_MAX} characters.",
        )
    return str(node.this)


def _small_integer(node: exp.Expr, name: str, least: int, most: int) -> int:
    text = str(node.this) if isinstance(node, exp.Literal) and not node.is_string else ""
    if not text.isdecimal() or not least <= int(text) <= most:
        raise Refused(
            "bad-argument", f"{name} needs a whole number from {least} to {most}: {_shown(node)}."
        )
    return int(text)


def _shown(node: exp.Expr) -> str:
    text = node.sql(dialect="duckdb")
    return text if len(text) <= 60 else text[:57] + "…"


def _refusal(node: exp.Expr) -> Refused:
    allowed = f"Allowed: {FUNCTIONS}; + - *, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE."
    if isinstance(node, exp.AggFunc):
        return Refused(
            "aggregate",
            f"{_shown(node)} aggregates; an expression looks at one event.",
            "The meter's `aggregation` says how values combine.",
        )
    if isinstance(node, exp.Query):
        return Refused("query", "An expression looks at one event and cannot query.", allowed)
    if isinstance(node, exp.Anonymous | exp.Func):
        name = str(node.name) if isinstance(node, exp.Anonymous) else str(type(node).sql_name())
        return Refused("function-not-allowed", f"Function {name.lower()} is not allowed.", allowed)
    return Refused("not-allowed", f"{_shown(node)} is not allowed in an expression.", allowed)


_Handler = Callable[[Emitter, Any, Kind | None, int], tuple[str, Kind]]

_HANDLERS: dict[type[exp.Expr], _Handler] = {
    exp.Column: Emitter._column,
    exp.Literal: Emitter._literal,
    exp.Boolean: Emitter._boolean,
    exp.Null: Emitter._null,
    exp.Paren: Emitter._paren,
    exp.Add: Emitter._arithmetic,
    exp.Sub: Emitter._arithmetic,
    exp.Mul: Emitter._arithmetic,
    exp.Neg: Emitter._negation,
    exp.Div: Emitter._division,
    exp.EQ: Emitter._comparison,
    exp.NEQ: Emitter._comparison,
    exp.LT: Emitter._comparison,
    exp.LTE: Emitter._comparison,
    exp.GT: Emitter._comparison,
    exp.GTE: Emitter._comparison,
    exp.And: Emitter._connection,
    exp.Or: Emitter._connection,
    exp.Not: Emitter._inversion,
    exp.Is: Emitter._presence,
    exp.In: Emitter._membership,
    exp.Between: Emitter._between,
    exp.Like: Emitter._like,
    exp.RegexpLike: Emitter._regexp,
    exp.Case: Emitter._case,
    exp.Coalesce: Emitter._alike,
    exp.Least: Emitter._alike,
    exp.Greatest: Emitter._alike,
    exp.Nullif: Emitter._nullif,
    exp.Abs: Emitter._absolute,
    exp.Upper: Emitter._letters,
    exp.Lower: Emitter._letters,
    exp.Trim: Emitter._letters,
    exp.Length: Emitter._length,
    exp.Substring: Emitter._substring,
    exp.Concat: Emitter._concat,
    exp.DPipe: Emitter._concat,
    exp.Cast: Emitter._cast,
    exp.Extract: Emitter._extract,
    exp.TimestampTrunc: Emitter._truncation,
    exp.Anonymous: Emitter._named,
}
