"""The command line: serve, seed, oracle."""

from __future__ import annotations

import json
import os
import secrets
from decimal import Decimal
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from meterpost_sandbox import decimals, masterdata, oracle
from meterpost_sandbox.answers import Refused
from meterpost_sandbox.invoices import Settings, parse_json
from meterpost_sandbox.ledger import Ledger, LedgerInUse
from meterpost_sandbox.server import ServeOptions
from meterpost_sandbox.server import serve as run_server

TOKEN_VARIABLE = "METERPOST_SANDBOX_TOKEN"  # noqa: S105 (a name, not a secret)
_AMOUNT_DECIMALS = 4
_SHOWN_MAX = 50

app = typer.Typer(
    name="meterpost-sandbox",
    help="An ERP to rehearse with: its own books, and faults on request.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LedgerArgument = Annotated[Path, typer.Argument(help="The ERP's ledger file (SQLite).")]


@app.command()
def serve(
    ledger: Annotated[Path, typer.Option(help="Ledger file (SQLite); created when missing.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 0,
    port_file: Annotated[Path | None, typer.Option(help="Where to write the port.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"Bearer token; created when missing. Without it, ${TOKEN_VARIABLE} is read."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes which requests the faults hit.")] = 1,
    faults: Annotated[
        str | None,
        typer.Option(help='Faults as JSON or a file, such as \'{"commit_then_drop":{"next":1}}\'.'),
    ] = None,
    unique_reference: Annotated[
        bool, typer.Option("--unique-reference", help="Refuse a second invoice of one reference.")
    ] = False,
    native_keys: Annotated[
        bool, typer.Option("--native-keys", help="Honour the header Idempotency-Key.")
    ] = False,
) -> None:
    """Run the ERP on 127.0.0.1 until SIGTERM or SIGINT."""
    options = ServeOptions(
        ledger=ledger,
        token=_token(token_file),
        port=port,
        port_file=port_file,
        seed=seed,
        faults=_faults(faults),
        settings=Settings(unique_reference=unique_reference, native_keys=native_keys),
    )
    try:
        run_server(options, lambda url: print(f"sandbox ERP listening on {url}", flush=True))
    except Refused as refused:
        _fail(f"The faults cannot be used: {refused.where}: {refused.message}.")
    except (LedgerInUse, ValueError, OSError) as exc:
        _fail(str(exc))


@app.command()
def seed(
    ledger: LedgerArgument,
    file: Annotated[
        Path, typer.Argument(help="Master data: kind → list of records, YAML or JSON.")
    ],
) -> None:
    """Write master data into a ledger, offline or beside a running server."""
    try:
        data = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        books = Ledger(ledger)
        try:
            with books.write() as connection:
                counts = masterdata.seed(connection, data)
        finally:
            books.close()
    except Refused as refused:
        _fail(f"{file}: {refused.where}: {refused.message}.")
    except (YAMLError, ValueError, OSError) as exc:
        _fail(f"{file}: {exc}")
    for kind, count in counts.items():
        print(f"{kind}: {', '.join(f'{n} {word}' for word, n in count.items())}")


@app.command("oracle")
def judge(
    ledger: LedgerArgument,
    expected: Annotated[Path, typer.Option(help='JSON: {"reference": "net amount", ...}.')],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare the ledger with what should be in it; exit 1 on any difference."""
    try:
        report = oracle.check(ledger, _expected(expected))
    except Refused as refused:
        _fail(f"{expected}: {refused.message}.")
    except (ValueError, OSError) as exc:
        _fail(f"{expected}: {exc}" if isinstance(exc, ValueError) else str(exc))
    if as_json:
        print(json.dumps(_report_json(report), indent=2))
    else:
        _print_report(report)
    raise typer.Exit(0 if report.clean else 1)


def main() -> None:
    """Run the command line."""
    app()


def _token(file: Path | None) -> str:
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            _fail(f"The ERP needs a token: give --token-file or set {TOKEN_VARIABLE}.")
        return token
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        token = file.read_text(encoding="utf-8").strip()
        if not token:
            _fail(f"{file} is empty; put a token there or delete the file to get a new one.")
        return token
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        token = secrets.token_urlsafe(32)
        stream.write(token + "\n")
    return token


def _faults(text: str | None) -> object:
    if text is None:
        return None
    try:
        raw = text.encode() if text.lstrip().startswith("{") else Path(text).read_bytes()
        return parse_json(raw)
    except Refused as refused:
        _fail(f"--faults: {refused.message}.")
    except OSError as exc:
        _fail(f"--faults: {exc}")


def _expected(file: Path) -> dict[str, Decimal]:
    data = parse_json(file.read_bytes())
    if not isinstance(data, dict) or not all(isinstance(net, str) for net in data.values()):
        raise ValueError('expected {"reference": "net amount", ...} with the amounts as strings')
    return {reference: decimals.parse(net, _AMOUNT_DECIMALS) for reference, net in data.items()}


def _report_json(report: oracle.OracleReport) -> dict[str, object]:
    return {
        "clean": report.clean,
        "documents": report.documents,
        "clerk_documents": report.clerk_documents,
        "lost": list(report.lost),
        "duplicated": dict(report.duplicated),
        "amount_differences": [
            {
                "reference": each.reference,
                "expected": decimals.plain_text(each.expected),
                "created": decimals.plain_text(each.created),
            }
            for each in report.amount_differences
        ],
        "unexpected": list(report.unexpected),
    }


def _print_report(report: oracle.OracleReport) -> None:
    table = Table(title="The ERP's ledger against what was expected")
    table.add_column("finding")
    table.add_column("count", justify="right")
    table.add_row("documents through the API", str(report.documents))
    table.add_row("documents by clerks (not judged)", str(report.clerk_documents))
    table.add_row("lost", str(len(report.lost)))
    table.add_row("duplicated", str(len(report.duplicated)))
    table.add_row("amount differences", str(len(report.amount_differences)))
    table.add_row("unexpected", str(len(report.unexpected)))
    console = Console()
    console.print(table)
    findings = [
        *(f"lost: {reference}" for reference in report.lost),
        *(f"duplicated: {reference}, {n} documents" for reference, n in report.duplicated.items()),
        *(
            f"amount: {each.reference}, expected {each.expected}, created {each.created}"
            for each in report.amount_differences
        ),
        *(f"unexpected: {reference}" for reference in report.unexpected),
    ]
    for finding in findings[:_SHOWN_MAX]:
        print(finding)
    if len(findings) > _SHOWN_MAX:
        print(f"… and {len(findings) - _SHOWN_MAX} more; --json lists all")
    print("nothing lost, nothing twice" if report.clean else "the ledger differs")


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(2)
