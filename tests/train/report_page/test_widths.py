"""The widths of layers, drawn for the page and as a file of its own."""

import xml.etree.ElementTree as ElementTree

from train.report_page.charts.widths import Width, width_bars, width_picture

WIDTHS = [Width("first <b>", 1280, 640, "floor"), Width("second", 64, 64)]


def test_the_picture_is_svg_with_a_bar_before_and_one_after_for_each_layer() -> None:
    root = ElementTree.fromstring(width_picture(WIDTHS, title="half"))
    texts = [node.text for node in root.iter() if node.text and node.text.strip()]
    assert texts == ["half", "first <b>", "1,280 → 640", "second", "64", "channels before", "after"]
    lengths = [float(node.attrib["width"]) for node in root.iter() if node.attrib.get("height") == "12"]
    assert lengths[:4] == [420.0, 210.0, 21.0, 21.0]


def test_the_bars_of_a_page_are_shares_of_the_widest_layer() -> None:
    page = width_bars(WIDTHS)
    assert 'class="outer" style="width:100.0%"' in page
    assert 'style="width:50.0%" title="floor"' in page
    assert 'style="width:5.0%"' in page
    assert "first &lt;b&gt;" in page
    assert "1280 → 640" in page
