"""A log that cannot be written is no reason to stop the work."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from worker import logs as log_lines
from worker.logs import NonBlockingStream


def test_a_pipe_that_nobody_reads_or_that_is_closed_is_outlived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "WRITE_SECONDS", 0.01)
    reader, writer = os.pipe()
    with suppress(BrokenPipeError), os.fdopen(writer, "w", encoding="utf-8") as stream:  # what is left at its end
        lines = NonBlockingStream(stream)
        for _ in range(30):
            assert lines.write("x" * 4000 + "\n") == 4001
        assert len(os.read(reader, 1 << 20)) > 4000, "what could be written was"
        os.close(reader)
        lines.write("the reader has exited\n")


def test_a_full_disk_and_a_closed_stream_are_outlived() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        assert NonBlockingStream(full).write("line\n") == 5
        full_lines = NonBlockingStream(full)
        try:
            full.close()
        except OSError:
            pass
        assert full_lines.write("line\n") == 5
