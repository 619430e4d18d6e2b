"""A page in the browser for people who look: pictures on a time line, what a run will cost, its progress, its film.

`session` answers what the page asks, from `runs`, the folders: `films` and `edits` say what the settings of either
come to. `server` brings page and session together; `worker` is the command line in a process of its own; `page/` is
what the browser shows. A run of the board is a run of the command line.
"""
