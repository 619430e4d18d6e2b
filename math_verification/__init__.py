"""Every mathematical claim of wanedit, checked in closed form: `python -m math_verification`."""
