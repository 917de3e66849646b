"""The templates of a replica: read from their folders, kept as the files are, and as the engine can run them.

Folders are looked at now and then, since those that a platform mounts are replaced by links, which no notice tells.
Leaves what files say to `template_files`, and what an engine's answers mean to `core.catalog`. Invariant: `offers` is
replaced and never changed; a template that was good stays as it was while its files are not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from converter.core.catalog import Catalog, Kind
from converter.core.offers import Offer, offer
from converter.core.template import Template
from converter.core.template_toml import find_folder
from converter.link.client import LinkError
from converter.renewal import identify
from converter.template_files import Broken, read_template

log = logging.getLogger(__name__)

PERIOD = 0.5
"""Seconds between two looks at the files."""

REFRESH = 60.0
"""Seconds after which the engine is asked again: it may have got other models."""


class Engine(Protocol):
    """What is asked of an engine (`link.client.EngineClient`); raises LinkError."""

    def node_kind(self, class_type: str) -> Awaitable[Kind | None]:
        """A class of nodes; None where the engine has none of that name."""

    def models(self, folder: str) -> Awaitable[tuple[str, ...] | None]:
        """The files in a folder of models; None where the engine has none of that name."""


Stamp = tuple[Path, tuple[int, int, int] | None, tuple[int, int, int] | None]
"""The path of a declaration, and what differs once it or its workflow has been written or replaced."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of one name; `template` is the last that was good, None before there was one."""

    stamp: Stamp
    template: Template | None


class Templates(Mapping[str, Template]):
    """All templates by name, as they are at the moment. Of two with one name that of the later folder counts.

    `offers` has them with what the engine has for them.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.offers: Mapping[str, Offer] = MappingProxyType({})
        self._folders = folders
        self._known: dict[str, _Known] = {}
        self._catalog = Catalog()
        self._lost: set[Path] = set()
        self.read()

    def __getitem__(self, name: str) -> Template:
        return self.offers[name].template

    def __iter__(self) -> Iterator[str]:
        return iter(self.offers)

    def __len__(self) -> int:
        return len(self.offers)

    def read(self) -> None:
        """Read what has changed since the last time; what can't be used is said."""
        found = self._look()
        known = {name: self._renew(name, stamp) for name, stamp in found.items()}
        if known != self._known:
            self._known = known
            self._offer()

    async def keep(self, engine: Engine, instance: Callable[[], str | None], period: float = PERIOD) -> None:
        """Follow the files, and the engine whenever `instance` names one that is ready, for as long as this runs."""
        loop = asyncio.get_running_loop()
        asked_at, asked = -REFRESH, (instance(), self._known)
        while True:
            await asyncio.to_thread(self.read)
            about = (instance(), self._known)
            if about[0] is not None and (about != asked or loop.time() - asked_at > REFRESH):
                asked_at, asked = loop.time(), about
                await self._ask(engine)
            await asyncio.sleep(period)

    def _look(self) -> dict[str, Stamp]:
        """The declarations that there are. A folder that can't be read has what it had."""
        found: dict[str, Stamp] = {}
        for folder in self._folders:
            try:
                paths = sorted(path for path in folder.iterdir() if path.suffix == ".toml")
                self._lost.discard(folder)
            except OSError as error:
                paths = [known.stamp[0] for known in self._known.values() if known.stamp[0].parent == folder]
                if folder not in self._lost:
                    log.error("templates in %s can't be read, what was there before counts: %s", folder, error.strerror)
                self._lost.add(folder)
            found |= {path.stem: (path, identify(path), identify(path.with_suffix(".json"))) for path in paths}
        return found

    def _renew(self, name: str, stamp: Stamp) -> _Known:
        known = self._known.get(name)
        if known is not None and (known.stamp == stamp or stamp[0].parent in self._lost):
            return known
        before = known.template if known is not None and known.stamp[0] == stamp[0] else None
        try:
            template = read_template(stamp[0])
        except Broken as error:
            kept = ", the last good one counts" if before is not None else ""
            log.error("the template %s can't be used%s: %s", name, kept, error)
            return _Known(stamp, before)
        if known is not None:
            log.info("the template %s was read again", name)
        return _Known(stamp, template)

    def _offer(self) -> None:
        good = {name: known.template for name, known in self._known.items() if known.template is not None}
        self.offers = MappingProxyType({name: offer(good[name], self._catalog) for name in sorted(good)})

    async def _ask(self, engine: Engine) -> None:
        """Ask the engine for all that the templates need."""
        templates = [offered.template for offered in self.offers.values()]
        try:
            catalog = await survey(
                engine,
                (node["class_type"] for template in templates for node in template.workflow.values()),
                (find_folder(hole.source) for template in templates for hole in template.inputs),
            )
        except LinkError as error:
            log.debug("the engine did not say what it has: %s", error)
            return
        if catalog != self._catalog:
            self._catalog = catalog
            self._offer()


async def survey(engine: Engine, classes: Iterable[str], folders: Iterable[str | None]) -> Catalog:
    """What the engine has of these classes of nodes, and in these folders of models; raises LinkError."""
    kinds = {name: await engine.node_kind(name) for name in sorted(set(classes))}
    return Catalog(kinds, {name: await engine.models(name) for name in sorted(set(filter(None, folders)))})
