"""The winner as a MONAI bundle: one folder that runs where voxelsoup is not installed.

In: the winning models, the study, its test scores and its methods text. Out:
`configs/metadata.json` and `inference.json`, `models/` (safetensors and TorchScript) and the
model card `docs/README.md`.

Begin with `bundle.write_bundle`. What reads a bundle is in `prediction.bundle_files`.

Decisions:

- **The configuration names MONAI's parts alone** (`inference_config`); only resampling is ours
  (`transforms`), because MONAI's gives other voxels, so that a study with a spacing needs
  voxelsoup.
- **No file is a pickle**; the SHA-256 of every file stands in `configs/metadata.json` and is
  compared before weights are loaded.
"""
