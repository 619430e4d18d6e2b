"""The original's generator, whose import line alone is another: a long video through timed keyframes.

Run from the repository: python examples/original/multi_keyframe_generate.py [CKPT_DIR] [SIZE]
"""

import sys
from pathlib import Path

from wanedit import GenerationConfig, MultiKeyframePipeline

DEMO = Path(__file__).parent.parent / "multi_keyframe_demo"


def main(ckpt_dir: str = "./Wan2.1-FLF2V-14B-720P", size: str = "1280*720") -> str:
    """Four seconds at 24 frames a second between the last two keyframes; returns the video's path."""
    config = GenerationConfig(
        ckpt_dir=Path(ckpt_dir),
        size=size,
        fps=24,
        base_seed=42,
    )
    pipeline = MultiKeyframePipeline(config)
    keyframes = [
        (DEMO / "start.png", 0.0),
        (DEMO / "rise.png", 1.0),
        (DEMO / "end.png", 5.0),
    ]
    output = pipeline.run(
        keyframes=keyframes,
        global_prompt="a yellow star and a red circle",
        output_path=Path("outputs/original/video.mp4"),
    )
    print(f"Video saved to: {output}")
    return str(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
