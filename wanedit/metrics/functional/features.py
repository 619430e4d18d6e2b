"""How consistent a video is in the features of a picture network: pure functions of one feature vector a frame."""

import numpy as np
from jaxtyping import Float

from wanedit.errors import InputError

Features = Float[np.ndarray, "t d"]
# Shares of the best frame, of the mean step and of the worst step in `subject_score`.
SHARES = (0.4, 0.3, 0.3)


def cosines(a: Features, b: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, " t"]:
    """Cosine of each row of a and of b.

    Raises:
        InputError: shapes that differ, or a row of zeros, which has no direction.
    """
    if a.shape != b.shape:
        raise InputError(f"features are {a.shape} and {b.shape}; expected one shape")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (lengths > 0).all():
        raise InputError(f"features of frame {int(np.argmin(lengths))} are all zero; expected a direction")
    return (a * b).sum(axis=1) / lengths


def step_similarities(features: Features) -> Float[np.ndarray, " n"]:
    """Cosine of each frame and the next: frame consistency is their mean (Esser et al. 2023, arXiv 2302.03011).

    Raises:
        InputError: fewer than two frames.
    """
    if len(features) < 2:
        raise InputError(f"features are of {len(features)} frame; expected 2 or more")
    return cosines(features[:-1], features[1:])


def background_consistency(features: Features) -> float:
    """VBench (arXiv 2311.17982): mean over frames 2 … T of the mean cosine to the first and to the frame before.

    Cosines below 0 count as 0.
    """
    steps = np.maximum(step_similarities(features), 0)
    first = np.maximum(cosines(features[1:], np.broadcast_to(features[0], features[1:].shape)), 0)
    return float((steps + first).mean() / 2)


def subject_score(picture: Float[np.ndarray, " _"], features: Features) -> float:
    """VBench's i2v_subject (VBench++, arXiv 2411.13503): does the video keep the picture that it was made from?

    `0.4 max_t cos(p, f_t) + 0.3 mean_t cos(f_t, f_t+1) + 0.3 min_t cos(f_t, f_t+1)`, cosines below 0 counted as 0. An
    earlier release had the shares 0.5, 0.5 and 0.

    Args:
        picture: features of the input picture.
        features: of every frame.

    Raises:
        InputError: fewer than two frames, or a picture with features of another size.
    """
    if picture.shape != features.shape[1:]:
        raise InputError(f"the picture's features are {picture.shape}; expected {features.shape[1:]}")
    steps = np.maximum(step_similarities(features), 0)
    to_picture = np.maximum(cosines(np.broadcast_to(picture, features.shape), features), 0)
    best, mean, worst = SHARES
    return float(best * to_picture.max() + mean * steps.mean() + worst * steps.min())
