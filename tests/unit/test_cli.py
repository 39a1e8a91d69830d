"""What the command line says of an error that nobody foresaw."""

from __future__ import annotations

import pytest
import typer

from worker import cli


def test_an_unforeseen_error_is_a_sentence_without_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken() -> int:
        raise ValueError("a customer's name")

    with pytest.raises(typer.Exit) as ended:
        cli._finish(broken(), signals=False)  # noqa: SLF001 - what every command ends in
    assert ended.value.exit_code == 1
    told = capsys.readouterr().err
    assert "An unforeseen ValueError in test_cli.py" in told
    assert "customer" not in told
    assert "Traceback" not in told
