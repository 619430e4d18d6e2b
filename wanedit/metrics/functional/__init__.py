"""Pure functions of arrays, one idea a file."""

from wanedit.metrics.functional.fidelity import frame_psnr, frame_ssim
from wanedit.metrics.functional.junctions import frame_changes, seam_ratio

__all__ = ["frame_changes", "frame_psnr", "frame_ssim", "seam_ratio"]
