"""The verdict: what of the promise was broken in a round, from its log alone. Pure.

For: finding every violation. Leaves figures to `figures`. Invariant: what depends on how quick a machine is, and is no
fault of the service, is no violation: rules compare moments of one clock, with margins for what is under way.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from tests.e2e.chaos.orders import Order
from tests.e2e.chaos.records import Answer, Log, Run, Struck
from tests.e2e.chaos.strikes import Kind

STALENESS = 2.0
"""Seconds by which the probes may lag behind, as the converter is set."""

TRANSIT = 0.25
"""Seconds for a signal, or for bytes in the relay, to arrive."""

UNDERWAY = 1.0
"""Seconds for a submission to reach the relay that was sent before its caller was known to have left."""

KNOWN = 10.0
"""Seconds after its end by which the converter knows of a success, whatever befell its connections."""

ATTEMPTS = 3
"""Runs of one order at most."""

FIT = ("READY", "BUSY")
"""States that say that the engine works."""

EXCUSES: Mapping[str, tuple[Kind, ...]] = {"canceled": ("interrupt", "clear", "forget"), "engine_failed": ("forget",)}
"""What others do that explains an answer. Where they clear the history, and the socket is lost, nobody can know whether
a prompt that is gone has run.
"""

FOREVER = float("inf")


def judge(log: Log, timed: bool = True) -> list[str]:
    """Every violation, in words; `timed`: by the rules, too, whose margins a machine without time to spare breaks."""
    rules = (_answers, _statuses, _refusals, _runs, _deaths, _strangers)
    found = [violation for rule in (*rules, *(_TIMED if timed else ())) for violation in rule(log)]
    return [*found, *(f"an error of its own: {line}" for line in log.errors), *(f"left: {rest}" for rest in log.left)]


def _answers(log: Log) -> Iterator[str]:
    """Each request has one answer, or its caller has left; each 200 has the picture of its own number."""
    expected = {order.number: 2 if order.shape == "twins" else 1 for order in log.orders}
    for answer in log.answers:
        expected[answer.order.number] -= 1
        if answer.left is None and (answer.trouble or not answer.status):
            yield f"{_name(answer)} got no answer: {answer.trouble}"
        elif answer.status == 200 and answer.picture != answer.order.number:
            yield f"{_name(answer)} got the picture {answer.picture}"
    for number, missing in expected.items():
        if missing:
            yield f"order {number}: {missing} answers are missing"


def _statuses(log: Log) -> Iterator[str]:
    """Each status is one that the order, and what befell it, explains."""
    for answer in log.answers:
        if not answer.status or answer.status in (429, 503):
            continue
        kinds = EXCUSES.get(answer.code, ())
        moments = (struck.begun for struck in log.struck if struck.strike.kind in kinds)
        if any(answer.asked <= at <= answer.answered for at in moments):
            continue
        if not _is_expected(answer.order, answer.status, answer.code):
            yield f"{_name(answer)} was answered {answer.status} {answer.code}"


def _is_expected(order: Order, status: int, code: str) -> bool:
    match order.shape:
        case "junk":
            return 400 <= status < 500
        case "failing":
            return code == "execution_failed"
        case "canceled":
            return status == 200 or code == "canceled"
    return status == 200


def _refusals(log: Log) -> Iterator[str]:
    """Every refusal says when to come back."""
    for answer in log.answers:
        if answer.status in (429, 503):
            seconds = answer.retry_after or ""
            if not seconds.isdecimal() or not 1 <= int(seconds) <= 120:
                yield f"{_name(answer)} was refused with Retry-After {answer.retry_after}"


def _runs(log: Log) -> Iterator[str]:
    """Nothing ran twice unless the engine died under it; what was answered has run."""
    runs = by_number(log)
    freed = {answer.order.number for answer in log.answers if answer.order.shape == "twins" and answer.status != 200}
    for number, own in runs.items():
        if number in freed:  # the second of the twins was another job
            continue
        if len(own) > ATTEMPTS:
            yield f"order {number} ran {len(own)} times"
        for first, second in pairwise(own):
            if _forgotten(log, first.at, second.at):
                continue
            if first.pid == second.pid:
                yield f"order {number} ran twice on one engine, {second.at - first.at:.1f} s apart: {first.ended}"
            elif first.ended == "execution_success" and _death(log, first) > first.ended_at + KNOWN:
                yield f"order {number} ran again {second.at - first.ended_at:.1f} s after it had succeeded"
    for answer in log.answers:
        succeeded = any(run.ended == "execution_success" for run in runs.get(answer.order.number, ()))
        if answer.status == 200 and not succeeded:
            yield f"{_name(answer)} was answered and has not run"


def by_number(log: Log) -> dict[int, list[Run]]:
    """The runs of each order, in the order of time."""
    numbers = {post.prompt_id: post.number for post in log.posts}
    runs: dict[int, list[Run]] = {}
    for run in sorted(log.runs, key=lambda run: run.at):
        if run.prompt_id in numbers:
            runs.setdefault(numbers[run.prompt_id], []).append(run)
    return runs


def _death(log: Log, run: Run) -> float:
    """When the engine was killed that had begun the run."""
    kills = (struck.begun for struck in log.struck if struck.strike.kind == "kill")
    return min((at for at in kills if at > run.at), default=FOREVER)


def _forgotten(log: Log, since: float, until: float) -> bool:
    """Whether somebody cleared the history: with its socket lost, the converter can't tell that from a restart."""
    return any(struck.strike.kind == "forget" and since <= struck.ended <= until for struck in log.struck)


def _deaths(log: Log) -> Iterator[str]:
    """The engine died of strikes only."""
    kills = sum(struck.strike.kind == "kill" for struck in log.struck)
    if len(log.lives) - 1 > kills:
        yield f"the engine was started {len(log.lives)} times and killed {kills} times"


def _departures(log: Log) -> Iterator[str]:
    """No prompt was submitted for a caller who was known to have left."""
    left = {answer.order.number: answer.request_id for answer in log.answers if answer.left is not None}
    for post in log.posts:
        noticed = log.noticed.get(left.get(post.number, ""), FOREVER)
        if post.at > noticed + UNDERWAY and not _stalled(log, post.at):
            yield f"order {post.number} was submitted {post.at - noticed:.1f} s after its caller had left"


def _stalled(log: Log, at: float) -> bool:
    """Whether the relay has let through at that moment what it had held up."""
    stalls = (struck for struck in log.struck if struck.strike.kind == "stall_http")
    return any(struck.begun <= at <= struck.ended + UNDERWAY for struck in stalls)


def _readiness(log: Log) -> Iterator[str]:
    """The engine was never called fit while no prompt could complete, but for the staleness."""
    for struck in log.struck:
        since = struck.begun + STALENESS + TRANSIT
        until = _recovery(log, struck)
        lies = [probe for probe in log.probes if since < probe.asked < until and probe.state in FIT]
        if lies:
            late = lies[-1].asked - struck.begun
            yield f"{len(lies)} probes said {lies[-1].state} up to {late:.1f} s after a {struck.strike.kind}"


def _recovery(log: Log, struck: Struck) -> float:
    """Until when no prompt could complete."""
    match struck.strike.kind:
        case "stop" | "refuse":
            return struck.ended
        case "kill":  # until the engine that came after has completed its warm-up
            pids = [pid for pid, at in log.lives.items() if at > struck.begun]
            return min((run.ended_at for run in log.runs if run.pid in pids and run.ended_at), default=FOREVER)
    return 0.0


def _strangers(log: Log) -> Iterator[str]:
    """What others have queued has run to its end, unless others stopped it or the engine died."""
    runs = {run.prompt_id: run for run in log.runs}
    for struck in filter(lambda struck: struck.about, log.struck):
        run = runs.get(struck.about)
        if run is not None and run.ended == "execution_success":
            continue
        kinds = ("kill", "clear") if run is None else ("kill", "interrupt")
        if not any(other.strike.kind in kinds and other.ended >= struck.begun for other in log.struck):
            yield f"the prompt of a stranger {run.ended or 'was not ended' if run else 'never ran'}"


def _name(answer: Answer) -> str:
    return f"order {answer.request_id} ({answer.order.shape})"


_TIMED = (_departures, _readiness)
