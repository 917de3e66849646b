"""Outputs on their way to where the order wants them: a link to this replica, a destination in object storage.

Leaves the answer itself to `deliver`. Invariant: every output is in the answer, as a link or as its bytes; texts are
always there as they are, and what can't be elsewhere comes with a warning that says why.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from converter.core.order import Order, Upload
from converter.core.outputs import Output
from converter.media.links import Links
from converter.media.outputs import Item
from converter.media.uploads import PART, Uploads

NOWHERE = "the engine has sent this picture and stored it nowhere, so that no link can lead to it"


class Dispatch:
    """Knows the ways."""

    def __init__(self, links: Links, uploads: Uploads) -> None:
        self.links = links
        self._uploads = uploads

    @property
    def destinations(self) -> Collection[str]:
        """Where outputs may be uploaded to, by name."""
        return self._uploads.names

    @staticmethod
    def hold(order: Order, bound: int) -> int:
        """Bytes of outputs that are worth being read at once, where `bound` are if they stay here."""
        match order.selection.delivery:
            case "inline":
                return bound
            case "url":
                return 0
        return PART  # one request in place of the three that an upload in parts takes

    async def send(self, order: Order, outputs: Sequence[Output], items: Sequence[Item]) -> list[Item]:
        """The items as they will be answered; `outputs` are what they were made of, in the same order.

        Raises DeliveryFailed, and what reading an output raises.
        """
        return [
            await self._send(order, output, item, number)
            for number, (output, item) in enumerate(zip(outputs, items, strict=True), 1)
        ]

    async def _send(self, order: Order, output: Output, item: Item, number: int) -> Item:
        delivery = order.selection.delivery
        if delivery == "inline" or item.content is None:
            return item
        if isinstance(delivery, Upload):
            return replace(item, content=None, link=await self._uploads.put(item, number, delivery.destination, order))
        if output.file is None:
            return replace(item, warning="; ".join(filter(None, (item.warning, NOWHERE))))
        return replace(item, content=None, link=self.links.make(output, output.file, order.selection))
