"""The page's dress: reads on a phone, on a desk and on paper, light or dark, without a script or a foreign font.

html = f"<style>{STYLE}</style>"
"""

from pathlib import Path

from train.report_page.palette import COLOURS, DARK_COLOURS

_LIGHT = "--page:#fbfaf7;--card:#fff;--ink:#1b1f24;--soft:#5b6470;--rule:#e3e0d8;--tint:#eef3f8;--mark:0,114,178;"
_DARK = "--page:#14171b;--card:#1c2127;--ink:#e8eaed;--soft:#9aa4b0;--rule:#323943;--tint:#222a33;--mark:86,180,233;"


def _root(base: str, colours: tuple[str, ...]) -> str:
    series = "".join(f"--series-{place}:{colour};" for place, colour in enumerate(colours))
    return f":root{{{base}{series}}}"


STYLE = "\n".join(
    [
        _root(f"color-scheme:light dark;{_LIGHT}", COLOURS),
        f"@media (prefers-color-scheme:dark){{{_root(_DARK, DARK_COLOURS)}}}",
        f"@media print{{{_root(_LIGHT, COLOURS)}}}",
        Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
    ]
)
