"""Step caches: one file each, all called as `cache.forecast(past, x, step, clock)`; see `wanedit.flow.caching`."""

from typing import TYPE_CHECKING

from wanedit.registry import Registry

if TYPE_CHECKING:
    from wanedit.flow.caching import StepCache

CACHES: "Registry[type[StepCache]]" = Registry(
    "cache", "wanedit.flow.caches", base="wanedit.flow.caching:StepCache"
)
