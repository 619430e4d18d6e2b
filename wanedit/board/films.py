"""What the settings of a film come to: its frames, each segment with its takes, what is to be sampled and its cost."""

from collections.abc import Mapping

from wanedit.board.runs import BESIDE, Run, named, pairs, picture_id
from wanedit.files import Json
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.joins import Todo
from wanedit.jobs.generate.plan import Plan, check_output, plan_in, remaining
from wanedit.runtime.cost import memory, sampling_flops
from wanedit.runtime.directory import Entry, Manifest
from wanedit.wan.catalog import Sampling

# What the page may set. Not what names a file, a module or a service: those stay as the folder's settings have them.
OPEN_FIELDS = (
    "prompt", "sub_prompts", "negative_prompt", "model", "size", "fps", "num_inference_steps", "shift",
    "guidance_scale", "solver", "base_seed", "window", "joins", "takes", "bridge_takes", "restore", "colour_correction",
)  # fmt: skip
# The label of the work whose time the plan's operations tell.
SAMPLES = "sampling"
# What is kept when the model changes: the rest was resolved for the one before.
SIDE = 32  # pixels: every model takes sides of multiples of it
OF_ANY_MODEL = ("keyframes", "prompt", "sub_prompts", "base_seed", "audio", "output", "job", "crf", "joins")


def keyframes_of(values: Json) -> list[list[object]]:
    """Pairs of what the page calls a picture, and its seconds."""
    return [[picture_id(path), seconds] for path, seconds in pairs(values)]


def presets(own: Sampling) -> list[Json]:
    """What a film is made at, for whoever does not know the model: words, and the settings that they stand for."""
    width, height = map(int, own.size.split("*"))
    found: list[tuple[str, Json]] = [("As the model was made for", {})]
    if width != height:
        side = round((width * height) ** 0.5 / SIDE) * SIDE
        found += [("Upright", {"size": f"{height}*{width}"}), ("Square", {"size": f"{side}*{side}"})]
    half = "*".join(str(max(SIDE, round(side / 2 / SIDE) * SIDE)) for side in (width, height))
    steps = max(1, own.num_inference_steps // 2)
    found.append(("Draft: half the size and steps", {"size": half, "num_inference_steps": steps}))
    empty = dict.fromkeys(("size", "fps", "num_inference_steps"))
    return [{"words": words, "settings": empty | settings} for words, settings in found]


def planned(run: Run, values: Json) -> Json:
    """What the settings come to.

    Raises:
        WaneditError: what stands in the way.
    """
    plan = plan_in(run.directory, run.config(GenerationConfig, values))
    check_output(plan.config, [image.keyframe for image in plan.keyframes])
    todo, journal = remaining(plan, run.directory), Manifest(run.directory).read()
    flops = sampling_flops(plan.folder.config, todo.segments, plan.evaluations)
    flops += sampling_flops(plan.folder.config, todo.bridges, plan.bridge_evaluations)
    longest = max(plan.tasks, key=lambda task: task.tokens)
    peak = memory(plan.folder, longest, plan.settings)
    speed = run.speed(plan.folder.config, plan.folder.name, "segment")
    return {
        "fps": float(plan.timeline.fps),
        "num_frames": plan.timeline.num_frames,
        "keyframe_frames": list(plan.timeline.keyframe_frames),
        "size": list(plan.size[::-1]),
        "segments": [_segment(plan, todo, journal, k) for k in range(len(plan.tasks))],
        "warnings": [named(run, values, note) for note in plan.warnings],
        "resolved": {name: getattr(plan.config, name) for name in OPEN_FIELDS},
        "about": plan.folder.about,
        "made_by": plan.folder.name,
        "cost": {
            "segments": len(todo.segments),
            "of": len(plan.tasks),
            "bridges": len(todo.bridges),
            "pieces": len(todo.pieces),
            "flops": flops,
            "seconds": flops / speed if speed else None,
            "memory": max(peak.encoders, peak.sampling) + BESIDE,
        },
    }


def _segment(plan: Plan, todo: Todo, journal: Mapping[str, Entry], k: int) -> Json:
    segment, task, piece = plan.timeline.segments[k], plan.tasks[k], plan.pieces[k]
    frames, latents = plan.frames_entry(k, journal), journal.get(task.digest)
    state = "sample" if task in todo.segments else "decode" if piece in todo.pieces else "kept"
    return {
        "start": segment.start,
        "end": segment.end,
        "frames": segment.frames,
        "sampled": segment.sampled_frames,
        "digest": task.digest,
        # By what its frames are asked for; null for none.
        "piece": next((name for name, entry in journal.items() if entry is frames), None),
        "piece_frames": frames.frames if frames else 0,
        "seconds": latents.seconds if latents else None,
        "todo": state,
        "take": task.take,
        "takes": _takes(task.original, piece.original, journal),
        # Of the bridge over the keyframe at which it begins: the take, and those that are there.
        "bridge": next((one.take for one in plan.bridges if one.index == task.index), None),
        "bridges": sorted(
            entry.take
            for entry in journal.values()
            if entry.index == task.index and entry.original in plan.originals[len(plan.tasks) :]
        ),
    }


def _takes(segment: str, piece: str, journal: Mapping[str, Entry]) -> list[Json]:
    """What was sampled of a segment, by its take: seconds, and by what its frames are asked for, null for none.

    Args:
        segment, piece: digests of its take 0, latents and frames.
    """
    shown, found = dict[int, tuple[str, int]](), list[Json]()
    for name, entry in journal.items():
        if piece in (name, entry.original):
            shown[entry.take] = name, entry.frames
    for name, entry in journal.items():
        # One of an earlier version names no take 0: it is one.
        if segment in (name, entry.original):
            at, frames = shown.get(entry.take, (None, 0))
            found.append({"take": entry.take, "seconds": entry.seconds, "piece": at, "piece_frames": frames})
    return sorted(found, key=lambda one: one["take"])
