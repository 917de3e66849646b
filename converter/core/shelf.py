"""What lies in the engine's input folder by our doing: which content under which name, and who needs it there.

For: uploading the same content once. Leaves uploading and removing to others. Invariant: a name that `take` gives was
put for the same engine and has not been given back for removal; a name is given back once, when nobody needs it.
"""

from dataclasses import dataclass

MAX_KNOWN = 4096
"""Contents that are remembered; the oldest are forgotten first."""


@dataclass(slots=True)
class _Item:
    digest: bytes
    instance: str | None
    at: float
    users: int


class Shelf:
    """Names by content. `lasting` is in seconds: how long a name that nobody needs is kept and counts as still there;
    0 where it is removed at once.
    """

    def __init__(self, lasting: float) -> None:
        self._lasting = lasting
        self._items: dict[str, _Item] = {}
        self._names: dict[bytes, str] = {}

    def take(self, digest: bytes, instance: str | None, now: float) -> str | None:
        """The name under which this content lies at this engine, needed once more from here on; None if there is none.

        An engine that is not known has nothing.
        """
        name = self._names.get(digest)
        if name is None or instance is None:
            return None
        item = self._items[name]
        fresh = item.users > 0 or now - item.at < self._lasting
        if item.instance != instance or not fresh:
            return None
        item.users += 1
        return name

    def put(self, name: str, digest: bytes, instance: str | None, now: float) -> None:
        """The content lies there, and is needed by one."""
        before = self._items.get(name)
        self._items[name] = _Item(digest, instance, now, 1 + (before.users if before else 0))
        self._names[digest] = name
        if len(self._items) > MAX_KNOWN:
            oldest = next((each for each, item in self._items.items() if not item.users), None)
            if oldest is not None:
                self._forget(oldest)

    def release(self, name: str) -> bool:
        """One who needed it needs it no longer; whether it is to be removed."""
        item = self._items[name]
        item.users -= 1
        if item.users or self._lasting:
            return False
        self._forget(name)
        return True

    def _forget(self, name: str) -> None:
        digest = self._items.pop(name).digest
        if self._names.get(digest) == name:
            del self._names[digest]
