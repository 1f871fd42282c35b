"""Label maps that others have made, into stores; those of stores out, and into other stores.

- `transfer`: from a description of maps that are there to a store of them, by any engine; `task`: the part that workers do
- `listed`: maps on their way into a shard, the bad ones among them told apart
- `pt_file`, `pt_folder`, `pt_import`: one file a map, as the authors of ReLabel and TokenLabeling publish theirs; `axes`: which
  way round they are
- `array_file`, `array_import`: plain arrays; `tar_import`: tar files; `told`: what such files say of themselves
- `exporting`: what exports share; `export_pt`, `export_arrays`, `export_tar`: one format a module
- `selection`: which of a store's rows are meant
- `layout`, `store_rows`, `combining`: stores merged, and parts of them; `dense`, `converting`: in another encoding
"""
