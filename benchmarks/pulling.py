"""How well a queue that workers pull from uses unequal devices that fail: a simulation by discrete events.

    python -m benchmarks.pulling --output outputs/pulling.json

Workers take the longest task that nobody has, as `wanedit.runtime.claims.Pulled` does; one that fails is seen to be
lost a lease later by whoever next looks for a task, and goes on from what was kept of it. Who finds none asks for the
one that would be done last, where it would be done with it sooner, and goes on from where that stands. No clock runs
and no file is written: what is counted is what the real queue would ask of the disk.
"""

import argparse
import heapq
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wanedit.runtime.claims import BEATS, BEGINNING, LEASE, LOOK, SOONER
from wanedit.runtime.predict import EVERY


@dataclass(frozen=True)
class Outcome:
    """Of one simulated run; times in seconds.

    Attributes:
        bound: no schedule ends sooner: all work over all speed, or the longest task on the fastest device.
        lost: tasks begun by a worker that failed. handed: tasks that went from one worker to another.
        claims: per second, of the whole run. busiest: in its busiest second.
        beats: per second. looks: listings of the folder, per second.
    """

    workers: int
    tasks: int
    spread: float
    failing: float
    makespan: float
    bound: float
    lost: int
    handed: int
    claims: float
    busiest: int
    beats: float
    looks: float


def simulate(
    costs: Sequence[float], speeds: Sequence[float], failing: float, seed: int, handing: bool = True
) -> Outcome:
    """Run to the end.

    Args:
        costs: of the tasks, in seconds of a device of speed 1.
        speeds: of the devices.
        failing: share of the workers that are lost somewhere in the time that the bound takes; half of them come back
            after two leases.
        handing: whether tasks are handed over.
    """
    draw = random.Random(seed)
    bound = max(sum(costs) / sum(speeds), max(costs) / max(speeds))
    ends = {i: draw.uniform(0, bound) for i in range(len(speeds)) if draw.random() < failing}
    free = sorted(costs)  # the longest last
    lost: list[tuple[float, float]] = []  # (when it is seen, cost)
    events = [(0.0, i, 0.0) for i in range(len(speeds))]  # (when a worker asks, which, what it has done)
    heapq.heapify(events)
    claims, losses, looks, handed, done, last = list[float](), 0, 0, 0, 0, 0.0
    working: dict[int, tuple[float, float]] = {}  # worker -> (when it will be done, the cost of its task)
    while done < len(costs):
        now, i, cost = heapq.heappop(events)
        if cost and working.get(i) != (now, cost):
            continue  # handed over
        if cost:
            done, last = done + 1, now
            del working[i]
        if i in ends and now >= ends[i]:
            continue
        looks += 1
        ready = [entry for entry in lost if entry[0] <= now]
        best = max(ready, key=lambda entry: entry[1], default=None)
        if best is not None and (not free or best[1] >= free[-1]):
            lost.remove(best)
            cost = best[1]
        elif free:
            cost = free.pop()
        else:
            slowest = max(working, key=working.__getitem__, default=i) if handing else i
            end, cost = working.get(slowest, (now, 0.0))
            own = BEGINNING + (end - now) * speeds[slowest] / speeds[i]
            if own < SOONER * (end - now) and now + own < ends.get(i, math.inf):
                handed += 1
                del working[slowest]
                working[i] = now + own, cost
                heapq.heappush(events, (now + own, i, cost))
                heapq.heappush(events, (now + LOOK, slowest, 0.0))
            elif done < len(costs):
                heapq.heappush(events, (now + LOOK, i, 0.0))
            continue
        claims.append(now)
        end = now + cost / speeds[i]
        if i in ends and end > ends[i]:
            losses += 1
            # What it had kept of the task is not made again.
            lost.append((ends[i] + LEASE, min(cost, (end - ends[i] + EVERY) * speeds[i])))
            if draw.random() < 0.5:
                heapq.heappush(events, (ends.pop(i) + 2 * LEASE, i, 0.0))
            continue
        working[i] = end, cost
        heapq.heappush(events, (end, i, cost))
    seconds = [0] * (int(last) + 1)
    for at in claims:
        seconds[int(at)] += 1
    spread = max(speeds) / min(speeds)
    return Outcome(
        len(speeds), len(costs), round(spread, 2), failing, round(last, 1), round(bound, 1), losses, handed,
        round(len(claims) / last, 2), max(seconds), round(len(speeds) * BEATS / LEASE, 1), round(looks / last, 1),
    )  # fmt: skip


def main() -> None:
    """Print a table, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--no_handing", action="store_true", help="as if no task were handed over")
    given = parser.parse_args()
    rows = []
    for tasks, workers in ((1000, 16), (1000, 64), (1000, 256), (4000, 256), (10000, 1024)):
        for spread, failing in ((1.0, 0.0), (4.0, 0.0), (4.0, 0.1)):
            found = []
            for seed in range(given.seeds):
                draw = random.Random(seed)
                costs = [draw.uniform(150, 600) for _ in range(tasks)]
                speeds = [spread ** draw.uniform(-0.5, 0.5) for _ in range(workers)]
                found.append(simulate(costs, speeds, failing, seed, not given.no_handing))
            over = sorted(one.makespan / one.bound - 1 for one in found)
            row = {"tasks": tasks, "workers": workers, "speeds": spread, "failing": failing}
            row |= {"over the bound": round(over[len(over) // 2], 3), "at worst": round(over[-1], 3)}
            for name in ("makespan", "lost", "handed", "claims", "busiest", "beats", "looks"):
                row[name] = round(sum(getattr(one, name) for one in found) / len(found), 2)
            rows.append(row)
            print(json.dumps(row))
    if given.output:
        given.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
