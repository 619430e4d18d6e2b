"""FiVE-Bench's measures (Li et al. 2025, arXiv 2503.13684) as its code computes them, so that they stand beside its
tables: evaluation/metrics_calculator.py and evaluate.py of its repository. Every eighth frame counts, what is masked is
black in both pictures, and numbers are scaled as its tables have them. Ours differ in one thing: frames are compared at
the size of the edit, its code enlarges them to the source's.

Of its six families these are structure, background and the prompt's; the time is a run's own. NIQE (statistics of the
package pyiqa), motion fidelity (CoTracker 3) and FiVE-Acc (Qwen2.5-VL) need weights that nothing here reads.
"""

import numpy as np
import torch

from wanedit.jobs.evaluate.groups import Averaged
from wanedit.jobs.evaluate.metric import METRICS, Inputs, Moment, given
from wanedit.metrics import weights
from wanedit.metrics.functional.fidelity import Nearness, structure_distance
from wanedit.video.arrays import AnyFrame

STRIDE = 8


class OfFive(Averaged):
    """Numbers of every eighth frame."""

    needs = ("reference", "mask")
    on_request = True

    def update(self, moment: Moment) -> None:
        if moment.index % STRIDE == 0:
            self.take(moment)

    def take(self, moment: Moment) -> None:
        """Measure one of these frames."""


class Outside(OfFive):
    """What the edit should leave; a frame that is masked wholly has none."""

    def take(self, moment: Moment) -> None:
        outside = ~given(moment.mask)
        if outside.any():
            self.compare(*(blackened(one, outside) for one in (moment.frame, given(moment.reference))))

    def compare(self, frame: AnyFrame, reference: AnyFrame) -> None:
        """Two pictures that are black where the mask is."""


def blackened(frame: AnyFrame, kept: np.ndarray) -> AnyFrame:
    """A frame, black but where it is kept."""
    return np.where(kept[..., None], frame, np.uint8(0))


@METRICS.register("five_background")
class Background(Outside):
    """PSNR in dB, mean square error x 10,000 and SSIM x 100 of levels from 0 to 1, of the whole blackened pictures."""

    higher = ("psnr", "ssim")
    lower = ("mse",)

    def compare(self, frame: AnyFrame, reference: AnyFrame) -> None:
        from torchmetrics.functional.image import structural_similarity_index_measure

        step = (frame.astype(np.float64) - reference) / 255
        a, b = (torch.from_numpy(one).movedim(-1, 0)[None].float() / 255 for one in (frame, reference))
        ssim = torch.as_tensor(structural_similarity_index_measure(a, b, data_range=1.0)).item()
        self.add(
            psnr=Nearness(frame, reference).psnr(), mse=1e4 * float(np.square(step).mean()), ssim=100 * ssim
        )


@METRICS.register("five_lpips")
class Perceptual(Outside):
    """LPIPS of SqueezeNet x 1000 of the blackened pictures."""

    weights = (weights.SQUEEZENET,)
    lower = ("outside",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import Lpips

        self.lpips = Lpips.load("squeeze")

    def compare(self, frame: AnyFrame, reference: AnyFrame) -> None:
        self.add(outside=1000 * self.lpips.distance(frame, reference))


@METRICS.register("five_structure")
class Structure(OfFive):
    """Structure distance x 1000 of the whole pictures. The published code shows DINO levels of 0 to 255 where it was
    trained on 0 to 1, and so does this."""

    needs = ("reference",)
    weights = (weights.DINO_B8,)
    lower = ("distance",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import Dino

        self.dino = Dino.for_structure()

    def take(self, moment: Moment) -> None:
        keys = [self.dino.keys(one, white=255.0) for one in (moment.frame, given(moment.reference))]
        self.add(distance=1000 * structure_distance(*keys))


@METRICS.register("five_clip")
class Prompt(OfFive):
    """CLIP score of ViT-L/14, 100 times the cosine and at least 0, of the edit and its prompt: of whole frames, and of
    what is masked on black."""

    needs = ("prompt", "mask")
    weights = (weights.CLIP_L14,)
    higher = ("whole", "inside")

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import ClipImages, ClipTexts

        self.images = ClipImages.load(weights.CLIP_L14)
        self.text = ClipTexts.load(weights.CLIP_L14).embed(inputs.prompt)

    def take(self, moment: Moment) -> None:
        inside = given(moment.mask)
        self.add(whole=self.score(moment.frame))
        if inside.any():
            self.add(inside=self.score(blackened(moment.frame, inside)))

    def score(self, frame: AnyFrame) -> float:
        """Of one picture."""
        image = self.images.embed(frame[None])[0]
        cosine = image @ self.text / (np.linalg.norm(image) * np.linalg.norm(self.text))
        return max(100 * float(cosine), 0.0)
