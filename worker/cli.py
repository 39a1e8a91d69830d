"""The command line: parse a command, run it, say what came of it, and end with the contract's exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from worker import RELEASE
from worker.commands import render
from worker.commands.outlet import Outlet
from worker.errors import ConfigError, SyncError
from worker.model.escape import json_text, line

if TYPE_CHECKING:
    from worker.config.models import Settings
    from worker.model.instant import Instant
    from worker.sync.pipeline import Pipeline

app = typer.Typer(
    name="referral-sync",
    help="Keeps a faithful copy of a Microsoft partner's Partner Center referrals in the partner's own PostgreSQL.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AccountOption = Annotated[str | None, typer.Option("--account", metavar="A", help="Only this account; else all.")]
SinceOption = Annotated[str | None, typer.Option("--since", metavar="T", help="From this time on, such as 2024-01-31.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change; write nothing.")]

_out, _err = Outlet(), Outlet(stderr=True)

COLLECT_AFTER = 100_000
"""Records are many, live for a moment and hold no cycles: looking for those after every 700 objects, as Python does,
took a tenth of a backfill (benchmarks/README.md)."""


def main() -> None:
    """Run the command of this process; streams that are closed or full are no reason for a traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as the process
    try:
        try:
            _refuse_what_steers(sys.argv[1:])
            app()
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the last place that can say it in a sentence
            _print_error(_bug(error))
            raise SystemExit(1) from None
        finally:
            sys.stdout.flush()
    except OSError as error:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - what is left to flush goes there
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                sys.stderr.write(f"Error: What was to be printed could not be: {error.strerror}.\n")
                sys.stderr.flush()
            sys.stderr = sys.stdout
        raise SystemExit(1) from None


def _refuse_what_steers(arguments: list[str]) -> None:
    """End with a fault where an argument holds control characters, which what parses them would print as they are."""
    for given in arguments:
        if line(given) != given:
            _print_error(ConfigError([f"{line(given)}: an argument holds no control characters"]))
            raise SystemExit(ConfigError.exit_code)


def _version(asked: bool) -> None:
    if asked:
        _out.print(f"referral-sync {RELEASE}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which release this is.")
    ] = False,
) -> None:
    """Keep a faithful copy of a Microsoft partner's Partner Center referrals in the partner's own PostgreSQL."""
    del version  # said already


@app.command()
def run() -> None:
    """Run the daemon until SIGTERM: migrations, scheduler, ops endpoint."""
    settings = _settings()

    async def work() -> int:
        from worker.daemon.jobs import serve  # noqa: PLC0415 - keeps `--help` quick

        await serve(settings)
        return 0

    _finish(work(), signals=False)


@app.command()
def sync(account: AccountOption = None, dry_run: DryRunOption = False, since: SinceOption = None) -> None:
    """Run one incremental sync now; an empty copy is backfilled first.

    Example: referral-sync sync --account contoso
    """
    from worker.sync import account as flows  # noqa: PLC0415 - keeps `--help` quick

    moment = _moment(since, "--since", warns=True)

    async def one(pipeline: Pipeline) -> str:
        if dry_run:
            from worker.sync.preview import preview_incremental  # noqa: PLC0415

            return await _show_preview(preview_incremental(pipeline))
        return render.counts(await flows.sync_account(pipeline, moment, wait=flows.WAIT))

    _for_accounts(account, one)


@app.command()
def backfill(
    account: AccountOption = None,
    since: SinceOption = None,
    until: Annotated[str | None, typer.Option("--until", metavar="T", help="Before this time.")] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="N", min=1, max=32, help="Readers; else api.concurrency.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", metavar="N", min=1, max=32, help="That share it; else scale.processes.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Read everything again.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Reconcile afterwards.")] = False,
    helps: Annotated[int | None, typer.Option("--helps", hidden=True)] = None,
    reader: Annotated[str, typer.Option("--reader", hidden=True)] = "p1",
) -> None:
    """Backfill every referral created in a range; resumes where it stopped.

    Example: referral-sync backfill --since 2024-01-01 --concurrency 4 --processes 2
    """
    from worker.commands import backfill as backfills  # noqa: PLC0415
    from worker.sync import account as flows  # noqa: PLC0415 - keeps `--help` quick

    lower, upper = _moment(since, "--since", warns=True), _moment(until, "--until")
    if lower is not None and upper is not None and lower >= upper:
        _refuse("--until must be later than --since")

    asked = backfills.Range(lower, upper, restart)

    async def one(pipeline: Pipeline) -> str:
        if helps is not None:
            sys.stdout.write(backfills.written(await backfills.read_windows(pipeline, asked, reader, helps)) + "\n")
            return ""
        number = processes if processes is not None else pipeline.processes
        summary = render.counts(await backfills.backfill(pipeline, asked, number, flows.WAIT))
        if verify:
            summary += f"; {render.reconciled(await flows.reconcile_account(pipeline, wait=flows.WAIT))}"
        return summary

    _for_accounts(account, one, concurrency=concurrency)


@app.command()
def reconcile(
    account: AccountOption = None,
    dry_run: DryRunOption = False,
    accept_vanished: Annotated[
        bool, typer.Option("--accept-vanished", help="Mark rows as deleted even when they are more than the cap.")
    ] = False,
) -> None:
    """Compare the copy with a full listing, repair it, and mark what was deleted at the source.

    Example: referral-sync reconcile --dry-run
    """
    from worker.sync import account as flows  # noqa: PLC0415 - keeps `--help` quick

    async def one(pipeline: Pipeline) -> str:
        if dry_run:
            from worker.sync.preview import preview_reconcile  # noqa: PLC0415

            return await _show_preview(preview_reconcile(pipeline))
        return render.reconciled(
            await flows.reconcile_account(pipeline, accept_vanished=accept_vanished, wait=flows.WAIT)
        )

    _for_accounts(account, one)


@app.command()
def refresh(ids: Annotated[list[str], typer.Argument(metavar="ID...")], account: AccountOption = None) -> None:
    """Fetch referrals by id and store them; what the source says now wins.

    Example: referral-sync refresh 0f8fad5b-d9cb-469f-a165-70867728950e
    """
    from worker.sync import account as flows  # noqa: PLC0415 - keeps `--help` quick

    ids = _ids(ids)
    found = set[str]()

    async def one(pipeline: Pipeline) -> str:
        counts, unknown = await flows.refresh_account(pipeline, ids)
        found.update(set(ids) - set(unknown))
        return render.counts(counts)

    def missing() -> int:
        absent = [key for key in ids if key not in found]
        for key in absent:
            _err.print(f"The source does not show {key}: it does not exist, or this sign-in may not see it.")
        return 1 if absent else 0

    _for_accounts(account, one, afterwards=missing)


@app.command()
def migrate(
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is needed; exit 1 when it is.")] = False,
) -> None:
    """Bring the database to the newest revision."""
    settings = _settings()

    async def work() -> int:
        from worker.wiring import database_url, prepare_database, require_migrated  # noqa: PLC0415 - keeps `--help` quick

        async with database_url(settings) as url:
            if check:
                await require_migrated(url)
                _out.print("The database is at the newest revision.")
            else:
                for text in await prepare_database(settings, url):
                    _out.print(text)
        return 0

    _finish(work())


@app.command()
def check() -> None:
    """Look at everything a run depends on: configuration, database, sign-in, API, and what the API can do."""
    settings = _settings()

    async def work() -> int:
        from worker.commands.check import look  # noqa: PLC0415 - keeps `--help` quick

        worst = 0
        async for finding in look(settings):
            _out.print(line(f"{finding.state:4}  {finding.subject}: {finding.found}"))
            if finding.fix:
                _out.print(line(f"      {finding.fix}"))
            worst = max(worst, finding.exit_code)
        return worst

    _finish(work())


@app.command(hidden=True)
def health() -> None:
    """Ask the daemon of this configuration whether it is alive: the health check of the container image."""
    settings = _settings()

    async def work() -> int:
        from worker.daemon.health import ask_health  # noqa: PLC0415 - keeps `--help` quick

        _out.print(await asyncio.to_thread(ask_health, settings.http.listen))
        return 0

    _finish(work())


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs; the keys are in the README.")] = False,
) -> None:
    """Say per account how fresh and complete the copy is; exit 1 when an account requires action."""
    settings = _settings()

    async def work() -> int:
        from worker.notify import records  # noqa: PLC0415
        from worker.store import queries  # noqa: PLC0415 - keeps `--help` quick
        from worker.wiring import migrated_database  # noqa: PLC0415 - keeps `--help` quick

        async with migrated_database(settings) as database:
            rows = await queries.status(database, settings.accounts)
            channels = await records.state(database, list(settings.notify.channels))
            queue, workers = await queries.queue(database), await queries.workers(database)
        for row in rows:
            row["configured"] = row["account"] in settings.accounts
        if as_json:
            document = {"release": RELEASE, "accounts": rows, "queue": queue, "workers": workers}
            document |= {"channels": channels} if channels else {}
            _out.print(json_text(document, indent=2))
        else:
            for row in rows:
                _out.print(render.status(row))
            for one in channels:
                _out.print(render.channel(one))
            _out.print(render.queue(queue, workers))
        return 1 if any(row["health"] == "action required" for row in rows) else 0

    _finish(work())


@app.command()
def explain(referral_id: Annotated[str, typer.Argument(metavar="ID")], account: AccountOption = None) -> None:
    """Say all that is known of one referral: columns, versions, runs, rejected records, and what the source says now.

    Example: referral-sync explain 0f8fad5b-d9cb-469f-a165-70867728950e
    """
    from worker.sync.explain import explain as look  # noqa: PLC0415 - keeps `--help` quick

    (referral_id,) = _ids([referral_id])
    known = False

    async def one(pipeline: Pipeline) -> str:
        nonlocal known
        about = await look(pipeline, referral_id)
        known = known or about.known
        if not about.known:
            return "knows nothing of it"
        for text in render.explained(pipeline.account, about):
            _out.print(text)
        return ""

    _for_accounts(account, one, afterwards=lambda: 0 if known else 1)


@app.command()
def rejects(
    account: AccountOption = None,
    replay: Annotated[bool, typer.Option("--replay", help="Try to store them again.")] = False,
) -> None:
    """List the rejected records and why they were rejected; their contents stay in the database.

    Example: referral-sync rejects --replay
    """
    from worker.sync import account as flows  # noqa: PLC0415 - keeps `--help` quick

    async def one(pipeline: Pipeline) -> str:
        replayed = ""
        if replay:
            replayed = f"replayed: {render.counts(await flows.replay_account(pipeline, wait=flows.WAIT))}; "
        number = 0
        async for kept in flows.all_rejects(pipeline):
            number += 1
            _out.print(render.rejected_line(pipeline.account, kept))
        return f"{replayed}{number} open"

    _for_accounts(account, one)


@app.command()
def forget(ids: Annotated[list[str], typer.Argument(metavar="ID...")], account: AccountOption = None) -> None:
    """Erase referrals everywhere, also in history and rejected records. What the source still lists is read again.

    Example: referral-sync forget 0f8fad5b-d9cb-469f-a165-70867728950e
    """
    ids = _ids(ids)
    settings = _settings()

    async def work() -> int:
        from worker.store.erase import forget as erase  # noqa: PLC0415
        from worker.store.spelling import is_guid  # noqa: PLC0415
        from worker.sync.run import refresh_history  # noqa: PLC0415 - keeps `--help` quick
        from worker.wiring import accounts_in_data, migrated_database  # noqa: PLC0415 - keeps `--help` quick

        absent = 0
        async with migrated_database(settings) as database:
            names = await accounts_in_data(database, settings) if account is None else [account]
            for key in ids:
                rows = sum([await erase(database, name, key) for name in names])
                absent += not rows
                strange = "" if is_guid(key) else ", and it is no id as the API gives them"
                outcome = f"{rows} rows erased" if rows else f"nothing is stored of it{strange}"
                _out.print(f"{key}: {outcome}")
            await refresh_history(database, force=True)
        return 1 if absent else 0

    _finish(work())


def _ids(given: list[str]) -> list[str]:
    from worker.store.spelling import plain_id  # noqa: PLC0415 - keeps `--help` quick

    try:
        return [plain_id(one) for one in given]
    except ValueError as error:
        _refuse(str(error))


accounts = typer.Typer(help="Accounts in the data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(accounts, name="account")


@accounts.command()
def remove(name: Annotated[str, typer.Argument(metavar="A")]) -> None:
    """Erase all of an account: referrals, history, rejected records, runs and checkpoints.

    Example: referral-sync account remove contoso
    """
    settings = _settings()

    async def work() -> int:
        from worker.commands.progress import progress  # noqa: PLC0415
        from worker.store.erase import remove_account  # noqa: PLC0415
        from worker.store.leases import free  # noqa: PLC0415
        from worker.sync.account import WAIT  # noqa: PLC0415
        from worker.sync.run import refresh_history  # noqa: PLC0415 - keeps `--help` quick
        from worker.wiring import accounts_in_data, migrated_database  # noqa: PLC0415 - keeps `--help` quick

        async with migrated_database(settings) as database:
            if name not in await accounts_in_data(database, settings, configured=False):
                raise SyncError(f"The data holds no account {name}.", "`referral-sync status` names those that it has.")
            with progress() as shown:
                await free(database, name, wait_seconds=WAIT.total_seconds(), waiting=shown.waiting)
            removed = await remove_account(database, name)
            await refresh_history(database, force=True)
        _out.print(f"{name}: {removed:,} referrals and versions erased.")
        if name in settings.accounts:
            _out.print("It is still in the configuration, so the next run backfills it again.")
        return 0

    _finish(work())


database = typer.Typer(help="The database.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(database, name="db")


@database.command()
def url(
    role: Annotated[
        Literal["reader"] | None,
        typer.Option("--role", help="Sign in as one who reads schema bi only; else as the worker does."),
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Keep the embedded database up until Ctrl-C.")] = False,
) -> None:
    """Print the address of the database, for psql and dashboards.

    The embedded database answers while anybody uses it: another referral-sync, or a client that is connected. After
    this command it waits 30 seconds for one to connect, so that this works: psql "$(referral-sync db url)"

    Example: referral-sync db url --role reader
    """
    settings = _settings()

    async def work() -> int:
        from worker.daemon.planner import stop_on_signal  # noqa: PLC0415 - keeps `--help` quick
        from worker.wiring import address  # noqa: PLC0415

        async with address(settings, reader=role is not None, lingers=not hold) as found:
            sys.stdout.write(f"{found}\n")
            sys.stdout.flush()
            embedded = settings.database.is_embedded
            if role is not None and not embedded:
                _err.print(_FOR_READERS)
            if hold and embedded:
                stopped = asyncio.Event()
                stop_on_signal(stopped)
                _err.print("The database stays up until Ctrl-C.")
                await stopped.wait()
        return 0

    _finish(work())


_FOR_READERS = """This database is yours, and so are its roles: make one for dashboards and sign in with it.
CREATE ROLE dashboards LOGIN PASSWORD '...' IN ROLE bi_reader;"""


@app.command()
def login(
    account: Annotated[str, typer.Option("--account", metavar="A", help="The account to sign in for.")],
) -> None:
    """Sign a person in once, with MFA, and store the sign-in; no browser is needed on this machine.

    Example: referral-sync login --account contoso
    """
    settings = _settings()

    async def work() -> int:
        from worker import wiring as pieces  # noqa: PLC0415 - keeps `--help` quick
        from worker.commands.login import login as sign_in  # noqa: PLC0415 - keeps `--help` quick
        from worker.wiring import migrated_database  # noqa: PLC0415 - keeps `--help` quick

        pieces.chosen_accounts(settings, account)
        async with migrated_database(settings) as database:
            await sign_in(settings, database, account, _tell, _ask)
        _out.print(f"{account} is signed in; every worker on this database uses that from now on.")
        return 0

    _finish(work(), signals=False)


def _tell(what: str) -> None:
    _out.print(what)


def _ask(what: str) -> str:
    _out.print(what)
    return sys.stdin.readline()


@app.command()
def config() -> None:
    """Show the effective configuration, secrets masked."""
    from worker.config.render import render  # noqa: PLC0415 - keeps `--help` quick

    _out.print(render(_settings()), end="")


notify = typer.Typer(
    help="Channels that tell people about deadlines and changes.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(notify, name="notify")

ChannelOption = Annotated[str | None, typer.Option("--channel", metavar="C", help="Only this channel; else all.")]


@notify.command("test")
def notify_test(channel: ChannelOption = None) -> None:
    """Send one message to each channel, and say what came of it.

    Example: referral-sync notify test --channel sales
    """
    from worker.commands.channels import send_tests  # noqa: PLC0415 - keeps `--help` quick

    _finish(send_tests(_settings(), channel, _tell, _print_error))


@notify.command("preview")
def notify_preview(channel: ChannelOption = None) -> None:
    """Print what would be sent now; sends nothing, and writes nothing down.

    Example: referral-sync notify preview --channel sales
    """
    from worker.commands.channels import show_preview  # noqa: PLC0415 - keeps `--help` quick

    _finish(show_preview(_settings(), channel, _tell))


@notify.command("log")
def notify_log(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 20,
) -> None:
    """List the last messages, and what came of them; their texts are kept nowhere."""
    from worker.commands.channels import show_log  # noqa: PLC0415 - keeps `--help` quick

    _finish(show_log(_settings(), limit, _tell))


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the page goes; - is stdout.")],
    account: AccountOption = None,
) -> None:
    """Draw the pipeline as one self-contained page: no server and no network is needed to look at it.

    Example: referral-sync report --out pipeline.html
    """
    settings = _settings()

    async def work() -> int:
        from worker.store.analysis import analysis  # noqa: PLC0415
        from worker.web.report import report as page  # noqa: PLC0415
        from worker.wiring import accounts_in_data, migrated_database  # noqa: PLC0415 - keeps `--help` quick

        async with migrated_database(settings) as database:
            if account is not None and account not in await accounts_in_data(database, settings):
                raise ConfigError([f"--account: there is no {account}"])
            rows = await analysis(database, account, settings.labels())
        text = page(rows, datetime.now(UTC))
        if str(out) == "-":
            sys.stdout.buffer.write(text.encode())
            return 0
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SyncError(f"{out} cannot be written: {error.strerror}.", "Name another file with --out.") from None
        _out.print(f"The report is in {out}.")
        return 0

    _finish(work())


@app.command()
def mcp() -> None:
    """Answer a few read-only questions for AI assistants over standard input and output (Model Context Protocol)."""
    settings = _settings()

    async def work() -> int:
        try:
            from worker.commands.mcp import serve  # noqa: PLC0415 - an extra, and slow
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in ("mcp", "mcp_types"):
                raise
            raise SyncError(
                "`referral-sync mcp` needs the extra mcp, which is not installed.",
                "Run `pip install 'referral-sync[mcp]'`.",
            ) from None
        await serve(settings)
        return 0

    # Nothing can cancel a read of standard input, and nothing is under way that could be lost.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _finish(work(), signals=False)


@app.command()
def simulate(
    count: Annotated[int, typer.Option(min=0, help="Referrals to make up.")] = 5_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same referrals.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8_700,
    page_size: Annotated[int, typer.Option(min=1, help="Rows on a page.")] = 100,
    latency: Annotated[float, typer.Option(min=0, help="Seconds for each answer.")] = 0.0,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any behaviour, such as filter_updated=reject."),
    ] = None,
) -> None:
    """Serve a simulated Partner Center; its token is `simulator`.

    Example: referral-sync simulate --count 1000 --set filter_updated=ignore
    """
    from worker.demo.simulator import main as serve  # noqa: PLC0415 - only this command needs it

    arguments = ["--count", str(count), "--seed", str(seed), "--host", host, "--port", str(port)]
    arguments += ["--page-size", str(page_size), "--latency", str(latency)]
    for option in options or ():
        arguments += ["--set", option]
    raise typer.Exit(serve(arguments))


@app.command()
def demo(
    count: Annotated[int, typer.Option(min=10, help="Referrals to make up.")] = 5_000,
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up until Ctrl-C, with the status page, the report and the database.")
    ] = False,
) -> None:
    """See it all in a minute: a database, a simulated Partner Center, a backfill, changes, a sync, and what BI sees."""
    from worker.demo.tour import tour  # noqa: PLC0415 - only this command needs it

    _finish(tour(count, _out, keep=keep))


# -- running ---------------------------------------------------------------------------------------------------------


def _settings() -> Settings:
    from worker.config.sources import load  # noqa: PLC0415 - keeps `--help` quick
    from worker.logs import configure  # noqa: PLC0415

    try:
        settings = load()
    except ConfigError as error:
        _print_error(error)
        raise typer.Exit(error.exit_code) from None
    configure(settings.log.level, settings.log.format)
    return settings


def _for_accounts(
    only: str | None,
    one: Callable[[Pipeline], Awaitable[str]],
    *,
    concurrency: int | None = None,
    afterwards: Callable[[], int] = lambda: 0,
) -> None:
    """Do something for the chosen accounts, all of them even when one fails; the worst exit code stands.

    `afterwards` concludes from what was done, so it is left out where an account failed.
    """
    settings = _settings()
    if concurrency is not None:
        settings = settings.model_copy(update={"api": settings.api.model_copy(update={"concurrency": concurrency})})

    async def work() -> int:
        from worker import wiring as pieces  # noqa: PLC0415 - keeps `--help` quick
        from worker.commands.progress import progress  # noqa: PLC0415
        from worker.source.client import open_session  # noqa: PLC0415
        from worker.sync.run import refresh_history  # noqa: PLC0415 - keeps `--help` quick
        from worker.wiring import migrated_database  # noqa: PLC0415 - keeps `--help` quick

        worst = 0
        names = pieces.chosen_accounts(settings, only)
        async with migrated_database(settings) as database, open_session(settings.api.ca_file) as session:
            for name in names:
                try:
                    with progress() as shown:
                        async with pieces.open_pipeline(
                            settings, database, name, show=shown.report, waiting=shown.waiting, session=session
                        ) as pipeline:
                            summary = await one(pipeline)
                    if summary:
                        _out.print(f"{name}: {summary}")
                except SyncError as error:
                    _print_error(error)
                    worst = max(worst, error.exit_code)
            await refresh_history(database)
        return worst or afterwards()

    _finish(work())


def _finish(work: Coroutine[Any, Any, int], *, signals: bool = True) -> None:
    """Run a command's coroutine and end with its exit code; SIGTERM and SIGINT roll back the page in hand."""
    import uvloop  # noqa: PLC0415 - keeps `--help` quick

    gc.set_threshold(COLLECT_AFTER)

    async def guarded() -> int:
        task = asyncio.current_task()
        if signals and task is not None:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await work

    try:
        code = uvloop.run(guarded())
    except SyncError as error:
        _print_error(error)
        code = error.exit_code
    except (asyncio.CancelledError, KeyboardInterrupt):
        again = "without --restart " if "--restart" in sys.argv else ""
        _err.print(f"Stopped. What was saved stands; run the same command again {again}to go on.")
        code = 1
    except Exception as error:  # noqa: BLE001 - the last place that can say it in a sentence
        _print_error(_bug(error))
        code = 1
    raise typer.Exit(code)


def _bug(error: Exception) -> SyncError:
    """Say where an unforeseen error came from, without its message, which may quote data; debug has the whole of it."""
    import structlog  # noqa: PLC0415 - keeps `--help` quick

    structlog.get_logger().debug("command_crashed", exc_info=error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return SyncError(
        f"An unforeseen {type(error).__name__} in {Path(last.filename).name}, line {last.lineno}.",
        "What was saved stands. This is a bug: please report what it prints with REFERRAL_SYNC_LOG__LEVEL=debug.",
    )


def _print_error(error: SyncError) -> None:
    messages = error.faults if isinstance(error, ConfigError) else [str(error)]
    _err.print("Error: " + "\n".join(map(line, messages)))
    if error.hint:
        _err.print(line(error.hint))


def _refuse(fault: str) -> NoReturn:
    _print_error(ConfigError([fault]))
    raise typer.Exit(ConfigError.exit_code)


# -- saying ----------------------------------------------------------------------------------------------------------


def _moment(text: str | None, option: str, *, warns: bool = False) -> Instant | None:
    """Read a time; `warns` where one in the future is hardly what is meant."""
    from worker.model import instant  # noqa: PLC0415 - keeps `--help` quick

    if text is None:
        return None
    try:
        moment = instant.parse(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError:
        _refuse(f"{option}: {text!r} is not a time such as 2024-01-31 or 2024-01-31T09:00:00Z")
        raise
    if warns and moment > instant.from_datetime(datetime.now(UTC)):
        _err.print(f"Warning: {option} {text} is in the future, so hardly anything can be found from then on.")
    return moment


async def _show_preview(changes: Any) -> str:
    shown = 0
    async for change in changes:
        shown += 1
        _out.print(line(f"{change.verdict:8} {change.id}"))
    return f"{shown} would change; nothing was written"
