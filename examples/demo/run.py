"""The main job on real data, by meterpost's own commands: usage in, invoices out, all proved.

Run by `make demo` (the sandbox ERP) and `make demo ERP=tryton` (a real Tryton). Everything it
makes lies in .demo/ and is made anew each time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STATE = ROOT / ".demo"
WORKSPACE = STATE / "workspace"
DATA = HERE / "data"
FILES = {
    "azure_llm_conv.csv": "llm-conv",
    "azure_llm_code.csv": "llm-code",
    "apache_access.log": "web",
}
HELD_BACK = 200
UNKNOWN_CLIENT = "46.105.14.53"
PERIODS = {"2015-05": "example-web", "2023-11": "example"}
#: What the sandbox ERP does to us, each with its probability.
FAULTS = {
    "commit_then_drop": {"probability": 0.15},
    "status_429": {"probability": 0.05, "retry_after_s": 1},
    "status_503": {"probability": 0.1},
}

console = Console(highlight=False)


def main() -> int:
    """0 when the ledgers balance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--erp", choices=("sandbox", "tryton"), default="sandbox")
    erp = parser.parse_args().erp
    started = time.monotonic()
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(mode=0o711)
    with contextlib.ExitStack() as stack:
        chapter("A workspace: events, meters, prices, contracts, an ERP")
        shutil.copytree(HERE / "workspace", WORKSPACE)
        (WORKSPACE / "secrets").mkdir(mode=0o700)
        if erp == "sandbox":
            sandbox = stack.enter_context(sandbox_erp())
            connect(sandbox)
        meterpost("check")
        meterpost("init", str(WORKSPACE), "--existing", "--user", "ada")
        if erp == "tryton":
            stack.enter_context(tryton_erp())
        stack.enter_context(running())
        meterpost("apply", user="ada")
        meterpost("users", "create", "carol", "--role", "operator", "--key", user="ada")
        meterpost("users", "create", "bob", "--role", "approver", "--key", user="ada")
        masterdata = sorted((WORKSPACE / "masterdata").iterdir())
        meterpost("masterdata", "import", *map(str, masterdata), "--changes", "3", user="ada")
        meterpost("post", "check", user="carol")

        chapter("Usage comes in (the last 200 rows of each file will come late)")
        for name, mapping in FILES.items():
            meterpost("ingest", str(without_the_end(name)), "--mapping", mapping, user="ada")
        meterpost("usage", "llm-tokens-in", "--period", "2023-11", "--by", "subject", user="ada")

        chapter("Both months are closed")
        for period, entity in PERIODS.items():
            meterpost("close", "run", period, "--entity", entity, user="carol")
        meterpost("exceptions", "list", user="carol")

        chapter("One exception is resolved: a client nobody knew belongs to a tenant")
        meterpost(
            *("crosswalk", "link", "//web.example", "subject", UNKNOWN_CLIENT, "S-WEB-2"),
            "--personal",
            user="ada",
        )
        meterpost(
            *("close", "run", "2015-05", "--entity", "example-web", "--ask", "resolved"),
            user="carol",
        )

        chapter("Finance looks, approves, and meterpost posts while the ERP misbehaves")
        meterpost("tx", "list", user="bob")
        largest = meterpost_json("tx", "list", "--state", "in_review", user="bob")["items"][0]
        meterpost("tx", "show", str(largest["id"]), user="bob")
        meterpost("tx", "approve", "--all", "--yes", "--reason", "looked at", user="bob")
        meterpost("post", "run", "--seconds", "60", user="carol")

        chapter("Late usage arrives: the files have grown")
        for name, mapping in FILES.items():
            meterpost("ingest", str(whole(name)), "--mapping", mapping, user="ada")
        for period, entity in PERIODS.items():
            meterpost("close", "run", period, "--entity", entity, "--ask", "late", user="carol")
        console.print("\n[dim]Small differences are approved by rule, until they add up.[/dim]")
        meterpost("post", "run", "--seconds", "60", user="carol")

        chapter("Is it all there, once, and why?")
        meterpost("reconcile", user="carol")
        if erp == "sandbox":
            oracle()
        posted = meterpost_json("tx", "list", "--state", "reconciled", user="bob")["items"]
        reference = f"transaction:{posted[0]['id']}"
        meterpost("trace", reference, "--events", "2", user="bob")
        meterpost("prove", reference, user="ada")
        meterpost("audit", "verify", user="ada")

        chapter("The ledgers")
        for period in PERIODS:
            meterpost("balance", period, user="ada")
    console.print(f"\n[dim]{time.monotonic() - started:.0f} s; everything lies in .demo/[/dim]")
    print("unexplained=0", flush=True)
    return 0


def chapter(title: str) -> None:
    """A heading."""
    console.print()
    console.rule(f"[bold]{title}", align="left")


def meterpost(*arguments: str, user: str | None = None) -> None:
    """Run one command of meterpost, shown as a person would type it.

    It runs in this process, by the very function behind the `meterpost` program: starting a
    Python for each of forty commands would take longer than the commands.
    Raises: SystemExit where it ends with anything but 0.
    """
    shown = " ".join(
        f"'{word}'" if " " in word else word.replace(f"{ROOT}/", "") for word in arguments
    )
    console.print(
        f"\n[bold green]$[/bold green] meterpost {shown}" + (f" --as {user}" if user else "")
    )
    sys.stdout.flush()
    code = run(arguments, user)
    if code != 0:
        raise SystemExit(f"the command above ended with {code}")


def meterpost_json(*arguments: str, user: str) -> Any:
    """The plain result of a command."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = run((*arguments, "--json"), user)
    if code != 0:
        raise SystemExit(f"meterpost {' '.join(arguments)} ended with {code}")
    return json.loads(output.getvalue())


def run(arguments: tuple[str, ...], user: str | None) -> int:
    """The exit code of a command."""
    import typer

    from meterpost.cli.app import app

    options = [] if user is None else ["--as", user]
    if arguments[0] != "init":
        options += ["--workspace", str(WORKSPACE)]
    try:
        result = app([*arguments, *options], standalone_mode=False)
    except typer.Exit as exit_:
        return exit_.exit_code
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return int(result or 0)


def without_the_end(name: str) -> Path:
    """A copy of a file that lacks its last rows."""
    lines = (DATA / name).read_bytes().splitlines(keepends=True)
    path = STATE / name
    path.write_bytes(b"".join(lines[:-HELD_BACK]))
    return path


def whole(name: str) -> Path:
    """The copy, grown to the whole file."""
    path = STATE / name
    path.write_bytes((DATA / name).read_bytes())
    return path


@contextlib.contextmanager
def running() -> Iterator[None]:
    """`meterpost up` in the background, on a free port."""
    os.environ["METERPOST_EDGE__PORT"] = str(free_port())
    console.print("\n[bold green]$[/bold green] meterpost up &")
    log = STATE / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "meterpost", "up", "--workspace", WORKSPACE],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: b"edge is ready" in log.read_bytes(), process, log)
        console.print(f"[dim]PostgreSQL, engine and edge run; log: {log.relative_to(ROOT)}[/dim]")
        yield
    finally:
        stop(process)


@contextlib.contextmanager
def sandbox_erp() -> Iterator[str]:
    """The sandbox ERP as a process of its own, with master data and faults; its URL."""
    ledger, token, port = STATE / "erp.sqlite", STATE / "erp-token", STATE / "erp-port"
    program = [sys.executable, "-m", "meterpost_sandbox"]
    seed = STATE / "erp.json"
    today = datetime.now(UTC).date()
    periods = [
        {"code": f"{today:%Y-%m}"},
        {"code": f"{today.replace(day=28) + timedelta(7):%Y-%m}"},
    ]
    seed.write_text(json.dumps(json.loads((HERE / "erp.json").read_text()) | {"periods": periods}))
    subprocess.run([*program, "seed", ledger, seed], check=True, stdout=subprocess.DEVNULL)
    log = STATE / "erp.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(*program, "serve", "--ledger", ledger, "--token-file", token),
                *("--port-file", port, "--seed", "7", "--faults", json.dumps(FAULTS)),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(port.exists, process, log)
        console.print(f"[dim]A sandbox ERP runs, with faults: {', '.join(FAULTS)}[/dim]")
        yield f"http://127.0.0.1:{port.read_text().strip()}"
    finally:
        stop(process)


def connect(url: str) -> None:
    """Point the workspace's connection at the sandbox ERP."""
    path = WORKSPACE / "connections" / "erp.yaml"
    path.write_text(path.read_text().replace("http://127.0.0.1:8470", url))
    secret = WORKSPACE / "secrets" / "erp-token"
    secret.write_text((STATE / "erp-token").read_text())
    secret.chmod(0o600)


@contextlib.contextmanager
def tryton_erp() -> Iterator[None]:
    """A real Tryton on a database of our embedded server, and a connection to it."""
    from meterpost.storage.embedded import EmbeddedPostgres
    from meterpost.testing import tryton

    console.print("[dim]Tryton is installed and set up (the first time takes some minutes) …[/dim]")
    install = tryton.ensure_environment(ROOT / ".erps")
    customers = [
        (each["code"], each["name"])
        for each in json.loads((HERE / "erp.json").read_text())["customers"]
    ]
    with EmbeddedPostgres(STATE / "tryton-pg") as server:
        database = tryton.create_database(install, server.admin_dsn(), "tryton_demo")
        with tryton.serve(install, database) as erp:
            tryton.add_parties(erp, customers)
            config = erp.config("integration")
            secret = WORKSPACE / "secrets" / "erp-password"
            secret.write_text(database.password("integration"))
            secret.chmod(0o600)
            (WORKSPACE / "connections" / "erp.yaml").write_text(
                "connector: tryton\nenvironment: sandbox\n"
                f"url: {config.url}\n"
                "secrets:\n  password: {file: secrets/erp-password}\n"
                f"options: {{database: {database.name}, username: integration, "
                "quantity_decimals: 6}\n"
                "timeout_s: 60\nrequest_limit_s: 60\nmargin_s: 1\n"
            )
            console.print(f"[dim]Tryton answers at {config.url}[/dim]")
            yield


def oracle() -> None:
    """Ask the sandbox ERP's own books whether every document is there once."""
    items = meterpost_json("tx", "list", "--state", "reconciled", "--limit", "1000", user="bob")
    expected = STATE / "expected.json"
    expected.write_text(json.dumps({each["posting_key"]: each["due"] for each in items["items"]}))
    console.print(
        "\n[bold green]$[/bold green] meterpost-sandbox oracle  [dim]# the ERP's own books[/dim]"
    )
    sys.stdout.flush()
    subprocess.run(
        [
            *(sys.executable, "-m", "meterpost_sandbox"),
            *("oracle", STATE / "erp.sqlite", "--expected", expected),
        ],
        check=True,
    )


def wait_for(ready: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once ready. Raises: SystemExit with the log where the process ends or takes long."""
    deadline = time.monotonic() + 90
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"it did not start:\n{log.read_text()}")
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that this run started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
