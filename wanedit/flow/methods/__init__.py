"""Ways to edit a video: one file each, all called as `method(model, edit, schedule, observe)`."""
