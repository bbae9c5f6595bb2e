"""Pictures of every page of the console with made-up data, into docs/screenshots/: `make screenshots`.

Which pages there are, the routes say. Each is taken wide and as on a phone, light and dark, in English and in Chinese;
`--only logs` takes those whose name holds the word, `--empty` those of an installation that holds nothing yet.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from flask import Flask
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from opus_api import config, create_app  # noqa: E402
from opus_api.extensions import db  # noqa: E402
from opus_api.services import exchange_log  # noqa: E402
from opus_api.services.request_log import LOGS  # noqa: E402
from scripts import made_up  # noqa: E402
from tests.browser.conftest import FLAGS, PASSWORD, executable, sign_in, start, stop  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
SIZES = {"wide": (1280, 800), "phone": (390, 844)}
SCHEMES = ("light", "dark")
LANGUAGES = {"en": "en-US", "zh": "zh-CN"}
OPEN = ("/login", "/my")
MORE = {"cookies-new-openai": "/cookies/new?provider=openai", "dashboard-30d": "/dashboard?period=30d"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--empty", action="store_true")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        url, process = start(Path(folder), PASSWORD)
        try:
            pages = _pages(Path(folder), options.empty)
            wanted = {name: path for name, path in pages if options.only in name}
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
                taken = _take(browser, url, wanted, options.folder)
        finally:
            stop(process)
    print(f"{taken} pictures of {len(wanted)} pages in {options.folder}")
    return 0


def _pages(folder: Path, empty: bool) -> Iterator[tuple[str, str]]:
    """Name and address of each; the service in this folder gets something to show, unless it is to be ``empty``."""
    app = create_app(config.load(folder, {"DATA_DIR": str(folder / "data")}))
    if empty:
        yield from ((f"{name}-empty", path) for name, path in _routes(app, {}))
        return
    with app.app_context():
        made_up.fill()
        worst = db.session.query(LOGS.c.request_id).filter(LOGS.c.attempts > 1).order_by(LOGS.c.time.desc())
        samples = {"account_id": 2, "deleted_id": made_up.DELETED, "key_id": 3, "request_id": worst.limit(1).scalar()}
        made_up.keep(exchange_log.root(app.extensions["settings"]), samples["request_id"])
        db.session.remove()
        db.engine.dispose()
    yield from _routes(app, samples)
    yield from MORE.items()


def _routes(app: Flask, samples: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for rule in app.url_map.iter_rules():
        blueprint = rule.endpoint.partition(".")[0]
        if not blueprint.endswith("_pages") or "GET" not in (rule.methods or ()) or rule.rule.startswith("/static"):
            continue
        if unknown := rule.arguments - samples.keys():
            print(f"{rule.rule} is left out: nothing is made up for {', '.join(sorted(unknown))}", file=sys.stderr)
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(samples[found[1]]), rule.rule)
        yield re.sub(r"<[^>]*>", "one", rule.rule).strip("/").replace("/", "-"), path


def _take(browser: Browser, url: str, pages: dict[str, str], folder: Path) -> int:
    """All pages in all looks; how many pictures."""
    person, taken = _signed_in(browser, url), 0
    for (size, (width, height)), scheme, (language, locale) in product(SIZES.items(), SCHEMES, LANGUAGES.items()):
        looks: dict[str, Any] = {
            "viewport": {"width": width, "height": height},
            "color_scheme": scheme,
            "locale": locale,
            "reduced_motion": "reduce",
        }
        for state, is_open in ((None, True), (person, False)):
            context = browser.new_context(base_url=url, storage_state=state, **looks)
            wanted = {name: path for name, path in pages.items() if (path in OPEN) == is_open}
            taken += _shoot(context.new_page(), url, wanted, folder, f"{size}-{scheme}-{language}")
            context.close()
    return taken


def _signed_in(browser: Browser, url: str) -> Any:
    context = browser.new_context(base_url=url)
    sign_in(context.new_page())
    state = context.storage_state()
    context.close()
    return state


def _shoot(page: Page, url: str, pages: dict[str, str], folder: Path, looks: str) -> int:
    """What only leads elsewhere or is a file is no page."""
    taken = 0
    for name, path in pages.items():
        page.goto(path)
        if page.url == url + path:
            page.screenshot(path=folder / f"{name}-{looks}.png")
            taken += 1
    return taken


if __name__ == "__main__":
    sys.exit(main())
