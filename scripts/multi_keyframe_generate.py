"""A long video through timed keyframes, as `wanedit generate` makes it.

Example:
    python scripts/multi_keyframe_generate.py --keyframes "a.png:0.0,b.png:3.0" --prompt "a red ball" \\
        --ckpt_dir Wan2.1-FLF2V-14B-720P --size "1280*720" --output outputs/ball --offload_model --t5_cpu

Every field of GenerationConfig is a flag, and a key of the YAML files that `--config` reads.
"""

import sys

from wanedit.__main__ import entry

if __name__ == "__main__":
    entry(["generate", *sys.argv[1:]])
