"""A finished study as something to hand over: bundle, exports, all models, and hashes of all files.

In: a results folder. Out: `models/` (every model under a readable name, with a manifest),
`bundle/` (the winner as a MONAI bundle), single TorchScript and ONNX files, and `provenance.tsv`.

Begin with `winner.py` (which kind of model wins) and `bundle/bundle.py`; `collection`, `export`
and `file_manifest` each stand alone.

Decisions:

- **The bundle consists of MONAI's parts alone**, so that it runs where voxelsoup is not installed.
  Only resampling is ours (`bundle.transforms`), because MONAI's gives other voxels.
- **The winner is chosen on selection scores alone**; test scores have no part in it.
- **TorchScript is traced**, because scripting refuses MedNeXt, and compared with the model before
  it is kept; voxelsoup never loads it again.
- **Hashes are taken when a file is written** and collected at the end (`file_manifest`), the last
  step of `all`: arrays and models of trials are not read again. It lists what the study names,
  not what lies in the folder.
"""
