"""A headless Chromium or Chrome, driven by selenium."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.report.test_report import browser as browser_name

HOW = "see CONTRIBUTING.md, All checks"


def data_of(text: str) -> dict[str, Any]:
    """What a page knows of its faces."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


class Browser:
    """What a person does with a page.

    Attributes:
        downloads: folder of saved files.
    """

    def __init__(self, driver: Any, downloads: Path) -> None:
        self._driver, self.downloads = driver, downloads

    def open(self, page: Path | str) -> None:
        """Open a file, or an address."""
        self._driver.get(page if isinstance(page, str) else page.resolve().as_uri())

    def reload(self) -> None:
        self._driver.refresh()

    def run(self, script: str, *values: Any) -> Any:
        return self._driver.execute_script(script, *values)

    def before_scripts(self, script: str) -> None:
        """Run a script before those of each page."""
        self._driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    @property
    def faces(self) -> list[dict[str, Any]]:
        return self.run("return JSON.parse(document.getElementById('data').textContent).faces")

    def _find(self, selector: str) -> Any:
        return self._driver.find_element("css selector", selector)

    def text(self, name: str) -> str:
        return self._find(f"#{name}").get_attribute("textContent")

    def title(self) -> str:
        return self._driver.title

    def disabled(self, name: str) -> bool:
        return not self._find(f"#{name}").is_enabled()

    def pressed(self) -> list[str]:
        """The labels of the buttons that are shown as pressed."""
        return self.run(
            "return [...document.querySelectorAll('[aria-pressed=true]')].map(button => button.dataset.label)"
        )

    def press(self, key: str) -> None:
        from selenium.webdriver.common.keys import Keys

        self._find("body").send_keys(getattr(Keys, key, key))

    def press_here(self, key: str) -> None:
        """Press a key on the element that has the focus."""
        from selenium.webdriver.common.keys import Keys

        self._driver.switch_to.active_element.send_keys(getattr(Keys, key, key))

    def click(self, selector: str) -> None:
        self._find(selector).click()

    def click_text(self, selector: str, begin: str) -> None:
        """Click the first of several elements whose text begins so, once it is there."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].find(e => e.innerText.trim().startsWith(arguments[1]))"
        )
        self.wait(lambda: self.run(script, selector, begin)).click()

    def address(self) -> str:
        return self._driver.current_url

    def tap(self, selector: str) -> None:
        """Touch the middle of an element."""
        element = self._find(selector)
        box = self.run(
            "const box = arguments[0].getBoundingClientRect(); return [box.x, box.y, box.width, box.height]", element
        )
        point = {"x": box[0] + box[2] / 2, "y": box[1] + box[3] / 2}
        self._driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        self._driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        self._driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def resize(self, width: int, height: int, dark: bool) -> None:
        phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def upload(self, selector: str, path: Path) -> None:
        self._find(selector).send_keys(str(path))

    @contextmanager
    def inside(self, selector: str) -> Iterator[None]:
        """What is done in the block is done in a frame of the page."""
        self._driver.switch_to.frame(self._find(selector))
        try:
            yield
        finally:
            self._driver.switch_to.default_content()

    def wait(self, condition: str | Callable[[], Any], seconds: float = 30) -> Any:
        """Wait until a condition, or a script's expression, is true; returns its value."""
        end = time.monotonic() + seconds
        while not (found := self.run(f"return {condition}") if isinstance(condition, str) else condition()):
            shown = self.run("return document.body.innerText")
            assert time.monotonic() < end, f"not within {seconds} s: {condition}; the page shows: {shown[-2000:]}"
            time.sleep(0.1)
        return found

    def addresses(self) -> set[str]:
        """All that was asked for since the last call, web sockets and pictures within pages included."""
        found = set()
        for entry in self._driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                found.add(message["params"]["url"])
        return found

    def screenshot(self, path: Path) -> None:
        self._driver.save_screenshot(str(path))

    def errors(self) -> list[str]:
        """Messages of the console: errors of scripts, violated policies, pictures that cannot be decoded."""
        return [entry["message"] for entry in self._driver.get_log("browser")]


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason=f"needs selenium: {HOW}")
    program = shutil.which(browser_name())  # skips
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip(f"needs chromedriver, in Debian's package chromium-driver: {HOW}")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        f"user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    downloads = folder / "downloads"
    downloads.mkdir()
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    opened.implicitly_wait(5)  # seconds: some elements appear in an event after a click
    try:
        yield Browser(opened, downloads)
    finally:
        opened.quit()
