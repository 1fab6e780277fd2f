"""A real JupyterLab on a copy of the notebooks, and a notebook open in a real browser.

Nothing is tried twice: what should appear is waited for once, until a deadline that is generous to a slow machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS, RUN_SECONDS, DRAW_SECONDS = 120, 600, 60
PRIVATE = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
}
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
# No GPU and perhaps no room in /dev/shm where tests run; as root Chromium starts only without its sandbox.
CHROMIUM_ARGS = ["--disable-gpu", "--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]

CELLS = """() => [...jupyterapp.shell.currentWidget.content.model.sharedModel.cells].map(cell => cell.toJSON())
  .filter(cell => cell.cell_type === 'code')"""
FIGURES = """() => [...document.querySelectorAll('.jp-Notebook .js-plotly-plot')].filter(plot =>
  plot.querySelector('svg.main-svg') && plot._fullData && plot._fullData.length).length"""
BROKEN = """() => [...document.querySelectorAll('.jp-OutputArea-output')].map(area => area.innerText || '').filter(text =>
  /Error (displaying|creating) widget|Loading widget|Javascript Error|could not be loaded|Failed to load model/i.test(text))"""
COLORS = """async png => { const image = new Image(); image.src = 'data:image/png;base64,' + png; await image.decode();
  const pen = new OffscreenCanvas(image.width, image.height).getContext('2d'); pen.drawImage(image, 0, 0);
  return new Set(new Uint32Array(pen.getImageData(0, 0, image.width, image.height).data.buffer)).size }"""
READY = """() => { const panel = window.jupyterapp && jupyterapp.shell.currentWidget;
  const kernel = panel && panel.context && panel.context.isReady && panel.sessionContext.session?.kernel;
  return kernel && kernel.status === 'idle' }"""


@contextmanager
def jupyterlab(notebooks: Path, scratch: Path) -> Iterator[str]:
    """Start JupyterLab on a copy of a folder, with settings of its own; yields the address, token included."""
    root, home = scratch / "notebooks", scratch / "home"
    shutil.copytree(notebooks, root, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    env = os.environ | {name: str(home / folder) for name, folder in PRIVATE.items()}
    news = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps(NO_NEWS))
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        "--port=0",
        "--allow-root",
        f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True",
    ]
    with (scratch / "lab.log").open("wb") as log:
        # a session of its own: ending its group ends the kernels too
        server = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield address(server, home / "runtime", scratch / "lab.log")
    finally:
        end(server)


def address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Wait for the file in which a running server says where it listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            if text := file.read_text():
                about = json.loads(text)
                return f"http://127.0.0.1:{about['port']}/doc/tree/{{}}?reset&token={about['token']}"
        time.sleep(0.2)
    raise RuntimeError(
        f"JupyterLab did not start in {START_SECONDS} s (exit status {server.poll()}):\n" + log.read_text(errors="replace")[-3000:]
    )


def end(server: subprocess.Popen) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


class Notebook:
    """A notebook open in the browser. `errors` and `strangers` fill up: uncaught errors, addresses off this machine."""

    def __init__(self, browser, place: str, name: str, width: int = 1280, height: int = 1000, scale: float = 1.0):
        self.name = name
        self.page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
        self.page.set_default_timeout(DRAW_SECONDS * 1000)
        self.errors: list[str] = []
        self.strangers: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "request",
            lambda request: (
                self.strangers.append(request.url) if request.url.startswith("http") and "//127.0.0.1:" not in request.url else None
            ),
        )
        self.page.goto(place.format(name))
        self.page.wait_for_function(READY, timeout=START_SECONDS * 1000)

    def run_all(self) -> None:
        """Run every cell, and wait until the last has run or an error has stopped the rest."""
        self.page.evaluate(
            "() => { jupyterapp.commands.execute('notebook:run-all-cells')"
            ".then(() => { window.ran = 'all' }, error => { window.ran = String(error) }) }"
        )
        self.page.wait_for_function("() => window.ran", timeout=RUN_SECONDS * 1000)

    def cells(self) -> list[dict]:
        """The code cells as they are now, outputs included."""
        return self.page.evaluate(CELLS)

    def wait_for_figures(self, count: int) -> None:
        self.page.wait_for_function(f"count => ({FIGURES})() >= count", arg=count)

    def figures(self) -> int:
        """How many figures are drawn with something in them."""
        return self.page.evaluate(FIGURES)

    def colors(self) -> list[int]:
        """How many colours there are inside the axes of each figure, the first of several; 1 where nothing is drawn."""
        plots = self.page.locator(".jp-Notebook .js-plotly-plot").all()
        return [self.page.evaluate(COLORS, b64encode(plot.locator(".nsewdrag").first.screenshot()).decode()) for plot in plots]

    def close(self) -> None:
        """Leave the page; its kernel ends with the server."""
        self.page.close()

    def broken(self) -> list[str]:
        """What the page says in place of an output it could not show."""
        return self.page.evaluate(BROKEN)

    def panel(self, index: int) -> Panel:
        """The index-th panel of the page, scrolled into view."""
        return Panel(self.page, self.page.locator(".zamba-panel").nth(index))


class Panel:
    """A panel in the page: what is drawn, and the keys a person would press."""

    def __init__(self, page, place):
        self.page, self.place = page, place
        self.figure = place.locator(".js-plotly-plot")
        self.figure.scroll_into_view_if_needed()

    def title(self) -> str:
        """The title as it is drawn."""
        return self.figure.locator(".gtitle").first.text_content()

    def picture(self) -> bytes:
        """The pixels of the figure, without what the pointer brings up."""
        self.page.mouse.move(0, 0)
        return self.figure.screenshot()

    def press_on_slider(self, index: int, key: str) -> None:
        self.place.locator(".noUi-handle").nth(index).focus()
        self.page.keyboard.press(key)

    def choose(self, index: int, option: str) -> None:
        self.place.locator("select").nth(index).select_option(label=option)

    def wait_for_title(self, text: str) -> None:
        self.figure.locator(".gtitle", has_text=text).first.wait_for()
