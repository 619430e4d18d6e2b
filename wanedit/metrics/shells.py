"""torchmetrics over the pure functions: states that add up over clips and are summed over ranks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from wanedit.metrics.functional import frame_psnr, frame_ssim
from wanedit.metrics.functional.features import step_similarities
from wanedit.metrics.functional.motion import endpoint_errors, follow
from wanedit.metrics.functional.structure import gradient_distances
from wanedit.metrics.functional.tracks import motion_scores

Measure = Callable[..., np.ndarray]


class FrameMean(Metric):
    """The mean over all frames of all clips of a measure that gives a value for each frame.

    Args:
        measure: (clips …) -> (T,); NaN where a frame has no value.

    Shape:
        `update` takes what the measure takes, uint8 arrays (T, H, W, 3); `compute` gives a scalar, NaN where no frame
        had a value.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    total: Tensor
    count: Tensor

    def __init__(self, measure: Measure, **settings: Any) -> None:
        super().__init__(**settings)
        self.measure = measure
        # In float64 and in integers, so that the order of ranks changes nothing that a reader would see.
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, *clips: Any) -> None:
        """Add the frames of one clip."""
        values = np.asarray(self.measure(*clips), dtype=np.float64)
        known = np.isfinite(values)
        self.total += float(values[known].sum())
        self.count += int(known.sum())

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.total / self.count


class FramePSNR(FrameMean):
    """`frame_psnr(video, truth, mask=None)` in dB."""

    higher_is_better = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(frame_psnr, **settings)


class FrameSSIM(FrameMean):
    """`frame_ssim(video, truth, mask=None)`."""

    higher_is_better = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(frame_ssim, **settings)


class WarpError(FrameMean):
    """RMS in levels of each frame and the next moved back on it; see `functional.temporal`."""

    higher_is_better = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(lambda video: follow(video).warp_errors(), **settings)


class MotionEndpointError(FrameMean):
    """`endpoint_errors` of an output against its source, in pixels a frame: `update(source, output)`."""

    higher_is_better = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            lambda source, output: endpoint_errors(follow(source), follow(output))[:, 0], **settings
        )


class MotionFidelity(FrameMean):
    """`motion_scores(source, output).fidelity`; every clip counts alike."""

    higher_is_better = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            lambda source, output: np.array([motion_scores(source, output).fidelity]), **settings
        )


class StructureSurrogate(FrameMean):
    """`gradient_distances(video, source)`."""

    higher_is_better = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(gradient_distances, **settings)


class FeatureConsistency(FrameMean):
    """Mean cosine of the features of a frame and the next: `update(features)`, (T, D), of any network."""

    higher_is_better = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(step_similarities, **settings)
