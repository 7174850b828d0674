"""The pages in a real browser: nothing runs, nothing is fetched, foreign names stay text."""

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ranker.report.html import render_html
from ranker.report.predictions import Predictions
from tests.ranker.report.test_html import HOSTILE, report_named

Make = Callable[..., Predictions]

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """An address, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def load(page: Path, profile: Path) -> str:
    """The page's document after the browser worked on it."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--virtual-time-budget=2000",
            f"--user-data-dir={profile}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def hostile_names(address: str) -> list[str]:
    script = "document.title='owned'"
    return [
        *HOSTILE,
        f"<img src={address}/img onerror={script}>",
        f"<script>{script};fetch('{address}/fetch')</script>",
        f"<link rel=stylesheet href={address}/css>",
        f"</style><style>@import url({address}/import)",
        f"<svg><script href={address}/svg>{script}</script></svg>",
        f"<meta http-equiv=refresh content='0;url={address}/refresh'>",
    ]


def test_hostile_names_do_nothing(
    make_predictions: Make, tmp_path: Path, requests: tuple[str, list[str]]
) -> None:
    address, asked = requests
    # all at once: a browser takes seconds to start
    name = " ".join(hostile_names(address))
    path = tmp_path / "report.html"
    path.write_text(render_html(report_named(make_predictions, name)), encoding="utf-8")
    document = load(path, tmp_path / "profile")
    assert asked == []
    title = re.search(r"<title>(.*?)</title>", document, flags=re.DOTALL)
    assert title is not None
    assert title[1].startswith("&lt;script&gt;")
    assert not re.search(r"<(script|img|iframe|link|object)\b", document)


def test_the_check_would_notice(tmp_path: Path, requests: tuple[str, list[str]]) -> None:
    address, asked = requests
    path = tmp_path / "bad.html"
    path.write_text(f"<title>x</title><img src={address}/img onerror=\"document.title='owned'\">")
    document = load(path, tmp_path / "profile")
    assert asked == ["/img"]
    assert "<title>owned</title>" in document
