"""Shape annotations of math_verification are checked in its tests, as those of wanedit are."""

import jaxtyping

jaxtyping.install_import_hook("math_verification", "tests.typecheck.check")
