"""The report in a real browser: nothing runs, nothing is fetched, and it is readable in light, dark and on a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.browser import browse
from tests.support.command import run_command
from worker.demo.control import Control


@pytest.mark.parametrize(
    ("look", "options"),
    [
        ("light", ["--window-size=1100,1900"]),
        ("dark", ["--window-size=1100,1900", "--blink-settings=preferredColorScheme=0"]),
        ("narrow", ["--window-size=500,3000"]),
    ],
)
async def test_it_is_drawn(
    look: str, options: list[str], environment: dict[str, str], simulator: Control, tmp_path: Path
) -> None:
    await simulator.reset(300)
    await simulator.create(
        [{"name": "<script>document.title='owned'</script>", "status": "New", "substatus": "Pending"}]
    )
    assert run_command(environment, tmp_path, "sync").returncode == 0
    page = tmp_path / "report.html"
    written = run_command(environment, tmp_path, "report", "--out", str(page))
    assert written.returncode == 0, written.stderr
    dom = await browse(tmp_path, page.as_uri(), "--dump-dom")
    assert "<title>Referrals of contoso</title>" in dom, "no script has changed it"
    assert "<script" not in dom
    picture = tmp_path / f"{look}.png"
    await browse(tmp_path, page.as_uri(), *options, f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000, "an empty page is smaller"


MEASURE = """<!DOCTYPE html><body style="margin:0">
<iframe src="PAGE" style="border:0;width:390px;height:800px"></iframe>
<pre></pre><script>
onload = () => {
    const page = document.querySelector("iframe").contentDocument;
    const size = (what) => Array.from(page.querySelectorAll(what), (one) => parseFloat(getComputedStyle(one).fontSize));
    const box = (one) => one.getBoundingClientRect();
    const within = (one) => box(one).left >= 0 && box(one).right <= 390;
    document.querySelector("pre").textContent = JSON.stringify({
        width: page.documentElement.scrollWidth,
        smallest: Math.min(...size("body *")),
        chart: Math.min(...size(".chart span, .legend li, .bars span")),
        clipped: Array.from(page.querySelectorAll(".chart span, .legend li, .bars span, h1, h2, .tile"))
            .filter((one) => !within(one)).map((one) => one.textContent),
        wide: Array.from(page.querySelectorAll(".scroll")).filter((one) => one.scrollWidth > one.clientWidth).length,
    });
};
</script>"""
"""A phone: a window of a browser is never as narrow, a frame is."""


async def test_on_a_phone_nothing_is_clipped_or_too_small(
    environment: dict[str, str], simulator: Control, tmp_path: Path
) -> None:
    await simulator.reset(300)
    await simulator.create(
        [
            {"name": "W" * 300, "customerProfile": {"name": "Donaudampfschiff" * 20}, "status": status,
             "substatus": "Pending", "direction": "Incoming", "isSpam": False, "currency": "EUR",
             "details": {"currency": f"X{n:02}", "dealValue": 10**12 + n, "closingDateTime": "2099-01-01T00:00:00Z"}}
            for n in range(20)
            for status in ("New", "Unheard" * 12)
        ]
    )  # fmt: skip
    environment |= {"REFERRAL_SYNC_ACCOUNTS__CONTOSO__LABEL": "Contoso" * 11}
    assert run_command(environment, tmp_path, "migrate").returncode == 0
    assert run_command(environment, tmp_path, "sync").returncode == 0
    page = tmp_path / "report.html"
    assert run_command(environment, tmp_path, "report", "--out", str(page)).returncode == 0
    frame = tmp_path / "phone.html"
    frame.write_text(MEASURE.replace("PAGE", page.name))
    dom = await browse(
        tmp_path, frame.as_uri(), "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom"
    )
    found = re.search(r"<pre>(\{.*?\})</pre>", dom)
    assert found is not None, dom
    measured = json.loads(found[1])
    assert measured["width"] == 390, "the page itself does not scroll sideways"
    assert measured["chart"] >= 12
    assert measured["smallest"] >= 11
    assert measured["clipped"] == []
    assert measured["wide"] > 0, "tables scroll by themselves"
