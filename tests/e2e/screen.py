"""A browser page as a person has it, and everything that the browser complained about."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.dashboard.frontend import node_modules
from ytserver.env import BASE_DIR

CHROMIUM = shutil.which("chromium")
AXE = "axe-core/axe.min.js"
SHOTS = BASE_DIR / "docs" / "screenshots"
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="180"/>'  # in place of YouTube's
WATCH_POLICY = """
window.__refused = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__refused.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""
OVERFLOW = """
() => {
  const cards = [...document.querySelectorAll(".card")].filter(
    (card) => card.clientWidth && !["auto", "scroll"].includes(getComputedStyle(card).overflowX));
  const page = document.documentElement.scrollWidth - innerWidth;
  return Math.max(page, ...cards.map((card) => card.scrollWidth - card.clientWidth));
}
"""
# Without the preload (of style sheets once more, for one experimental rule that is off): it doubles the time of a page.
# Without what Swagger UI draws: it nests buttons in buttons, which is not ours to mend.
FIND_FAULTS = """
async () => {
  const found = await axe.run({ exclude: [[".swagger-ui"]] }, { resultTypes: ["violations"], preload: false });
  return found.violations
    .filter((fault) => ["serious", "critical"].includes(fault.impact))
    .map((fault) => `${fault.id}: ${fault.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join(" | ")}`);
}
"""


def axe_source() -> Path:
    """The accessibility checker, an npm package for development."""
    return node_modules() / AXE


@dataclass
class Screen:
    """``problems``: errors of the console and of scripts, refused by the policy, and requests that failed."""

    page: Any
    url: str
    problems: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.add_init_script(WATCH_POLICY)
        self.page.on("console", self._note_entry)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", self._note_failure)

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}/{path}", wait_until="load")

    def log_in(self, name: str, password: str) -> None:
        self.go("admin/login")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()

    def overflow_px(self) -> int:
        """By how much the page is too wide, or what is in one of its cards: that is cut off there without the page
        growing. What scrolls by itself, such as a log, is as it should be."""
        return int(self.page.evaluate(OVERFLOW))

    def refused(self) -> list[str]:
        """What the content security policy refused on this page."""
        return list(self.page.evaluate("window.__refused"))

    def faults(self) -> list[str]:
        """What axe finds serious or critical. It is put into the page past the policy, as developer tools are."""
        self.begin_faults()
        return self.end_faults()

    def begin_faults(self) -> None:
        """Let axe begin, and do something else meanwhile."""
        self.page.evaluate(axe_source().read_text())
        self.page.evaluate(f"() => {{ window.__faults = ({FIND_FAULTS})(); }}")

    def end_faults(self) -> list[str]:
        return list(self.page.evaluate("window.__faults"))

    def shoot(self, name: str, *, full: bool = False) -> None:
        """Keep a small picture for the documentation, when the run was asked for them (`make e2e`)."""
        if os.environ.get("E2E_SCREENSHOTS"):
            SHOTS.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=SHOTS / f"{name}.jpg", type="jpeg", quality=62, full_page=full)

    def _note_entry(self, entry: Any) -> None:
        if entry.type == "error":
            self.problems.append(f"{entry.text} ({entry.location.get('url')})")

    def _note_failure(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page was left before its answer was read
            self.problems.append(f"{request.failure}: {request.url}")
