"""Numbers as people read them: `percent(0.8123)` is "81.2 %", `short(2_720_000)` is "2.72M"."""

NOTHING = "\N{EN DASH}"  # where there is no number


def percent(share: float | None, *, digits: int = 1) -> str:
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def plain(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def short(number: float) -> str:
    """Three figures and k, M or G."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{letter}"
    return f"{number:.3g}"


def megabytes(number: float) -> str:
    """1 MB = 10^6 bytes."""
    return f"{number / 1e6:.2f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def milliseconds(number: float) -> str:
    return f"{number:.2f} ms" if number < 10 else f"{number:.1f} ms"


def count(number: int, noun: str) -> str:
    """As in "1 photo" and "2,485 photos"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share_of_change(before: float, after: float) -> str:
    """As in "-50 %"."""
    return f"{100 * (after / before - 1):+.0f} %".replace("-", "\N{MINUS SIGN}")
