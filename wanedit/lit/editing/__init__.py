"""Editing with a loaded Wan: the model as methods see it, one clip as a task, the module that edits it."""
