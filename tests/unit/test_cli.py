"""What the command line says of an error that nobody foresaw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from worker.commands.backfill import cores
from worker.commands.process import finish


def test_an_unforeseen_error_is_a_sentence_without_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken() -> int:
        raise ValueError("a customer's name")

    with pytest.raises(typer.Exit) as ended:
        finish(broken(), signals=False)
    assert ended.value.exit_code == 1
    errors = capsys.readouterr().err
    assert "An unforeseen ValueError in test_cli.py" in errors
    assert "customer" not in errors
    assert "Traceback" not in errors


def test_a_shell_can_complete_commands() -> None:
    environment = {"COMP_WORDS": "referral-sync st", "COMP_CWORD": "1", "_REFERRAL_SYNC_COMPLETE": "complete_bash"}
    command = [str(Path(sys.executable).parent / "referral-sync")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["status"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("module", "slow"), [("worker.cli", ("asyncio", "msgspec", "pydantic")), ("worker.wiring", ("aiohttp", "msal"))]
)
def test_what_a_command_does_not_need_is_not_imported(module: str, slow: tuple[str, ...]) -> None:
    """`--help` needs no event loop and no settings, and `status` does not ask the API."""
    shown = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], check=True, capture_output=True, text=True
    )
    assert not set(slow) & set(shown.stdout.split())


@pytest.mark.parametrize(
    ("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("?", None)]
)
def test_a_container_with_less_than_the_machine_has_fewer_processes(
    quota: str, expected: int | None, tmp_path: Path
) -> None:
    unlimited = cores(tmp_path / "not there")
    assert unlimited >= 1
    (tmp_path / "cpu.max").write_text(quota)
    assert cores(tmp_path / "cpu.max") == (expected or unlimited)
