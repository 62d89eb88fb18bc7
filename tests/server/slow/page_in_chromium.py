"""The page at / in Chromium: pick a skill, ask both, read answers, timings and receipt."""

from __future__ import annotations

import json
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from lime_edge.server.operations.api_keys import ApiKeys
from lime_edge.skills.interface import Interface
from tests.server.served import running, shared
from tests.support.runtime_models import exported, runtime

pytestmark = pytest.mark.filterwarnings("default")
KEY = "a-key-of-sixteen"


def test_both_answers_side_by_side() -> None:
    made = runtime(exported(), "brief", "legal", interface=Interface(examples=("Hello", "no")))
    expected = [made.generate("Hello", skill, max_new_tokens=20).text for skill in (None, "legal")]
    with running(made, keys=ApiKeys({KEY: "me"}), page=True) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        expect(page.locator("#fault")).to_contain_text("API key")
        page.fill("#key", KEY)
        page.locator("#key").press("Tab")
        expect(page.locator("#skill option")).to_have_text(["brief", "legal"])
        page.select_option("#skill", "legal")
        page.fill("#most", "20")
        page.get_by_role("button", name="Hello").click()
        page.click("#ask")
        for place, text in zip(("#base", "#skilled"), expected, strict=True):
            expect(page.locator(place)).to_have_attribute("data-state", "done", timeout=30_000)
            assert page.locator(f"{place} .text").text_content() == text
            assert "tokens a second" in (page.locator(f"{place} .times").text_content() or "")
        receipt = json.loads(page.locator("#skilled pre").text_content() or "")
        assert receipt["skills"][0]["name"] == "legal"
        page.fill("#request", "x" * 3000)  # does not fit
        page.click("#ask")
        expect(page.locator("#skilled .text")).to_contain_text("expected at most 256")
        assert faults == []
        browser.close()
    assert shared().skills()
