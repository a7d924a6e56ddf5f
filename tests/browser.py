"""A page in Debian's Chromium: opened without a network, and held to make no request or error."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")


@contextmanager
def open_page(path: Path, *, width: int = 1200, height: int = 900, **context: Any) -> Iterator[Any]:
    """Yield a page of a file; when it closes, fail if it asked for anything but files or erred.

    Args:
        path: the file.
        width: of the window, in CSS pixels.
        height: of the window.
        context: further settings of the browser's context, such as color_scheme.
    """
    from playwright.sync_api import sync_playwright  # heavy, and only needed where Chromium is

    requests: list[str] = []
    errors: list[str] = []
    size = {"width": width, "height": height}
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]  # as root, in a container
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            page = browser.new_context(viewport=size, offline=True, **context).new_page()
            page.set_default_timeout(10_000)  # milliseconds
            page.on("request", lambda request: requests.append(request.url))
            page.on("console", lambda message: errors.append(message.text))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(path.as_uri())
            yield page
        finally:
            browser.close()
    asked = [url for url in requests if not url.startswith(("file:", "data:"))]
    assert not asked, f"{path.name} asked the network for {asked}"
    assert not errors, f"{path.name} wrote to the console: {errors}"
