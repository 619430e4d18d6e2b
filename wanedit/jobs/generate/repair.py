"""Joins that show are sampled again, and the best of them stays.

What shows is decided by the junction measures of `wanedit evaluate`, on the frames that the film will have. A join that
shows is tried again at most `repair` times, from the first to the last join of the video: first by a bridge with
another seed, where there can be one, then by another take of the segment in which the join is worse. An attempt is kept
where, of the joins that it can have changed, fewer show than before, or as many with a lower sum of severities
(`metrics.functional.junctions`): no join is mended at the cost of another.

Each attempt is an event of metrics.jsonl under the state that it judges: the digests of all frames. So a run that was
stopped comes to the same attempts, finds what they came to, and goes on; what was dropped is kept as a take.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from wanedit.errors import InputError
from wanedit.files import digest
from wanedit.jobs.generate.assemble import final_frames
from wanedit.jobs.generate.plan import Plan, Say, unjudged, with_takes
from wanedit.metrics.functional.junctions import Transitions
from wanedit.progress import counted
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import Event, append_event, events_of, read_events
from wanedit.runtime.launch import World, on_rank_zero

# What of the settings makes frames of what was decoded.
ASSEMBLY = ("colour_correction", "restore", "retime_method", "pace", "smoothing", "smoothing_radius")
# Raised when a change to the code changes what is judged of the same frames.
JUDGING = 1


@dataclass(frozen=True)
class Verdict:
    """What the harness says of one join.

    Attributes:
        severity: of its worst measure; the join shows above 1.
        measure: that one.
        worse: index of the segment in which the join is worse by it.
        ratios: of all measures.
    """

    severity: float
    measure: str
    worse: int
    ratios: Mapping[str, float]

    @property
    def shows(self) -> bool:
        """Whether it is to be tried again."""
        return self.severity > 1


# By the index of the segment that begins at the join.
Verdicts = dict[int, Verdict]


@dataclass(frozen=True)
class Judged:
    """A film, by the state of its plan, and what is said of the joins that were measured."""

    state: str
    verdicts: Verdicts


@dataclass(frozen=True)
class Tried:
    """What came of one join."""

    before: Verdict
    after: Verdict
    attempts: int


@dataclass(frozen=True)
class Repair:
    """The end of a repair of at most so many attempts a join.

    Attributes:
        state: of the film that stays.
        takes: of its segments and of its bridges.
        from_takes, from_segments: those that the repair began with.
        joins: by frame.
    """

    state: str
    repair: int
    takes: tuple[list[int], list[int]]
    from_takes: tuple[list[int], list[int]]
    from_segments: list[str]
    joins: dict[int, Tried]


def repaired(
    plan: Plan, directory: RunDirectory, world: World, make: Callable[[Plan], None], tell: Say
) -> Plan:
    """The plan with the takes that stay, all of it made.

    Args:
        plan: what is made already.
        make: samples and decodes what a plan lacks, on every rank.
    """
    if not plan.config.repair or not plan.timeline.joins or unjudged(plan.config, plan.timeline):
        return plan
    steps = attempts(plan, directory, tell)
    while (step := on_rank_zero(world, lambda: next(steps, None))) is not None:
        plan = step
        make(plan)
    return plan


def attempts(plan: Plan, directory: RunDirectory, tell: Say) -> Iterator[Plan]:
    """Plans to be made, one after the other; the last one is what stays.

    Args:
        tell: told of each attempt.
    """
    # Asked for this once, and done.
    best = began = replace(plan, config=replace(plan.config, force_regenerate=False, resume_from=None))
    limit, events, starts = plan.config.repair, read_events(directory.metrics), plan.timeline.joins
    if (done := repair_of(plan, directory)) is not None and done.repair >= limit:
        return
    judge, every = Judge(directory), range(1, len(plan.tasks))
    known = {one.state: one.verdicts for one in events_of(events, Judged, "judged", "repair")}

    def of_all_joins(film: Plan) -> Verdicts:
        if not _said(found := known.get(state(film), Verdicts()), every):
            found = known[state(film)] = judge(film, every)
            append_event(directory.metrics, {"event": "judged", **_written(film, found)})
        return found

    verdicts = before = of_all_joins(plan)
    tell(f"repair: {sum(one.shows for one in before.values())} of {len(before)} joins show")
    takes, bridge_takes = plan.config.takes_of(len(plan.tasks))
    used = {("segment", i): take for i, take in enumerate(takes)}
    used |= {("bridge", k): take for k, take in enumerate(bridge_takes, 1)}
    tried: dict[int, int] = {}
    for k in every:
        for attempt in range(1, limit + 1):
            if not verdicts[k].shows:
                break
            tried[k] = attempt
            kind, index = "bridge", k
            if attempt > 1 or (trial := _other(best, kind, index, used)) is None:
                kind, index = "segment", verdicts[k].worse
                trial = _other(best, kind, index, used)
            assert trial is not None  # of a segment there is always another take
            used[kind, index] += 1
            affected = sorted({j for i in _changed(best, trial) for j in (i, i + 1) if j in every})
            judged = known.get(state(trial), Verdicts())
            if new := not _said(judged, affected):
                yield trial
                judged = judge(trial, affected)
            now, then = (score([those[j] for j in affected]) for those in (judged, verdicts))
            kept = now < then
            if new:
                append_event(
                    directory.metrics,
                    {
                        "event": "repair",
                        "join": starts[k - 1],
                        "attempt": attempt,
                        "what": kind,
                        "index": index,
                        "take": used[kind, index],
                        "score": now,
                        "best": then,
                        "kept": kept,
                        **_written(trial, judged),
                    },
                )
            was, what = verdicts[k], f"another {kind}" if kind == "bridge" else f"segment {index} again"
            tell(
                f"repair: join at frame {starts[k - 1]} ({was.measure}, severity {was.severity:.2f}), attempt "
                f"{attempt}, {what}: {judged[k].severity:.2f}, {'kept' if kept else 'dropped'}"
            )
            if kept:
                best, verdicts = trial, verdicts | judged
    # What a join is held against is the clip's interior, which every other segment has a share in.
    verdicts = of_all_joins(best)
    end = Repair(
        state(best),
        limit,
        best.config.takes_of(len(plan.tasks)),
        began.config.takes_of(len(plan.tasks)),
        [task.digest for task in began.tasks],
        {starts[k - 1]: Tried(before[k], verdicts[k], n) for k, n in tried.items()},
    )
    if end not in events_of(events, Repair, "repaired"):
        append_event(directory.metrics, {"event": "repaired", **asdict(end)})
    tell(f"repair: {sum(one.shows for one in verdicts.values())} of {len(before)} joins show now")
    yield best


def repair_of(plan: Plan, directory: RunDirectory) -> Repair | None:
    """The last repair that came to this plan; None where none did."""
    ends = events_of(reversed(read_events(directory.metrics)), Repair, "repaired")
    return next((end for end in ends if end.state == state(plan)), None)


def _said(verdicts: Verdicts, joins: Iterable[int]) -> bool:
    """Whether there is a verdict on each of these joins that can be of them."""
    return all(k in verdicts and verdicts[k].worse in (k - 1, k) for k in joins)


def score(verdicts: Sequence[Verdict]) -> list[float]:
    """How bad joins are: how many show, then the sum of their severities. Lower is better, as lists compare."""
    return [sum(one.shows for one in verdicts), round(sum(one.severity for one in verdicts), 6)]


def state(plan: Plan) -> str:
    """The name of all that decides the frames of a film."""
    assembly = {name: getattr(plan.config, name) for name in ASSEMBLY}
    pieces = [piece.digest for piece in plan.pieces]
    # The same sampled frames are retimed to other places where keyframes moved.
    places = list(plan.timeline.keyframe_frames)
    return digest({"judging": JUDGING, "pieces": pieces, "keyframes": places, "assembly": assembly})


def _other(plan: Plan, kind: str, index: int, used: Mapping[tuple[str, int], int]) -> Plan | None:
    """The plan with the next take of a segment, or of the bridge at its beginning; None for one that cannot be."""
    takes, bridge_takes = plan.config.takes_of(len(plan.tasks))
    if kind == "segment":
        takes[index] = used[kind, index] + 1
    else:
        bridge_takes[index - 1] = used[kind, index] + 1
    try:
        other = with_takes(plan, takes, bridge_takes)
    except InputError:
        return None  # bridges that this decoding, or these noise levels, do not have
    return None if state(other) == state(plan) else other


def _changed(one: Plan, other: Plan) -> list[int]:
    """The segments whose frames are others."""
    pairs = zip(one.pieces, other.pieces, strict=True)
    decoded = [k for k, (a, b) in enumerate(pairs) if a.digest != b.digest]
    if one.config.pace == "literal":
        return decoded
    # Their neighbours are retimed to meet them.
    beside = {k + step for k in decoded for step in (-1, 0, 1)}
    return [k for k in range(len(one.pieces)) if k in beside]


class Judge:
    """Measures films of one run, of which the last one is known: of the next only what differs is measured."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.last: tuple[Plan, Transitions] | None = None

    def __call__(self, plan: Plan, joins: Sequence[int]) -> Verdicts:
        """Of the joins at which these segments begin, all frames of the plan being made."""
        whole, segments = self._measured(plan), plan.timeline.segments
        self.last = plan, whole
        scores, found = whole.scores(plan.timeline.joins), Verdicts()
        for k in joins:
            at, of = segments[k].start, scores[segments[k].start]
            name = max(of, key=lambda name: of[name].severity)
            values = np.array(whole.values[name])
            if name == "duplicate":
                values = -values
            if name in ("acceleration", "turn"):
                # At the join they are of both: the segment is worse whose speed there is less like its own.
                speed = np.array(whole.speed)
                usual = [np.median(speed[one.start + 1 : one.end + 1]) for one in segments[k - 1 : k + 1]]
                left, right = abs(speed[at] - usual[0]), abs(speed[at + 1] - usual[1])
            else:
                left, right = np.nanmax(values[at - 1 : at + 1]), np.nanmax(values[at + 1 : at + 3])
            ratios = {name: round(one.ratio, 4) for name, one in of.items()}
            found[k] = Verdict(round(of[name].severity, 6), name, k - 1 if left >= right else k, ratios)
        return found

    def _measured(self, plan: Plan) -> Transitions:
        segments = plan.timeline.segments
        changed = _changed(self.last[0], plan) if self.last else []
        if self.last is None or not changed or plan.config.smoothing != "none":
            frames = counted(
                final_frames(plan, self.directory), "judging the joins", "frames", plan.timeline.num_frames
            )
            return Transitions.of(frames)
        # A measure looks two frames back and on, so that the frame before the first that differs is measured anew, too;
        # the ends of a stretch show the keyframe of one segment alone.
        low, high = max(changed[0] - 2, 0), min(changed[-1] + 2, len(segments) - 1)
        part = Transitions.of(final_frames(plan, self.directory, low, high))
        offset = segments[low].start
        start, stop = segments[changed[0]].start - 1, segments[changed[-1]].end + 2
        start, stop = (0 if low == 0 else start), (None if high == len(segments) - 1 else stop)
        return self.last[1].with_stretch(part, offset, start, stop)


def _written(plan: Plan, verdicts: Verdicts) -> Event:
    return {
        "state": state(plan),
        "takes": plan.config.takes,
        "bridge_takes": plan.config.bridge_takes,
        "verdicts": {str(k): asdict(one) for k, one in verdicts.items()},
    }
