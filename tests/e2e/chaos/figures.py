"""Figures of a round: what was measured, and whether it is what was wanted. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median

from tests.e2e.chaos.records import Answer, Log
from tests.e2e.chaos.scene import CAPACITY
from tests.e2e.chaos.verdict import by_number, judge

MB = 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. `met`: None where there is no goal."""

    name: str
    value: str
    goal: str = ""
    met: bool | None = None


def describe(log: Log, calm: Log, rate: float) -> list[Figure]:
    """The figures of a round in chaos, beside those of the same load in peace."""
    answers = Counter(_kind(answer) for answer in log.answers)
    struck = Counter(struck.strike.kind for struck in log.struck)
    violations = len(judge(log))
    again = sum(len(runs) > 1 for runs in by_number(log).values())
    return [
        Figure("requests", f"{len(log.answers)} at {rate:.0f} a second"),
        Figure("strikes", ", ".join(f"{count} {kind}" for kind, count in sorted(struck.items()))),
        Figure("answers", ", ".join(f"{count} {kind}" for kind, count in answers.most_common())),
        Figure("violations", str(violations), "none", violations == 0),
        Figure("orders that ran more than once, the engine having been killed", str(again)),
        _standstills(log),
        _goodput(log, calm),
        *_probes(log),
        *_departures(log),
        _memory(log),
    ]


def score(callers: Sequence[Sequence[Answer]]) -> list[Figure]:
    """The truth of `Retry-After`, from the answers that obedient callers got."""
    served = sorted(answer.answered for own in callers for answer in own if answer.status == 200)
    next_times = [following.status == 200 for own in callers for _, following in pairwise(own)]
    ratios = []
    for own in callers:
        for refused in own[:1]:
            later = [moment - refused.answered for moment in served if moment > refused.answered]
            if refused.status == 429 and len(later) >= CAPACITY:
                ratios.append(int(refused.retry_after or 0) / later[CAPACITY - 1])
    admitted = sum(next_times) / max(1, len(next_times))
    ratio = median(ratios) if ratios else float("inf")
    return [
        Figure(
            f"admitted when they come back ({len(next_times)} callers)", _percent(admitted), "90 %", admitted >= 0.9
        ),
        Figure("`Retry-After` over the time in which those ahead were served, median", f"{ratio:.2f}", "2", ratio <= 2),
    ]


def _kind(answer: Answer) -> str:
    if answer.left is not None:
        return "left"
    return f"{answer.status} {answer.code}".strip() if answer.status >= 400 else str(answer.status)


def _goodput(log: Log, calm: Log) -> Figure:
    with_strikes, without = (sum(answer.status == 200 for answer in each.answers) for each in (log, calm))
    share = with_strikes / max(1, without)
    return Figure("200s, of those that the same load gets in peace", _percent(share), "90 %", share >= 0.9)


def _standstills(log: Log) -> Figure:
    """What no service can work in: the engine is stopped, not reached, or killed and not yet started again."""
    lasting = sum(
        each.ended - each.begun for each in log.struck if each.strike.kind in ("stop", "stall_http", "refuse")
    )
    kills = [each.begun for each in log.struck if each.strike.kind == "kill"]
    back = sum(min((at for at in log.lives.values() if at > kill), default=kill) - kill for kill in kills)
    whole = log.probes[-1].answered - log.probes[0].asked
    return Figure("time in which the engine stood still, was dead or not reached", _percent((lasting + back) / whole))


def _probes(log: Log) -> list[Figure]:
    delays = [1000 * (probe.answered - probe.asked) for probe in log.probes]
    slowest = percentile(delays, 0.999)
    return [
        Figure(f"probes ({len(delays)}), median", f"{median(delays):.1f} ms"),
        Figure("probes, 99.9th percentile", f"{slowest:.0f} ms", "100 ms", slowest <= 100),
    ]


def _departures(log: Log) -> list[Figure]:
    left = [answer for answer in log.answers if answer.left is not None]
    delays = [log.noticed[each.request_id] - each.left for each in left if each.left and each.request_id in log.noticed]
    if not delays:
        return []
    delay = f"{1000 * max(0.0, percentile(delays, 0.99)):.0f} ms"
    return [Figure(f"until it is noticed that a caller has left ({len(delays)}), 99th percentile", delay)]


def _memory(log: Log) -> Figure:
    """A tenth of the round is given to warm up."""
    tenth = max(1, len(log.samples) // 10)
    first = median(sample.rss for sample in log.samples[tenth : 2 * tenth] or log.samples)
    last = median(sample.rss for sample in log.samples[-tenth:])
    growth = last / first - 1
    value = f"{first / MB:.0f} MB, {last / MB:.0f} MB"
    return Figure("resident memory, in the second tenth and in the last", value, "10 % more", growth <= 0.1)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so great a share does not exceed (nearest rank)."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
