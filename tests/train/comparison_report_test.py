"""The pages of a comparison: what stands in both, and the HTML one in a real browser."""

import html.parser
import os
import re

import pytest

from tests.train import made_up
from tests.train.browser import Page, find_chromium
from train import comparison_report
from train.comparison import Job
from train.comparison_figures import COLOURS
from train.methods import GROUPS, METHODS

WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the report of all methods and two seeds, and that report."""
    folder = tmp_path_factory.mktemp("report")
    jobs = made_up.make(folder / "all", tuple(METHODS), (0, 1))
    failed = {Job("mixup", 7): "the disk <is> full"}
    return folder / "all", comparison_report.write(str(folder / "all"), jobs, failed)


class _Tables(html.parser.HTMLParser):
    """The texts of all cells, table by table, row by row."""

    def __init__(self):
        super().__init__()
        self.tables, self.inside = [], False

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data.strip()


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The same of a page in Markdown."""
    tables = []
    for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        if line.startswith("| "):
            if not before.startswith("| "):
                tables.append([])
            tables[-1].append([cell.strip(" *") for cell in line.strip("|").split(" | ")])
    return [[table[0], *table[2:]] for table in tables]


def test_both_pages_hold_all_cells_of_all_tables(written):
    folder, report = written
    expected = [
        [table.heads, *[[cell.text for cell in row] for row in table.rows]]
        for table in report.tables
    ]
    assert [table.name for table in report.tables] == [
        *("methods", "differences", "temperatures", "table2", "table3", "table4"),
        *("attacks", "costs"),
    ]
    parser = _Tables()
    parser.feed((folder / "report.html").read_text("utf-8"))
    assert parser.tables == expected
    assert markdown_tables((folder / "report.md").read_text("utf-8")) == expected


def test_the_papers_figures_are_marked(written):
    _, report = written
    tables = {table.name: table for table in report.tables}
    assert tables["table2"].rows[1][-1].text == "1.4/4.3"
    assert tables["table3"].rows[0][-1].text == "6.1"
    assert tables["table4"].rows[2][-2].text == "2.4/9.9"
    for name, ours in (("table2", 5), ("table3", 5), ("table4", 5)):
        heads = tables[name].heads
        assert all(head.startswith("published, ") for head in heads[1 + ours :])
        assert not any(head.startswith("published") for head in heads[: 1 + ours])
        assert "other data" in tables[name].note


def test_what_failed_is_told_and_escaped(written):
    folder, _ = written
    page = (folder / "report.html").read_text("utf-8")
    assert "mixup, seed 7" in page and "the disk &lt;is&gt; full" in page
    assert "the disk <is> full" in (folder / "report.md").read_text("utf-8")


def test_the_page_asks_for_nothing(written):
    page = (written[0] / "report.html").read_text("utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert "@import" not in page and not re.findall(r"url\((?!#)", page)


def test_pictures_of_the_markdown_are_there_and_whole(written):
    folder, report = written
    names = re.findall(r"\(figures/(.*?)\)", (folder / "report.md").read_text("utf-8"))
    assert names == [f"{figure.name}.svg" for figure in (report.overview, *report.figures)]
    for name in names:
        svg = (folder / "figures" / name).read_text("utf-8")
        assert svg.startswith("<svg ") and svg.rstrip().endswith("</svg>")
        assert "currentColor" not in svg


def test_ids_are_unique_and_all_that_is_referred_to_is_there(written):
    page = (written[0] / "report.html").read_text("utf-8")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', page)) <= set(ids)


@pytest.mark.parametrize("group", ["quick", "augmix", "mixup", "adversarial"])
def test_colours_of_a_group_are_told_apart_by_all_readers(group):
    """At least 10 apart in CIE Lab, to trichromats, protanopes and deuteranopes.

    The dichromats' matrices are those of Viénot, Brettel & Mollon (1999), on linear RGB.
    """
    import numpy as np
    from matplotlib.colors import to_rgb
    from skimage.color import rgb2lab

    protan = [[0.1121, 0.8853, -0.0005], [0.1127, 0.8897, -0.0001], [0.0045, 0.0, 1.0019]]
    deutan = [[0.2920, 0.7054, -0.0003], [0.2934, 0.7089, 0.0], [-0.0210, 0.0256, 0.9921]]
    colours = np.array([to_rgb(COLOURS[method]) for method in GROUPS[group]])
    for matrix in (np.eye(3), protan, deutan):
        seen = np.clip(colours**2.2 @ np.transpose(matrix), 0.0, 1.0) ** (1 / 2.2)
        lab = rgb2lab(seen[np.newaxis])[0]
        apart = np.linalg.norm(lab[:, np.newaxis] - lab, axis=-1) + 1e3 * np.eye(len(lab))
        assert apart.min() >= 10.0


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page in Chromium."""
    if "TEST_TMPDIR" in os.environ:
        pytest.skip("Chromium does not start inside Bazel's sandbox")
    executable = find_chromium()
    if executable is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    profile = tmp_path_factory.mktemp("profile")
    with Page(executable, profile) as page:
        yield page


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_all_of_it_and_asks_for_nothing(page, written, tmp_path, width):
    folder, report = written
    file = folder / "report.html"
    page.load(file, width=width)
    assert page.requests == [file.resolve().as_uri()]
    assert page.errors == []
    assert page.evaluate("[...document.querySelectorAll('tbody')].map(x => x.rows.length)") == [
        len(table.rows) for table in report.tables
    ]
    sizes = page.evaluate(
        "[...document.querySelectorAll('figure svg')]"
        ".map(x => (x.closest('.wide > div') || x).getBoundingClientRect())"
        ".map(x => [x.left, x.right, x.height])"
    )
    assert len(sizes) == 1 + len(report.figures)
    assert all(left >= 0 and right <= width and height > 50 for left, right, height in sizes)
    # Wide tables scroll inside, the page does not.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    luminances = []
    for dark in (False, True):
        page.prefer(dark=dark)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        luminances.append(sum(map(int, re.findall(r"\d+", background)[:3])) / 765)
    assert luminances[0] > 0.9 and luminances[1] < 0.2
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 100_000


def test_text_of_figures_is_legible_on_a_phone(page, written):
    page.load(written[0] / "report.html", width=WIDTHS[0])
    heights = page.evaluate(
        "[...document.querySelectorAll('figure svg text')]"
        ".filter(x => x.textContent.trim()).map(x => x.getBoundingClientRect().height)"
    )
    # A line is about 1.2 times as high as its letters are said to be.
    assert round(min(heights)) >= 10


def test_a_click_on_a_head_sorts_the_rows_and_a_second_the_other_way_round(page, written):
    folder, report = written
    page.load(folder / "report.html", width=WIDTHS[1])
    texts = "[...document.querySelector('table').tBodies[0].rows].map(x => x.cells[4].innerText)"
    table = report.tables[0]
    ordered = [row[4].text for row in sorted(table.rows, key=lambda row: row[4].value)]
    click = "document.querySelectorAll('table')[0].tHead.rows[0].cells[4].firstChild.click()"
    page.evaluate(click)
    assert page.evaluate(texts) == ordered
    page.evaluate(click)
    assert page.evaluate(texts) == ordered[::-1]
    assert page.errors == []
