"""`python -m benchmarks.faults`: how long each fault of `docs/reliability.md` takes.

Prints a table; with the name of a page, puts it there between its markers. Leaves what goes wrong to `mishaps`.
Invariant: a row names the test that shows what the fault comes to, and has as many samples as it says.
"""

import argparse
import asyncio
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import mishaps
from benchmarks.mishaps import Measure
from benchmarks.report import describe_machine

LATER = "the answer is later by"
FAILED = "`FAILED` after"
MARKERS = re.compile(r"(<!-- times:[^\n]*-->\n).*?(<!-- /times -->)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """What goes wrong, what is measured, and the test that shows what it comes to. `most`: rounds at most, of what
    takes long.
    """

    name: str
    measured: str
    test: str
    measure: Measure
    most: int = 1000


SILENT_WORKER = f"its worker died of our prompt, `stall_patience` {mishaps.PATIENCE:g} s"

ROWS = (
    Row(
        "the socket is cut at any message of a run",
        LATER,
        "test_the_socket_is_cut_at_one_message",
        mishaps.later(mishaps.cut_at_a_message),
    ),
    Row(
        "the network cuts the socket while a node runs",
        LATER,
        "test_the_network_cuts_the_socket_while_a_node_runs",
        mishaps.later(mishaps.cut_while_running, relayed=True),
    ),
    Row(
        "the network holds up what is under way on the socket",
        LATER,
        "test_a_socket_that_the_network_holds_up_is_not_waited_for",
        mishaps.later(mishaps.hold_messages_up, relayed=True),
    ),
    Row(
        "the socket stays open and silent",
        LATER,
        "test_a_deaf_socket_is_seen_through_and_renewed",
        mishaps.later(mishaps.deafen),
    ),
    Row(
        "no socket is taken any more",
        LATER,
        "test_an_engine_that_takes_no_socket_any_more_still_works",
        mishaps.later(mishaps.take_no_socket, relayed=True),
    ),
    Row(
        "the answer to the submission is lost",
        LATER,
        "test_an_answer_that_is_lost_does_not_make_the_prompt_run_twice",
        mishaps.later(mishaps.lose_answer),
    ),
    Row(
        "the submission is answered 500",
        LATER,
        "test_a_500_is_resolved_before_the_prompt_is_sent_again",
        mishaps.later(mishaps.answer_500),
        most=5,
    ),
    Row(
        "the network holds the submission up",
        LATER,
        "test_a_submission_that_the_network_holds_up_is_given_up_in_time",
        mishaps.later(mishaps.hold_submission_up, relayed=True, staleness=30.0),
        most=2,
    ),
    Row(
        "the record is late by 0.5 s, and the socket is lost",
        LATER,
        "test_a_record_that_is_half_a_second_late",
        mishaps.later(mishaps.delay_record),
    ),
    Row(
        "the engine dies in mid-run and is back at once, attached",
        LATER,
        "test_a_crash_in_mid_run_is_not_an_error",
        mishaps.later(mishaps.restart_while_running),
    ),
    Row(
        "the engine's process is killed with -9, supervised",
        LATER,
        "test_a_killed_engine_costs_a_job_nothing_but_time",
        mishaps.kill_process,
        most=5,
    ),
    Row(
        "the engine restarts while idle",
        "ready again after",
        "test_a_quick_restart_while_idle_is_noticed",
        mishaps.lasting(mishaps.restart_idle),
    ),
    Row(
        "the engine stays away",
        "504 later than the timeout by",
        "test_an_engine_that_stays_away_costs_no_more_than_the_timeout",
        mishaps.lasting(mishaps.stay_away),
        most=5,
    ),
    Row(
        "the engine refuses connections",
        "503 for who comes after",
        "test_a_replica_without_an_engine_is_as_described",
        mishaps.lasting(mishaps.come_while_away),
    ),
    Row(
        f"{SILENT_WORKER}, attached",
        FAILED,
        "test_a_worker_that_died_of_our_prompt",
        mishaps.lasting(mishaps.lose_worker, stall_patience=mishaps.PATIENCE),
        most=5,
    ),
    Row(
        f"{SILENT_WORKER}, supervised",
        LATER,
        "test_an_engine_of_ours_whose_worker_died_is_restarted_and_the_job_run_again",
        mishaps.restart_dead_worker,
        most=5,
    ),
    Row(
        "the engine takes nothing from its queue",
        FAILED,
        "test_a_worker_that_takes_nothing_any_more",
        mishaps.lasting(mishaps.take_nothing),
        most=5,
    ),
    Row(
        "the engine is silent, `staleness` 2 s",
        FAILED,
        "test_an_engine_that_does_not_answer_is_not_ready_wherever_one_looks",
        mishaps.lasting(mishaps.fall_silent),
        most=5,
    ),
    Row(
        "somebody interrupts our prompt",
        "409 after",
        "test_one_of_ours_that_somebody_else_interrupts_is_canceled",
        mishaps.lasting(mishaps.interrupt_ours),
    ),
    Row(
        "somebody clears the queue",
        "409 after",
        "test_a_queue_that_somebody_clears",
        mishaps.lasting(mishaps.clear_queue),
    ),
    Row(
        "a cached answer names a file that is gone",
        "the answer after",
        "test_a_cached_answer_whose_file_is_gone_is_run_again_under_a_fresh_prefix",
        mishaps.lasting(mishaps.lose_file),
    ),
    Row(
        "a small file breaks off",
        LATER,
        "test_a_small_file_that_breaks_off_is_read_again",
        mishaps.later(mishaps.break_file_off),
    ),
    Row(
        "a caller leaves while its prompt runs",
        "the engine has let go of it after",
        "test_a_caller_leaves",
        mishaps.lasting(mishaps.leave_running),
    ),
    Row(
        "a caller leaves while its prompt is pending",
        "the engine has let go of it after",
        "test_a_caller_leaves",
        mishaps.lasting(mishaps.leave_pending),
    ),
    Row(
        "the time of a job is up",
        "504 later than the timeout by",
        "test_a_jobs_time_is_up",
        mishaps.lasting(mishaps.run_out_of_time),
    ),
    Row(
        "somebody cancels a job",
        "409 for who waits after",
        "test_a_job_is_canceled_by_somebody_else_three_times_at_once",
        mishaps.lasting(mishaps.cancel),
    ),
    Row(
        "24 orders come at once to 16 places",
        "the last of eight 429 after",
        "test_of_a_burst_exactly_those_beyond_capacity_are_refused",
        mishaps.lasting(mishaps.burst),
    ),
    Row(
        "a deadline can't be met",
        "429 after",
        "test_a_deadline_that_can_not_be_met_is_refused_at_once",
        mishaps.lasting(mishaps.come_too_late),
    ),
    Row(
        "the same request again, under its key",
        "the replay after",
        "test_an_answer_is_replayed_in_any_shape",
        mishaps.lasting(mishaps.ask_again),
    ),
    Row(
        "SIGTERM with work in flight",
        "`/readyz` 503 after",
        "test_sigterm_lets_what_is_in_flight_finish",
        partial(mishaps.drain, moment="not ready"),
        most=5,
    ),
    Row(
        "SIGTERM, and the last answer is out",
        "the process has ended after",
        "test_sigterm_lets_what_is_in_flight_finish",
        partial(mishaps.drain, moment="ended"),
        most=5,
    ),
)


def _lay_out(row: Row, samples: Sequence[float]) -> str:
    figures = f"{_show(median(samples))} | {_show(max(samples))} | {len(samples)}"
    return f"| {row.name} | {row.measured} | {figures} | `{row.test}` |"


def _show(seconds: float) -> str:
    """Milliseconds; what is less than none is noise between runs."""
    milliseconds = max(0.0, seconds * 1000)
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{seconds:.1f} s"


async def measure(rows: Sequence[Row], rounds: int) -> Sequence[str]:
    """The lines of the table."""
    lines = [
        "| What goes wrong | Measured | Median | Worst | Rounds | Shown by |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(_lay_out(row, await row.measure(min(rounds, row.most))))
        sys.stderr.write(f"{lines[-1]}\n")
    return lines


def main(words: Sequence[str]) -> int:
    """Measure, print or write. Raises `stages.Wrong` if an answer is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description="Measure how long faults take.")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each fault (default: 20)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only faults whose names have these words in them")
    parser.add_argument("page", nargs="?", type=Path, help="a page with the markers `times`, to write the table to")
    options = parser.parse_args(words)
    machine = describe_machine()
    rows = [row for row in ROWS if options.only in row.name]
    table = "\n".join(asyncio.run(measure(rows, options.rounds)))
    text = "Python {python}, {cpus} processors, load {load:.1f} when it began.\n\n".format(**machine) + table
    if options.page is None:
        print(text)
    else:
        page = options.page.read_text(encoding="utf-8")
        options.page.write_text(MARKERS.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    logging.disable()  # what goes wrong is what is wanted; not in `main`, which tests call among others
    sys.exit(main(sys.argv[1:]))
