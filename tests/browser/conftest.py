"""A real browser, and in it a real JupyterLab: Chromium is skipped where it is missing, and nothing outside is loaded.

All fixtures live as long as one test file, because Playwright keeps an event loop running while it is open.
"""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL = ("data:", "blob:", "file:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:")
SETTINGS = {                    # no news from elsewhere, and cells stay in the page when they are scrolled out of sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def chromium_path(playwright):
    """The executable of Chromium: Playwright's own, or the system's; None if there is neither."""
    own = Path(playwright.chromium.executable_path)
    return str(own) if own.exists() else next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def browser():
    """Chromium, headless."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install -e '.[dev]'")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        path = chromium_path(playwright)
        if path is None:
            pytest.skip(f"no Chromium: none of {', '.join(BROWSERS)} is on the path, and `playwright install chromium` "
                        "was not run")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(browser):
    """`visit(**options)` opens a page whose requests to elsewhere are refused, and listed in its `outside`."""
    contexts = []

    def open_page(**options):
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.outside = []

        def guard(route):
            if route.request.url.startswith(LOCAL):
                return route.continue_()
            page.outside.append(route.request.url)
            return route.abort()
        context.route("**/*", guard)
        return page
    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def axe():
    """`axe(page, selector)`: axe-core's serious and critical findings inside the selector, as readable lines."""
    import axe_playwright_python
    source = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")

    def run(page, selector="body"):
        page.evaluate(source)
        found = page.evaluate("selector => axe.run(selector, {resultTypes: ['violations']})", selector)["violations"]
        return [f"{v['impact']} {v['id']}: {node['html'][:160]}" for v in found
                if v["impact"] in ("serious", "critical") for node in v["nodes"]]
    return run


@pytest.fixture(scope="module")
def picture_folder():
    """Where screenshots go, for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """`jupyter(sources)` writes a notebook of these cells and returns its address in a running JupyterLab."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "notebooks").mkdir()
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "spaces")}
    address, log = f"http://127.0.0.1:{port}", folder / "log.txt"
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}",
               "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder / 'notebooks'}"]
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder,
                                  env={**os.environ, **places, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    try:
        wait_for_server(f"{address}/api", server, log)

        def notebook(sources):
            cells = [nbformat.v4.new_code_cell(source) for source in sources]
            metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "notebooks" / "a.ipynb")
            return f"{address}/lab/tree/a.ipynb?reset"
        yield notebook
    finally:
        server.terminate()
        server.wait(30)


def wait_for_server(address, server, log, tries=600):
    for _ in range(tries):
        if server.poll() is not None:
            break
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.2)                     # between two questions, not for an answer
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
