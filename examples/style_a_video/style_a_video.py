"""The same as `wanedit edit --config examples/style_a_video/config.yaml`, step by step in Python.

Run from the repository: python examples/style_a_video/style_a_video.py
"""

import asyncio
from pathlib import Path

from wanedit import IntegratedVideoEditor

HERE = Path(__file__).parent
PROMPT = "a yellow star curves right and a red circle moves left, in front of a violet sky at dusk"


def main(output: Path = Path("outputs/style_a_video_python")) -> Path:
    """Restyle the keyframes, edit, and save; returns the video."""
    editor = IntegratedVideoEditor("tiny", output_dir=output, controller="covariance")
    video = HERE / "source.mkv"
    keyframes, indices, metadata = asyncio.run(
        editor.generate_styled_keyframes(video, {"image_path": HERE / "reference.png"}, target_fps=2.0)
    )
    source = editor.load_source_video(video)
    # wan-tiny is made for guidance 1, and a dozen steps are enough for it.
    frames = editor.run_video_editing(
        PROMPT, source, keyframes, indices, guidance_scale=1.0, num_inference_steps=12, seed=1, verbose=True
    )
    saved = editor.save_results(frames, output / "dusk.mp4", keyframes, indices, metadata, source)
    return saved.video


if __name__ == "__main__":
    print(main())
