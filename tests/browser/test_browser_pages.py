"""Pages without a kernel, in a real browser: the notebooks' outputs and the lecture demo."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from machinery.page import page as page_of

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_of_a_committed_notebook_are_accessible_without_a_network(path, visit, axe, tmp_path):
    (tmp_path / "page.html").write_text(page_of(nbformat.read(path, as_version=4)), encoding="utf-8")
    page = visit()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator(".jp-OutputArea-output").count() > 0
    assert axe(page, ".jp-Cell-outputWrapper") == []
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.outside == []
    page.context.close()


def test_what_is_looked_for_would_be_found(visit, axe, tmp_path):
    (tmp_path / "page.html").write_text('<html lang="en"><title>a</title><main><img src="http://example.org/a.png">'
                                        '<input type="range"></main>', encoding="utf-8")
    page = visit()
    page.goto((tmp_path / "page.html").as_uri())
    assert [line.split(":")[0] for line in axe(page)] == ["critical image-alt", "critical label"]
    assert page.outside == ["http://example.org/a.png"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo.html"
    subprocess.run([sys.executable, "-m", "fluidlab", "demo", "--out", str(out)], cwd=ROOT, check=True)
    return out


def test_the_demo_is_moved_by_keys_and_by_buttons(demo, visit, axe, picture_folder):
    assert demo.stat().st_size < 8e6
    page = visit()
    page.goto(demo.as_uri())
    where, image = page.locator("#where"), page.locator("#discrete")
    assert where.inner_text().startswith("1 of 45: scene 2, 64 x 64 pixels, 16 tokens")
    assert "4,096 codes" in page.locator("#discrete-said").inner_text()
    first = image.get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert where.inner_text().startswith("2 of 45") and image.get_attribute("src") != first
    assert "256 codes" in page.locator("#discrete-said").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert where.inner_text().startswith("45 of 45: rocket, 256 x 256")
    page.keyboard.press("ArrowDown")
    assert image.get_attribute("src") == first
    page.keyboard.press("e")
    assert image.get_attribute("src") != first and image.get_attribute("alt").startswith("error map of scene 2")
    page.get_by_role("button", name="error maps").press("Enter")
    assert image.get_attribute("src") == first
    for name, starts in (("next picture", "10 of 45: scene 5"), ("next →", "11 of 45"), ("back", "10 of 45")):
        page.get_by_role("button", name=name).press("Enter")
        assert where.inner_text().startswith(starts)
    for theme in ("dark", "light"):
        assert page.locator("html").get_attribute("data-theme") == theme
        assert axe(page) == []
        page.screenshot(path=picture_folder / f"demo-{theme}.png", full_page=True)
        page.keyboard.press("d")
    assert all(page.locator("img").nth(i).evaluate("image => image.naturalWidth") == 64 for i in range(3))
    assert page.outside == []
