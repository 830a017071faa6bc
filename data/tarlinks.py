"""Links inside a tar, followed to the bytes that they lead to.

Use: `members = follow_links(list(scan_tar(file, name="000.tar")))`
"""

import posixpath
from collections.abc import Sequence
from dataclasses import replace

from data.tarscan import TarMember


def follow_links(members: Sequence[TarMember]) -> list[TarMember]:
    """The members, links with the bytes of their files. One that leads out of the tar, to a folder or in a circle keeps
    its `link`. Of two members with one name the later counts, as when a tar is unpacked."""
    by_name = {posixpath.normpath(member.name): member for member in members}
    return [_follow(member, by_name) if member.link else member for member in members]


def _follow(link: TarMember, by_name: dict[str, TarMember]) -> TarMember:
    target: TarMember | None = link
    passed: set[str] = set()
    while target is not None and target.link:
        if target.link in passed:
            return link
        passed.add(target.link)
        target = by_name.get(target.link)
    return link if target is None else replace(link, offset=target.offset, size=target.size, link="")
