"""Label maps that others have made, into stores; those of stores out, and into other stores.

- `transfer`: from a description of maps that are there to a store of them, by any engine; `task`: the part that workers do
- `listed`: maps that list their classes on their way into a shard, the bad ones among them told apart
- `pt_file`, `pt_folder`: one file a map, as the paper's authors and TokenLabeling publish them; `axes`: which way round
"""
