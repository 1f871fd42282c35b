"""`--class-map`, for all commands that look at images' own labels."""

from __future__ import annotations

import click

from labelstore.class_map_file import FILES

class_map_option = click.option(
    "--class-map",
    metavar="FILE",
    help="Which classes of the annotator the images' labels are, as training takes it: "
    f"{', '.join(FILES[:2])}, or same or by_id.  [default: by id, name or number]",
)
