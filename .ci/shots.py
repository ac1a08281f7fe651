"""Pictures of the built pages as a phone and a laptop show them, light and dark.

    python .ci/shots.py docs/_build/html shots

Needs Chromium. Writes one PNG a page, width and mode, and fails if a page can be
scrolled sideways: tables and code scroll by themselves, pages do not.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = {"phone": 390, "laptop": 1280}
MODES = {"light": [], "dark": ["--blink-settings=preferredColorScheme=0"]}
PAGES = (
    *("index", "getting_started", "user_guide", "choosing", "metrics", "faq"),
    *("neural_clamping", "train_time", "monitoring", "api", "auto_examples/index"),
    *("generated/skcalib.TemperatureScaling", "auto_examples/plot_network_owner"),
)
# How far a page is wider than its window, told in the title of a page that frames it.
FRAME = """<title></title><iframe width="{width}" height="900"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => setTimeout(() => {{
  const page = frame.contentDocument.scrollingElement;
  const parts = [page, ...page.querySelectorAll("article, article > section")];
  const wide = parts.map((part) => part.scrollWidth - part.clientWidth);
  document.title = Math.max(...wide);
}}, 500);
frame.src = {url};
</script>"""


def run_browser(browser, url, *options):
    """Return what Chromium prints of a page, once it has settled."""
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(
            "--allow-file-access-from-files",
            "--virtual-time-budget=8000",
            *options,
            url,
        ),
    ]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=True
    )
    return done.stdout


def overhang(browser, page, width):
    """Return by how many pixels a page is wider than a window of this width."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME.format(url=json.dumps(page.as_uri()), width=width))
        dom = run_browser(browser, frame.as_uri(), "--dump-dom")
    return int(re.search(r"<title>(-?\d+)</title>", dom).group(1))


def main():
    """Take the pictures; exit with 1 if a page is too wide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pages", nargs="*", default=PAGES)
    asked = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("Needs chromium, or google-chrome, on the PATH.")
    asked.folder.mkdir(parents=True, exist_ok=True)
    too_wide = []
    for name in asked.pages:
        page = (asked.site / f"{name}.html").resolve()
        for device, width in WIDTHS.items():
            if (pixels := overhang(browser, page, width)) > 0:
                too_wide.append(f"{name}: {pixels} pixels wider than a {device}")
            for mode, options in MODES.items():
                shot = asked.folder / f"{name.replace('/', '.')}-{device}-{mode}.png"
                size = f"--window-size={width},2400"
                run_browser(
                    browser, page.as_uri(), f"--screenshot={shot}", size, *options
                )
    print("\n".join(too_wide) or f"{len(asked.pages)} pages fit phone and laptop")
    sys.exit(bool(too_wide))


if __name__ == "__main__":
    main()
