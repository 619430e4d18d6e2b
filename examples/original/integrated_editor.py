"""The original's integrated editor, whose import line alone is another: keyframes restyled, then spread over the video.

Run from the repository: python examples/original/integrated_editor.py [MODEL] [STEPS] [VIDEO]
"""

import asyncio
import sys
from pathlib import Path

from wanedit import IntegratedVideoEditor

EXAMPLE = Path(__file__).parent.parent / "style_a_video"


async def edit_video(model: str, steps: int, video: str) -> str:
    """Restyle, edit and save; returns the film's path."""
    editor = IntegratedVideoEditor(wan_model_size=model, output_dir="outputs/original/integrated")
    styled_keyframes, keyframe_indices, metadata = await editor.generate_styled_keyframes(
        video_path=video,
        style_reference={"image_path": str(EXAMPLE / "reference.png"), "description": None},
        target_fps=1.0,
        max_frames=10,
    )
    editor.load_wan_pipeline()
    editor.pipe.enable_vram_management()
    source_frames = editor.load_source_video(video)
    edited_frames = editor.run_video_editing(
        prompt="a yellow star and a red circle, in front of a violet sky at dusk",
        source_frames=source_frames,
        styled_keyframes=styled_keyframes,
        keyframe_indices=keyframe_indices,
        alpha=10.0,
        beta=0.0,
        cfg_scale=5.0,
        num_inference_steps=steps,
        seed=42,
    )
    saved = editor.save_results(edited_frames, "outputs/final")
    print(
        f"{len(styled_keyframes)} keyframes at {keyframe_indices} of {metadata['num_frames']} frames: {saved}"
    )
    return str(saved)


def main(model: str = "1.3B", steps: str | int = 50, video: str = str(EXAMPLE / "source.mkv")) -> str:
    """The whole workflow; returns the film's path."""
    return asyncio.run(edit_video(model, int(steps), video))


if __name__ == "__main__":
    main(*sys.argv[1:])
