"""The command line: parse a command, run it, say what came of it, and end with the contract's exit code."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from worker import RELEASE
from worker.commands.outlet import Outlet, ask, tell
from worker.commands.process import (
    finish,
    for_accounts,
    ids_of,
    load_settings,
    moment_of,
    print_error,
    refuse,
    run_process,
)
from worker.errors import SyncError

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


def main() -> None:
    """Run the command of this process."""
    run_process(app)


def _version(asked: bool) -> None:
    if asked:
        tell(f"referral-sync {RELEASE}")
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
    from worker.daemon.assembly import serve  # noqa: PLC0415 - keeps `--help` quick

    finish(serve(load_settings()), signals=False)


@app.command()
def sync(account: AccountOption = None, dry_run: DryRunOption = False, since: SinceOption = None) -> None:
    """Run one incremental sync now; an empty copy is backfilled first.

    Example: referral-sync sync --account contoso
    """
    from worker.commands import flows  # noqa: PLC0415 - keeps `--help` quick

    moment = moment_of(since, "--since", warns=True)
    for_accounts(account, partial(flows.sync, since=moment, dry_run=dry_run))


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
    from worker.commands import flows  # noqa: PLC0415 - keeps `--help` quick
    from worker.commands.backfill import Range  # noqa: PLC0415

    lower, upper = moment_of(since, "--since", warns=True), moment_of(until, "--until")
    if lower is not None and upper is not None and lower >= upper:
        refuse("--until must be later than --since")
    asked = Range(lower, upper, restart)
    if helps is not None:
        one = partial(flows.help_backfill, asked=asked, reader=reader, readers=helps)
    else:
        one = partial(flows.backfill, asked=asked, processes=processes, verify=verify)
    for_accounts(account, one, concurrency=concurrency, refresh=helps is None)


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
    from worker.commands import flows  # noqa: PLC0415 - keeps `--help` quick

    for_accounts(account, partial(flows.reconcile, accept_vanished=accept_vanished, dry_run=dry_run))


@app.command()
def refresh(ids: Annotated[list[str], typer.Argument(metavar="ID...")], account: AccountOption = None) -> None:
    """Fetch referrals by id and store them; what the source says now wins.

    Example: referral-sync refresh 0f8fad5b-d9cb-469f-a165-70867728950e
    """
    from worker.commands.flows import Refresh  # noqa: PLC0415 - keeps `--help` quick

    asked = Refresh(ids_of(ids))
    for_accounts(account, asked.one, afterwards=asked.exit_code)


@app.command()
def migrate(
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is needed; exit 1 when it is.")] = False,
) -> None:
    """Bring the database to the newest revision."""
    from worker.commands.migrate import bring_up_to_date  # noqa: PLC0415 - keeps `--help` quick

    finish(bring_up_to_date(load_settings(), only_check=check))


@app.command()
def check() -> None:
    """Look at everything a run depends on: configuration, database, sign-in, API, and what the API can do."""
    from worker.commands.check import show_findings  # noqa: PLC0415 - keeps `--help` quick

    finish(show_findings(load_settings()))


@app.command(hidden=True)
def health() -> None:
    """Ask the daemon of this configuration whether it is alive: the health check of the container image."""
    settings = load_settings()

    async def work() -> int:
        from asyncio import to_thread  # noqa: PLC0415 - keeps `--help` quick

        from worker.daemon.health import ask_health  # noqa: PLC0415

        tell(await to_thread(ask_health, settings.http.listen))
        return 0

    finish(work())


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs; the keys are in the README.")] = False,
) -> None:
    """Say per account how fresh and complete the copy is; exit 1 when an account requires action."""
    from worker.commands.status import show_status  # noqa: PLC0415 - keeps `--help` quick

    finish(show_status(load_settings(), as_json=as_json))


@app.command()
def explain(referral_id: Annotated[str, typer.Argument(metavar="ID")], account: AccountOption = None) -> None:
    """Say all that is known of one referral: columns, versions, runs, rejected records, and what the source says now.

    Example: referral-sync explain 0f8fad5b-d9cb-469f-a165-70867728950e
    """
    from worker.commands.flows import Explain  # noqa: PLC0415 - keeps `--help` quick

    (asked,) = ids_of([referral_id])
    explained = Explain(asked)
    for_accounts(account, explained.one, afterwards=explained.exit_code)


@app.command()
def rejects(
    account: AccountOption = None,
    replay: Annotated[bool, typer.Option("--replay", help="Try to store them again.")] = False,
) -> None:
    """List the rejected records and why they were rejected; their contents stay in the database.

    Example: referral-sync rejects --replay
    """
    from worker.commands import flows  # noqa: PLC0415 - keeps `--help` quick

    for_accounts(account, partial(flows.rejects, replay=replay))


@app.command()
def forget(ids: Annotated[list[str], typer.Argument(metavar="ID...")], account: AccountOption = None) -> None:
    """Erase referrals everywhere, also in history and rejected records. What the source still lists is read again.

    Example: referral-sync forget 0f8fad5b-d9cb-469f-a165-70867728950e
    """
    from worker.commands.erase import forget as erase  # noqa: PLC0415 - keeps `--help` quick

    finish(erase(load_settings(), ids_of(ids), account))


accounts = typer.Typer(help="Accounts in the data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(accounts, name="account")


@accounts.command()
def remove(name: Annotated[str, typer.Argument(metavar="A")]) -> None:
    """Erase all of an account: referrals, history, rejected records, runs and checkpoints.

    Example: referral-sync account remove contoso
    """
    from worker.commands.erase import remove as erase  # noqa: PLC0415 - keeps `--help` quick

    finish(erase(load_settings(), name))


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
    from worker.commands.address import show_address  # noqa: PLC0415 - keeps `--help` quick
    from worker.daemon.planner import stop_on_signal  # noqa: PLC0415

    finish(show_address(load_settings(), reader=role is not None, hold=stop_on_signal if hold else None))


@app.command()
def login(
    account: Annotated[str, typer.Option("--account", metavar="A", help="The account to sign in for.")],
) -> None:
    """Sign a person in once, with MFA, and store the sign-in; no browser is needed on this machine.

    Example: referral-sync login --account contoso
    """
    from worker.commands.login import sign_in  # noqa: PLC0415 - keeps `--help` quick

    finish(sign_in(load_settings(), account, tell, ask), signals=False)


@app.command()
def config() -> None:
    """Show the effective configuration, secrets masked."""
    from worker.config.render import render  # noqa: PLC0415 - keeps `--help` quick

    tell(render(load_settings()), end="")


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

    finish(send_tests(load_settings(), channel, tell, print_error))


@notify.command("preview")
def notify_preview(channel: ChannelOption = None) -> None:
    """Print what would be sent now; sends nothing, and writes nothing down.

    Example: referral-sync notify preview --channel sales
    """
    from worker.commands.channels import show_preview  # noqa: PLC0415 - keeps `--help` quick

    finish(show_preview(load_settings(), channel, tell))


@notify.command("log")
def notify_log(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 20,
) -> None:
    """List the last messages, and what came of them; their texts are kept nowhere."""
    from worker.commands.channels import show_log  # noqa: PLC0415 - keeps `--help` quick

    finish(show_log(load_settings(), limit, tell))


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the page goes; - is stdout.")],
    account: AccountOption = None,
) -> None:
    """Draw the pipeline as one self-contained page: no server and no network is needed to look at it.

    Example: referral-sync report --out pipeline.html
    """
    from worker.commands.report import write_report  # noqa: PLC0415 - keeps `--help` quick

    finish(write_report(load_settings(), out, account))


@app.command()
def mcp() -> None:
    """Answer a few read-only questions for AI assistants over standard input and output (Model Context Protocol)."""
    settings = load_settings(needs_accounts=False)

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
    finish(work(), signals=False)


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
    tls: Annotated[
        tuple[str, str] | None, typer.Option(metavar="CERTIFICATE KEY", help="Files to serve https with.")
    ] = None,
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", hidden=True)] = False,
) -> None:
    """Serve a simulated Partner Center; its token is `simulator`.

    Example: referral-sync simulate --count 1000 --set filter_updated=ignore
    """
    from worker.demo.behaviour import Behaviour  # noqa: PLC0415 - only this command needs it
    from worker.demo.simulator import run  # noqa: PLC0415 - the same

    behaviour = Behaviour(page_size=page_size, latency=latency)
    code = run(behaviour, options or (), count, seed, host=host, port=port, tls=tls, until_stdin_ends=until_stdin_ends)
    raise typer.Exit(code)


@app.command()
def demo(
    count: Annotated[int, typer.Option(min=10, help="Referrals to make up.")] = 5_000,
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up until Ctrl-C, with the status page, the report and the database.")
    ] = False,
) -> None:
    """See it all in a minute: a database, a simulated Partner Center, a backfill, changes, a sync, and what BI sees."""
    from worker.demo.tour import tour  # noqa: PLC0415 - only this command needs it

    finish(tour(count, Outlet(), keep=keep))
