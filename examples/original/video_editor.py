"""The original's video editor, whose import line alone is another: a source and one edited frame.

Run from the repository: python examples/original/video_editor.py [MODEL] [STEPS]
"""

import sys
from pathlib import Path

from PIL import Image

from wanedit import ModelManager, WanVideoEditorPipeline, save_video

EXAMPLE = Path(__file__).parent.parent / "edit_a_video"


def main(model: str = "models/WAN-1.3B", steps: str | int = 50) -> list[Image.Image]:
    """Edit, save, and return the frames."""
    model_manager = ModelManager(model_id_list=[model])
    pipe = WanVideoEditorPipeline.from_model_manager(model_manager)
    pipe.enable_vram_management()
    video = pipe(
        prompt="a pizza on a wooden board",
        source_video=str(EXAMPLE / "source.mp4"),
        edited_keyframes=[Image.open(EXAMPLE / "board.jpg")],
        keyframe_indices=[0],
        alpha=10.0,
        beta=0.0,
        cfg_scale=5.0,
        num_inference_steps=int(steps),
        tiled=True,
        seed=42,
    )
    save_video(video, "outputs/original/edited.mp4", fps=24, quality=9)
    return video


if __name__ == "__main__":
    main(*sys.argv[1:])
