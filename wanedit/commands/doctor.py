"""`wanedit doctor`: what works on this machine."""

from typing import Any

from wanedit.commands.support import allow_bare_flags, new_parser
from wanedit.stylists.gemini.settings import GeminiSettings

HELP = "what works on this machine, and which Gemini models your key can use"
KEYS = ["gemini", "image_model", "text_model", "base_url", "api_version"]


def parser() -> Any:
    """Its flags."""
    made = new_parser(
        "Check Python, devices, codecs, models, metric weights, W&B, the browser and, with GOOGLE_API_KEY or "
        "GEMINI_API_KEY set, Gemini. Exit code 0: all that the default needs works. No key is ever printed."
    )
    defaults = GeminiSettings()
    made.add_argument("--gemini", type=bool, default=False, help="fail (exit 5) if Gemini cannot be used")
    flags = (
        ("image_model", str, defaults.image_model, "the id to look for"),
        ("text_model", str, defaults.text_model, "the id to look for"),
        ("base_url", str | None, None, "another endpoint than Google's"),
        ("api_version", str | None, None, "v1 or v1beta"),
    )
    for name, kind, default, words in flags:
        # Also as `wanedit style` spells them, so that its flags can be copied.
        made.add_argument(f"--{name}", f"--gemini.{name}", type=kind, default=default, help=words)
    allow_bare_flags(made)
    return made


def run(settings: Any) -> int:
    """Print the checks. Returns the exit code."""
    from wanedit.commands.examine import doctor

    chosen = GeminiSettings(
        image_model=settings.image_model,
        text_model=settings.text_model,
        base_url=settings.base_url,
        api_version=settings.api_version,
    )
    return doctor(chosen, require_gemini=settings.gemini)
