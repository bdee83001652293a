"""The pages in a real browser: nothing is logged, nothing is asked for, nothing sticks out on a narrow phone."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mobile_avatar.reporting.collect import collect
from mobile_avatar.reporting.compare import compare
from mobile_avatar.reporting.page import render_comparison, render_report
from tests.reporting import chromium
from tests.reporting.chromium import Chromium

pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="Chromium is not on this machine")
COMMAND = [sys.executable, "-c", "from mobile_avatar.cli.main import main; main()"]
WIDTHS = (360, 1280)
FAILS = """
(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
      .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *:not(svg):not(svg *)")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own) continue;
    const pair = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) poor.push(node.tagName + "." + node.className + " " + ratio.toFixed(1));
  }
  return [...new Set(poor)].join(", ");
})()
"""
"""Elements whose text has a contrast below 4.5 to 1."""
BROKEN = """
(() => {
  const broken = [];
  const walk = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    for (const word of walk.currentNode.data.matchAll(/[A-Za-z]{2,16}/g)) {
      if (/[A-Za-z0-9_]{17,}/.test(walk.currentNode.data)) break;
      const range = document.createRange();
      range.setStart(walk.currentNode, word.index);
      range.setEnd(walk.currentNode, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) broken.push(word[0]);
    }
  }
  return [...new Set(broken)].join(", ");
})()
"""
"""Ordinary words that stand on two lines; texts with a hash or another endless word in them are left out."""
CUT = """
[...document.querySelectorAll(".scroll:not(.drawing)")].filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.getAttribute("aria-label")).join(", ")
"""
"""Tables of which a part is off the screen."""


@pytest.fixture(scope="module")
def pages(split, native, tmp_path_factory) -> list[Path]:
    """A report and a comparison, with the longest words that a page takes."""
    facts = collect(split)
    long = replace(facts, name="n" * 120, person="p" * 120, device="d" * 80, notes=("w" * 600,))
    folder = tmp_path_factory.mktemp("pages")
    contents = {"report": render_report(long)}
    contents["compare"] = render_comparison(compare(long, collect(native)))
    for name, content in contents.items():
        (folder / f"{name}.html").write_text(content)
    return [folder / f"{name}.html" for name in contents]


def test_pages_in_a_browser(pages, tmp_path):
    with Chromium() as browser:
        for path in pages:
            for width in WIDTHS:
                browser.open(path, width)
                assert browser.complaints() == []
                assert browser.requests() == [path.resolve().as_uri()]
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, (path.name, width)
                assert browser.evaluate(BROKEN) == "", (path.name, width)
                assert browser.evaluate(CUT) == "", (path.name, width)
                assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            for dark in (False, True):
                browser.open(path, dark=dark)
                assert browser.evaluate(FAILS) == "", (path.name, "dark" if dark else "light")
            browser.print(tmp_path / "page.pdf")
            assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_the_shipped_avatar_in_a_browser(tmp_path):
    """The pages of real exports, as a user makes them."""
    lines = [f"export --target {target} -o {target}" for target in ("snpe", "tflite")]
    lines += ["report snpe -o snpe.html", "report tflite -o tflite.html", "report --compare snpe tflite -o both.html"]
    for line in lines:
        subprocess.run([*COMMAND, *line.split()], cwd=tmp_path, check=True)
    with Chromium() as browser:
        for name in ("snpe", "tflite", "both"):
            browser.open(tmp_path / f"{name}.html", 360)
            assert browser.complaints() == []
            assert browser.evaluate("document.documentElement.scrollWidth") <= 360
            assert (browser.evaluate(BROKEN), browser.evaluate(CUT)) == ("", "")
            assert (tmp_path / f"{name}.html").stat().st_size < 3e6
