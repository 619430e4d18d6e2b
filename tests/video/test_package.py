import subprocess
import sys

import wanedit.video


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, wanedit.video; sys.exit(bool({'av', 'cv2', 'PIL', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_can_be_had():
    for name in wanedit.video.__all__:
        assert callable(getattr(wanedit.video, name))
