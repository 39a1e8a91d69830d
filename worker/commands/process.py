"""How a command runs: its configuration, its accounts, its end with an exit code, and its errors in a sentence."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from worker.commands.outlet import tell, warn
from worker.errors import ConfigError, SyncError
from worker.model.escape import line

if TYPE_CHECKING:
    from worker.config.models import Settings
    from worker.model.instant import Instant
    from worker.sync.pipeline import Pipeline

COLLECT_AFTER = 100_000
"""Records are many, live for a moment and hold no cycles: looking for those after every 700 objects, as Python does,
took a tenth of a backfill (benchmarks/README.md)."""


def run_process(app: Callable[[], object]) -> None:
    """Run the command of this process; streams that are closed or full are no reason for a traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as the process
    gc.set_threshold(COLLECT_AFTER)
    try:
        try:
            _refuse_what_steers(sys.argv[1:])
            app()
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the last place that can say it in a sentence
            print_error(unforeseen(error))
            raise SystemExit(1) from None
        finally:
            gc.freeze()  # Python would look once more for cycles, in a tenth of a second, of what ends with the process
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
            print_error(ConfigError([f"{line(given)}: an argument holds no control characters"]))
            raise SystemExit(ConfigError.exit_code)


def load_settings(*, needs_accounts: bool = True) -> Settings:
    """Load the configuration and set up logs; end with its faults where it has any."""
    from worker.config.sources import load  # noqa: PLC0415 - keeps `--help` quick
    from worker.logs import configure  # noqa: PLC0415

    try:
        settings = load(needs_accounts=needs_accounts)
    except ConfigError as error:
        print_error(error)
        raise typer.Exit(error.exit_code) from None
    configure(settings.log.level, settings.log.format)
    return settings


def for_accounts(
    only: str | None,
    one: Callable[[Pipeline], Awaitable[str]],
    *,
    concurrency: int | None = None,
    afterwards: Callable[[], int] = lambda: 0,
    refresh: bool = True,
) -> None:
    """Do something for the chosen accounts, all of them even when one fails; the worst exit code stands.

    `afterwards` concludes from what was done, so it is left out where an account failed. A process that helps another
    leaves to that one the `refresh` of what dashboards read.
    """
    settings = load_settings()
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
                        tell(f"{name}: {summary}")
                except SyncError as error:
                    print_error(error)
                    worst = max(worst, error.exit_code)
            if refresh:
                await refresh_history(database)
        return worst or afterwards()

    finish(work())


def finish(work: Coroutine[Any, Any, int], *, signals: bool = True) -> None:
    """Run a command's coroutine and end with its exit code; SIGTERM and SIGINT roll back the page in hand."""
    import asyncio  # noqa: PLC0415 - keeps `--help` quick

    import uvloop  # noqa: PLC0415

    async def guarded() -> int:
        task = asyncio.current_task()
        if signals and task is not None:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await work

    try:
        code = uvloop.run(guarded())
    except SyncError as error:
        print_error(error)
        code = error.exit_code
    except (asyncio.CancelledError, KeyboardInterrupt):
        again = "without --restart " if "--restart" in sys.argv else ""
        warn(f"Stopped. What was saved stands; run the same command again {again}to go on.")
        code = 1
    except Exception as error:  # noqa: BLE001 - the last place that can say it in a sentence
        print_error(unforeseen(error))
        code = 1
    raise typer.Exit(code)


def unforeseen(error: Exception) -> SyncError:
    """Say where an unforeseen error came from, without its message, which may quote data; debug has the whole of it."""
    import structlog  # noqa: PLC0415 - keeps `--help` quick

    structlog.get_logger().debug("command_crashed", exc_info=error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return SyncError(
        f"An unforeseen {type(error).__name__} in {Path(last.filename).name}, line {last.lineno}.",
        "What was saved stands. This is a bug: please report what it prints with REFERRAL_SYNC_LOG__LEVEL=debug.",
    )


def print_error(error: SyncError) -> None:
    """Print an error and how to fix it on standard error."""
    messages = error.faults if isinstance(error, ConfigError) else [str(error)]
    warn("Error: " + "\n".join(map(line, messages)))
    if error.hint:
        warn(line(error.hint))


def refuse(fault: str) -> NoReturn:
    """End with a fault of the command line."""
    print_error(ConfigError([fault]))
    raise typer.Exit(ConfigError.exit_code)


def moment_of(text: str | None, option: str, *, warns: bool = False) -> Instant | None:
    """Read a time; `warns` where one in the future is hardly what is meant."""
    from worker.model import instant  # noqa: PLC0415 - keeps `--help` quick

    if text is None:
        return None
    try:
        moment = instant.parse(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError:
        refuse(f"{option}: {text!r} is not a time such as 2024-01-31 or 2024-01-31T09:00:00Z")
        raise
    if warns and moment > instant.from_datetime(datetime.now(UTC)):
        warn(f"Warning: {option} {text} is in the future, so hardly anything can be found from then on.")
    return moment


def ids_of(given: list[str]) -> list[str]:
    """Read ids as they are stored; end with a fault where one is none."""
    from worker.store.spelling import plain_id  # noqa: PLC0415 - keeps `--help` quick

    try:
        return [plain_id(one) for one in given]
    except ValueError as error:
        refuse(str(error))
