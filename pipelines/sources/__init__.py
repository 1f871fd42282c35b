"""Where images come from: which there are, by id, and how each one's bytes are got.

- `spec`: what a user names, and what kind of source it is
- `folder`, `pathlist`, `tar`, `parquet`: one kind of source a module, each to a `Listing`
- `listing`: the images of a source by id, their labels, where each one lies
- `places`: one image's bytes; `bytesio`: files and parts of them, here or behind a URL
"""

from labelstore.pipelines.sources.listing import Listing
from labelstore.pipelines.sources.open import list_images
from labelstore.pipelines.sources.places import FilePlace, Place
from labelstore.pipelines.sources.spec import ImagesSpec

__all__ = ["FilePlace", "ImagesSpec", "Listing", "Place", "list_images"]
