"""Bringing what is published to other places: object storage, another web server. Ring 4: rules and ports only.

The folder is where a CRL becomes visible first; each mirror follows by itself, with its own failures and its own pause, so that a place that is down holds
up neither the folder nor another place. What is not believable, or older than what a mirror has, is never copied over it (R09, R11).
"""

from __future__ import annotations

from collections.abc import Iterable

from ca.errors import Broken, StoreUnavailable
from ca.model import Issuer
from ca.ports import Outlet, Readable
from crl.model import Scope
from crl.publish import scopes
from crl.rules import gate
from crl.rules.anatomy import CHUNK, version_of
from crl.shelf import Shelf


class Mirror:
    """One place that follows another.

    Args:
        source: what readers of the folder get.
        target: the place that follows.
    """

    def __init__(self, source: Outlet, target: Outlet, *, issuers: Iterable[Issuer]) -> None:
        self._source, self._target = source, target
        self._scopes = [scope for issuer in issuers if issuer.may_sign_crl for scope in scopes(issuer)]
        self._shelf = Shelf(source)
        self._done: dict[str, tuple[str, str | None]] = {}
        """Of each name: the version that was brought, and the target's mark since."""

    def follow(self) -> int:
        """Bring what is newer. Returns how many files; every one is tried, also after one that failed.

        Raises:
            StoreUnavailable: one or more could not be brought; repeating is safe.
        """
        brought, troubles = 0, []
        for scope in self._scopes:
            try:
                brought += self._bring(scope)
            except (StoreUnavailable, Broken) as error:
                troubles.append(f"{scope.name}: {error.what}{' ' + error.why if error.why else ''}")
        if troubles:
            raise StoreUnavailable("mirror-behind", f"{len(troubles)} CRLs were not brought.", why=" ".join(troubles)[:500], retry_after=30)
        return brought

    def _bring(self, scope: Scope) -> int:
        visible = self._shelf.look(scope)
        if visible.version is None or visible.head is None:
            return 0
        done = self._done.get(scope.name)
        if done is not None and done[0] == visible.version and done[1] is not None and self._target.mark(scope.name) == done[1]:
            return 0
        with self._target.opened(scope.name) as there:
            seen = None
            if there is not None:
                passed = _believed(there, scope)
                seen = version_of(there)
                if passed is not None and passed.head.number > visible.head.number:
                    raise Broken(
                        "mirror-ahead",
                        f"{scope.name} has number {passed.head.number} there and {visible.head.number} here.",
                        why="A folder was set back.",
                    )
        if seen != visible.version:
            self._put(scope, seen)
        self._done[scope.name] = (visible.version, self._target.mark(scope.name))
        return 0 if seen == visible.version else 1

    def _put(self, scope: Scope, seen: str | None) -> None:
        with self._source.opened(scope.name) as copy, self._target.stage(scope.name) as stage:
            if copy is None:
                return
            with open(stage.fileno(), "wb", closefd=False) as file:
                file.writelines(copy.read(start, CHUNK) for start in range(0, copy.size, CHUNK))
            stage.sync()
            passed = gate.believe(stage, scope)
            self._target.raise_high_water(scope.numbered, passed.head.number)
            self._target.put_if_unchanged(scope.name, stage, seen=seen)


def _believed(copy: Readable, scope: Scope) -> gate.Passed | None:
    try:
        return gate.believe(copy, scope)
    except Broken:
        return None
