"""GenerationConfig: everything a generation run can be told, and the checks that need no model."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, doc

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.lit import require_model
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.inputs import find_path, parse_keyframes
from wanedit.runtime.outputs import check_outputs
from wanedit.runtime.settings import (
    Count,
    Everyday,
    FileName,
    Index,
    NotNegative,
    Positive,
    Registered,
    Repeated,
    SampledSettings,
    Share,
    check_run,
)
from wanedit.runtime.workers import ERROR_FILE, LOG_FILE
from wanedit.timeline import Keyframe
from wanedit.video.formats import format_of
from wanedit.wan.catalog import Sampling, find_known, sampling_in

Takes = Annotated[str | Sequence[Index], doc('numbers from 0 up, such as "0,2,0"')]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(SampledSettings):
    """One generation run. Fields that are null take the value that the model was made for.

    Attributes:
        keyframes: pairs [path, seconds], at least two, times increasing; "a.png:0.0,b.png:3.0"; or a folder, whose
            keyframes.json or whose images' names say the times: 1.5.png or 3s.png in seconds, 0024.png in frames.
            Images whose names say none, or count one by one, follow each other as far apart as the model is good for.
            A relative path is looked up in the current folder, then beside the config file that names it.
        prompt: what the whole video shows.
        sub_prompts: one per pair of keyframes, appended to `prompt`; empty for none.
        prompt_relay: of a window of several pairs of keyframes each stretch is told the sub_prompt of its own pair,
            which fades over two latent slots beyond it; else the whole window is told them one after the other.
        num_inference_steps: sampler steps.
        shift: schedule shift; larger spends more steps on coarse motion.
        guidance_scale: classifier-free guidance; 1.0 skips the unconditional pass.
        solver: of the flow's differential equation, or renoise, which models distilled by DMD or rCM take; null for the
            model's own, which is unipc unless it is distilled.
        num_gpus: processes to sample with; on a machine without GPUs, CPU processes.
        gpu_ids: which devices, such as [0, 2] or "0,2"; empty for the first `num_gpus`.
        sequence_parallel: how many of the processes make each segment together, sharing the prompts of guidance, then
            the tokens, for which their number must divide the model's heads; 1 gives each process segments of its own.
            The velocity is that of one process to 1e-5 of its size.
        resize_policy: how a keyframe of another size comes to `size`.
        audio: a file of sound or video whose sound is laid under the whole video, from its beginning; null for none.
        sort_keyframes: sort keyframes that are out of order instead of refusing them.
        window: what is sampled at once. pair: two neighbouring keyframes; pack: as many as fit the model's limit, fewer
            joins; for models that can be shown any frame.
        middle_strength: how firmly a keyframe in the middle of a window is held, 0 (left out) to 1 (as its ends); one
            number, or one for each expert, high noise first. Null for the model's own.
        references: a picture of a subject that is no frame, or several, for models that read them (VACE).
        long_segments: stretch: sample a segment beyond the model's limit at the limit and stretch it by optical flow,
            with a note that says how far; error: refuse it.
        decode: once: all segments as one sequence of latents, so that behind a join the decoder knows what was before
            it. apart: every segment by itself. auto: once, or as the folder's earlier run did it.
        joins: what is sampled about the keyframe between two segments. none: nothing more. bridge: a window about it
            once more, of which the slots beside the keyframe are taken back to noise and the others held. co_denoise:
            windows over both segments, denoised with them from the start, all velocities averaged where they overlap.
            Bridges and co_denoise need decode once.
        bridge_sigma: noise level that a bridge starts from, 0 to 1: the higher, the less is kept of the join.
        bridge_zone: latent slots, of four frames each, that change on either side of the keyframe; half of a segment at
            most.
        bridge_context: slots that are held on either side of those; a model that can be shown the ends of a clip alone
            has both segments whole, if they fit its limit.
        numbers: by which noise, hash and files know each segment, one for each, such as [0, 3, 1, 2] or "0,3,1,2".
            Empty for 0, 1, 2 and so on; where keyframes were put in or taken out since the folder's earlier run,
            segments between the same ones keep the numbers that they had, and only what is new is sampled.
        takes: which take of each segment is wanted, one number for each, such as [0, 2, 0] or "0,2,0"; take 0 has the
            noise of `base_seed`, every further one another. Empty for 0 of all. What was sampled of others is kept, so
            that to go back to one samples nothing.
        bridge_takes: likewise of the bridge over each keyframe between two segments; a take above 0 is sampled where
            `joins` is none, too.
        repair: how often each join that shows, by the measures of `wanedit evaluate`, is tried again: by another
            bridge, then by other takes of its segments. The best stays; 0 tries none.
        co_sigma: noise level down to which co_denoise denoises all together, 0 to 1, where the segments go on apart; 0
            for together to the end.
        retime_method: how surplus frames (a segment is sampled at 4n+1) are retimed away.
        pace: literal: between two keyframes time goes as it was sampled. natural: what goes on behind a keyframe at
            another speed than it came to it, as between uneven times, is retimed on both sides so that the speeds meet
            there; each keyframe stays at its frame.
        colour_correction: correct every segment by Lab maps fitted at its two keyframes.
        restore: what keyframes give the frames about them in pixels, along the video's own motion. residual: what the
            VAE and the sampler missed of them. keyframes: that, and where much is missed the keyframes themselves. With
            either each keyframe is shown to the level. none: as decoded. auto: keyframes.
        enable_smoothing: smooth around the joins with `smoothing_method`.
        smoothing_method: temporal_filter, optical_flow or none.
        smoothing_radius: frames on either side of a join that smoothing may change.
        resume_from: sample this segment and those after it anew; those before must be complete. What co_denoise has
            denoised of all together is made anew from 0 alone. Null resumes whatever is complete.
    """

    job: Literal["generate"] = "generate"
    keyframes: Annotated[FileName | Sequence[Any], Everyday("what goes in")] = field(default_factory=list)
    prompt: Annotated[str, Everyday("what goes in")] = ""
    sub_prompts: Sequence[str] = field(default_factory=list)
    prompt_relay: bool = False
    num_inference_steps: Annotated[Count | None, Everyday("the model")] = None
    shift: Positive | None = None
    guidance_scale: Annotated[NotNegative | None, Everyday("the model")] = None
    solver: Annotated[str | None, Registered("wanedit.flow:SOLVERS")] = None
    num_gpus: Annotated[Count, Everyday("the run")] = 1
    gpu_ids: str | Sequence[int] = field(default_factory=list)
    sequence_parallel: Count = 1
    resize_policy: Literal["crop", "pad", "stretch"] = "crop"
    audio: FileName | None = None
    sort_keyframes: bool = False
    window: Annotated[Literal["pair", "pack"], Everyday("the run")] = "pair"
    middle_strength: Share | Sequence[Share] | None = None
    references: Annotated[FileName | Sequence[FileName], Repeated()] = field(default_factory=list)
    long_segments: Literal["error", "stretch"] = "stretch"
    decode: Literal["auto", "once", "apart"] = "auto"
    joins: Literal["none", "bridge", "co_denoise"] = "none"
    bridge_sigma: Share = 0.7
    bridge_zone: Count = 1
    bridge_context: Count = 2
    co_sigma: Share = 0.7
    repair: Index = 0
    numbers: Takes = field(default_factory=list)
    takes: Takes = field(default_factory=list)
    bridge_takes: Takes = field(default_factory=list)
    retime_method: Literal["optical_flow", "linear"] = "optical_flow"
    pace: Literal["literal", "natural"] = "literal"
    colour_correction: bool = True
    restore: Literal["auto", "none", "residual", "keyframes"] = "auto"
    enable_smoothing: bool = False
    smoothing_method: Literal["none", "temporal_filter", "optical_flow"] = "optical_flow"
    smoothing_radius: Annotated[int, Ge(1), Le(16)] = 2
    resume_from: int | None = None
    output: Annotated[FileName, Everyday("what comes out")] = "outputs/generate"

    @property
    def smoothing(self) -> str:
        """The smoothing method in force."""
        return self.smoothing_method if self.enable_smoothing else "none"

    @property
    def num_processes(self) -> int:
        """`num_gpus`, which may be CPU processes."""
        return self.num_gpus

    @property
    def devices(self) -> list[int]:
        """Device indices of `gpu_ids`, as integers."""
        return _numbers("gpu_ids", self.gpu_ids, 'device numbers such as "0,2"')

    def numbers_of(self, segments: int) -> list[int]:
        """The number of each of so many segments. Raises InputError where there are some, but not one for each."""
        given = _numbers("numbers", self.numbers, f'{segments} distinct numbers from 0 up such as "0,2,1"')
        if given and (len(given) != segments or len(set(given)) != segments or min(given) < 0):
            raise InputError(
                f"numbers are {given} for {segments} segments; expected a distinct one from 0 up for each, or none: "
                "then segments that this folder has keep theirs"
            )
        return given or list(range(segments))

    def takes_of(self, segments: int) -> tuple[list[int], list[int]]:
        """Which take of each of so many segments is wanted, and of the bridge over each keyframe between two.

        Raises:
            InputError: there are takes, but not one for each.
        """
        found = []
        for name, count, what in (("takes", segments, "segments"), ("bridge_takes", segments - 1, "joins")):
            given = _numbers(name, getattr(self, name), f'{count} numbers from 0 up such as "0,2,0"')
            if given and (len(given) != count or min(given) < 0):
                raise InputError(
                    f"{name} are {given} for {count} {what}; expected one number from 0 up for each, or none"
                )
            found.append(given or [0] * count)
        return found[0], found[1]


def _numbers(name: str, value: str | Sequence[int], expected: str) -> list[int]:
    given = value.strip("[] ").replace(" ", "").split(",") if isinstance(value, str) else value
    try:
        return [int(part) for part in given if given != [""]]
    except ValueError:
        raise InputError(f"{name} is {value!r}; expected {expected}") from None


def check(config: GenerationConfig) -> None:
    """Refuse values that no model can make sense of.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_run(config)
    devices = config.devices
    if devices and (len(set(devices)) != len(devices) or len(devices) != config.num_gpus):
        raise InputError(
            f"gpu_ids are {devices} and num_gpus is {config.num_gpus}; expected {config.num_gpus} distinct ids"
        )


def check_crews(config: GenerationConfig, processes: int) -> None:
    """Refuse processes that no number of crews of `sequence_parallel` comes to, and what these cannot do.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    together = config.sequence_parallel
    if processes % together:
        raise InputError(
            f"sequence_parallel is {together} and there are {processes} processes; expected a multiple of it: "
            f"num_gpus {together}, or torchrun of {together}"
        )
    for name, value, instead in (("joins", "co_denoise", "none or bridge"), ("compile", True, "false")):
        if together > 1 and getattr(config, name) == value:
            raise InputError(
                f"{name} is {value} and sequence_parallel {together}; expected {name} {instead}, or sequence_parallel 1"
            )


def find_keyframes(config: GenerationConfig, folders: Sequence[Path] = ()) -> list[Keyframe]:
    """Check the settings, then files, times and names; nothing heavy is imported, so that mistakes are told at once.

    Args:
        folders: where relative paths are looked up after the current folder.

    Raises:
        InputError: a value, a name, times, or a file that is not there.
        MissingWeightsError: the model is not on this machine.
    """
    check(config)
    known = find_known(config.source)
    own = known.sampling if known else Sampling()
    # Times are judged once with the rate of the model's name, before its folder is even looked for.
    keyframes = timed_keyframes(config, folders, config.fps or own.fps, own.max_frames)
    seconds = [keyframe.seconds for keyframe in keyframes]
    timeline.plan(seconds, config.fps or own.fps, timeline.round_up(10**9), stretch=True)
    prompts(config, len(seconds) - 1)
    if config.audio is not None:
        from wanedit.video.sound import sound_file

        sound_file(find_path(config.audio, folders, what="audio"), Fraction(0), format_of(config.final_path))
    path = require_model(config.source, config.parts, shows_images=True)
    if path is not None and known is not None:
        own = sampling_in(path, known)
        keyframes = timed_keyframes(config, folders, config.fps or own.fps, own.max_frames)
        seconds = [keyframe.seconds for keyframe in keyframes]
        timeline.plan(seconds, config.fps or own.fps, own.max_frames, config.long_segments == "stretch")
    from wanedit.video.images import require_image  # brings NumPy, which other mistakes do without

    for image in (*(keyframe.path for keyframe in keyframes), *references(config, folders)):
        require_image(image)
    return keyframes


def references(config: GenerationConfig, folders: Sequence[Path]) -> list[Path]:
    """The pictures that are no frames. Raises InputError for one that is not there."""
    given = config.references
    one = isinstance(given, str | os.PathLike)
    return [find_path(name, folders, what="references") for name in ([given] if one else given)]


def check_output(
    config: GenerationConfig, keyframes: Sequence[Keyframe], folders: Sequence[Path] = ()
) -> None:
    """See that the run's files may be written. Raises InputError as `RunDirectory.check`."""
    inputs = [*(keyframe.path for keyframe in keyframes), *references(config, folders)]
    if config.audio is not None:
        inputs.append(find_path(config.audio, folders, what="audio"))
    RunDirectory(config.folder, config.final_path).check(inputs)
    if config.num_gpus > 1:
        check_outputs([config.folder / name for name in (ERROR_FILE, LOG_FILE)], inputs)


def timed_keyframes(
    config: GenerationConfig,
    folders: Sequence[Path],
    fps: timeline.Seconds | str,
    limit: int,
    tell: Callable[[str], None] = lambda note: None,
) -> list[Keyframe]:
    """The keyframes, in the order of their times, in a video of `fps` by a model that is good for `limit` frames.

    Args:
        tell: told where the times of a folder of keyframes come from.
    """
    rate = float(timeline.rate_of(fps))
    keyframes = parse_keyframes(config.keyframes, folders, rate, (limit - 1) / rate, tell)
    if config.sort_keyframes:
        keyframes.sort(key=lambda keyframe: timeline.exact(keyframe.seconds))
    return keyframes


def prompts(config: GenerationConfig, pairs: int, cuts: Sequence[int] = ()) -> list[str]:
    """The prompt of every segment: the global one, and the own one of each of its pairs of keyframes behind it.

    Args:
        pairs: of neighbouring keyframes.
        cuts: the keyframes at which segments begin or end; () for one at each.

    Raises:
        InputError: there are sub-prompts, but not one per pair.
    """
    segments = list(pairwise(cuts or range(pairs + 1)))
    if not config.sub_prompts:
        return [config.prompt] * len(segments)
    if len(config.sub_prompts) != pairs:
        raise InputError(
            f"{len(config.sub_prompts)} sub_prompts for {pairs} segments; expected one for each or none"
        )
    own = [sub.strip() for sub in config.sub_prompts]
    return [
        ", ".join(part for part in (config.prompt.strip(), *dict.fromkeys(own[a:b])) if part)
        for a, b in segments
    ]
