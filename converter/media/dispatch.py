"""Outputs on their way to where the order wants them: a link to this replica, object storage, a caller's URL.

Leaves the answer itself to `deliver`. Invariant: every output is in the answer, as a link or as its bytes; texts are
always there as they are, and what can't be elsewhere comes with a warning that says why.
"""

from collections.abc import Sequence
from dataclasses import replace

from converter.core.order import Delivery, Order, Put, Upload
from converter.core.outputs import Output
from converter.media.links import Links
from converter.media.outputs import Item
from converter.media.puts import Puts
from converter.media.uploads import PART, Uploads

NOWHERE = "the engine has sent this picture and stored it nowhere, so that no link can lead to it"

LEFT_OVER = "outputs.delivery.put has no URL for this output"


class Dispatch:
    """Knows the ways."""

    def __init__(self, links: Links, uploads: Uploads, puts: Puts) -> None:
        self.links = links
        self._uploads = uploads
        self._puts = puts

    def check(self, delivery: Delivery) -> None:
        """Raise InvalidInput for a way that is not open to callers."""
        if isinstance(delivery, Upload):
            self._uploads.check(delivery.destination)
        elif isinstance(delivery, Put):
            self._puts.check(delivery)

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
        sent: list[Item] = []
        for output, item in zip(outputs, items, strict=True):
            number = 1 + sum(each.output.text is None for each in sent)
            sent.append(item if item.content is None else await self._send(order, output, item, number))
        return sent

    async def _send(self, order: Order, output: Output, item: Item, number: int) -> Item:
        """`number`: of the outputs that are no texts."""
        file = output.file
        match order.selection.delivery:
            case Upload(destination):
                return replace(item, content=None, link=await self._uploads.put(item, number, destination, order))
            case Put() as put if number <= len(put.urls):
                return replace(item, content=None, link=await self._puts.put(item, number, put, order))
            case Put():
                return _warn(item, LEFT_OVER)
            case "url" if file is not None:
                return replace(item, content=None, link=self.links.make(output, file, order.selection))
            case "url":
                return _warn(item, NOWHERE)
        return item


def _warn(item: Item, warning: str) -> Item:
    return replace(item, warning="; ".join(filter(None, (item.warning, warning))))
