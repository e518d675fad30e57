#!/usr/bin/env bash
# Write the wheels that bench/gpu.sh needs on a machine without a network: at most 60 MB.
#
#   bench/gpu_wheels.sh [FOLDER [PYTHON_VERSION [PACKAGE...]]]
#
# FOLDER: bench/wheels. PYTHON_VERSION: of that machine, 3.12. PACKAGE...: what it lacks; by default
# what an image with torch, numpy, scipy, pandas, matplotlib and TensorBoard lacks.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-bench/wheels} version=${2:-3.12}
shift $(($# < 2 ? $# : 2))
packages=("$@")
((${#packages[@]})) || packages=(
  annotated-types connected-components-3d deflate einops monai nibabel pydantic pydantic_core
  pynrrd safetensors schedulefree surface-distance typing-inspection
)
pinned=()
for package in "${packages[@]}"; do
  pinned+=("$(grep -i "^$package==" requirements.txt | cut -d' ' -f1)")
done
mkdir -p "$folder"
rm -f "$folder"/*.whl
platforms=()
for glibc in 17 24 27 28 34; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --implementation cp --python-version "$version" "${platforms[@]}" \
  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any \
  --dest "$folder" "${pinned[@]}"
size=$(du -sm "$folder" | cut -f1)
echo "$folder: ${#pinned[@]} wheels, $size MB"
((size <= 60)) || { echo "more than 60 MB: name fewer packages" >&2; exit 1; }
