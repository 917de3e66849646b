"""Which outputs are answered, and how: what a request's body, its `Accept` header and a later caller say.

Leaves reading each of them to `requests` and `core.negotiation`. Invariant: what contradicts itself is refused before
anything is begun.
"""

from dataclasses import replace

from converter.api.requests import Outputs, Puts, Storage
from converter.core.negotiation import Shape, Wish
from converter.core.order import Delivery, Put, Selection, Upload
from converter.errors import NotAcceptable
from converter.runner import Run


def narrow(outputs: Outputs, wish: Wish) -> Wish:
    """The wish, with what `outputs.delivery` says of the answer's form. Raises NotAcceptable."""
    form = outputs.delivery
    if form == "raw" or form == "multipart" or form == "zip":
        narrowed = wish.narrowed(form)
        if narrowed is None:
            raise NotAcceptable(f"outputs.delivery is {form}, which the Accept header does not allow")
        return narrowed
    if form != "inline" and wish.shape is Shape.RAW:
        raise NotAcceptable("outputs.delivery puts the bytes elsewhere, and the Accept header wants them here")
    return wish


def choose(outputs: Outputs, nodes: tuple[str, ...] | None, wish: Wish) -> Selection:
    """What is answered: who accepts a single picture format and names no other gets that one.

    `nodes` are those that `outputs` names. Raises NotAcceptable.
    """
    if wish.shape is Shape.RAW and outputs.format is not None and wish.excludes(outputs.format):
        raise NotAcceptable(f"outputs.format is {outputs.format}, which the Accept header does not allow")
    accepted = wish.format if wish.shape is Shape.RAW else None
    delivery: Delivery = "url" if outputs.delivery == "url" else "inline"
    match outputs.delivery:
        case Storage(storage=name):
            delivery = Upload(name)
        case Puts(put=urls, headers=headers):
            delivery = Put((urls,) if isinstance(urls, str) else tuple(urls), headers)
    return Selection(nodes, outputs.format or accepted, outputs.quality, outputs.metadata, delivery)


def reselect(run: Run, wish: Wish) -> Selection | None:
    """What one asks for who comes back, where a picture would have to be in another format than it is, or bytes that
    went elsewhere are to be answered; None where the outputs are what is wanted.
    """
    if wish.shape is not Shape.RAW:
        return None
    selection = replace(run.order.selection, delivery="inline")
    pictures = [item.output.content_type for item in run.items if item.output.kind == "image"]
    if wish.format is not None and not all(wish.takes(content_type) for content_type in pictures):
        return replace(selection, format=wish.format)
    return None if selection == run.order.selection else selection
