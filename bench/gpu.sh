#!/usr/bin/env bash
# All that is measured on a machine with one GPU, unattended and without a network, in at most eight
# minutes, the most important first. Each part has a time limit of its own and writes its figures,
# as far as it has come, before the next one begins.
#
#   bench/gpu.sh [--device cuda|cpu] [--wheels FOLDER] [FOLDER]
#
# FOLDER is where the figures go (bench/results; with `--device cpu` build/gpu), and into `gpu/` in it
# the logs and `parts.tsv`, which says how each part ended and how long it took. The machine's own python3 (or $PYTHON) and torch are used, 2.11 or newer;
# what it lacks beside them is installed for this run alone from wheels (bench/gpu_wheels.sh writes
# them to bench/wheels). `--device cpu` does everything at the sizes of a test.
set -uo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS
total=470
device=cuda wheels=bench/wheels folder=
while (($#)); do
  case $1 in
    --device) device=$2; shift 2 ;;
    --wheels) wheels=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit ;;
    -*) echo "bench/gpu.sh: unknown option $1; see --help" >&2; exit 2 ;;
    *) folder=$1; shift ;;
  esac
done
case $device in
  cuda) ;;
  cpu) export BENCH_TINY=1 CUDA_VISIBLE_DEVICES= ;;
  *) echo "bench/gpu.sh: --device is $device; expected cuda or cpu" >&2; exit 2 ;;
esac
if [[ -z $folder ]]; then
  folder=bench/results
  [[ $device == cpu ]] && folder=build/gpu
fi
mkdir -p "$folder/gpu" || exit 2
folder=$(cd "$folder" && pwd)
export BENCH_DEVICE=$device BENCH_RESULTS=$folder PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if compgen -G "$wheels/*.whl" > /dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --disable-pip-version-check --target "$scratch/site" "$wheels"/*.whl || exit 2
  export PYTHONPATH=$scratch/site${PYTHONPATH:+:$PYTHONPATH}
fi
"$python" - "$device" << 'CHECK' || exit 2
import sys

import torch

found = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
if found < (2, 11):
    sys.exit(f"bench/gpu.sh: torch is {torch.__version__}; expected 2.11 or newer")
if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("bench/gpu.sh: torch sees no GPU here; `--device cpu` does all of it at tiny sizes")
CHECK

printf 'part\tended\tseconds\n' > "$folder/gpu/parts.tsv"
failed=0
# part NAME LIMIT COMMAND...: run it, as long as its limit and the whole allow.
part() {
  local name=$1 limit=$2 left=$((total - (SECONDS - began))) start=$SECONDS ended
  shift 2
  ((left < limit)) && limit=$left
  if ((limit < 5)); then
    printf '%s\tno time left\t0\n' "$name" >> "$folder/gpu/parts.tsv"
    failed=1
    return
  fi
  echo "== $name (at most $limit s)"
  timeout --kill-after=5 "$limit" "$python" "$@" 2>&1 | tee "$folder/gpu/$name.log"
  case ${PIPESTATUS[0]} in
    0) ended=done ;;
    124 | 137) ended="stopped at its limit of $limit s" ;;
    *) ended=failed failed=1 ;;
  esac
  printf '%s\t%s\t%s\n' "$name" "$ended" $((SECONDS - start)) >> "$folder/gpu/parts.tsv"
}

if [[ $device == cuda ]]; then chosen=(S B); else chosen=(demo); fi
part smoke 130 bench/gpu_smoke.py
part train_step 130 bench/train_step.py "${chosen[@]}"
part depthwise 25 bench/train_step.py depthwise
part input 40 bench/gpu_input.py
part evaluate 45 bench/gpu_evaluate.py
part runs_per_gpu 90 bench/runs_per_gpu.py
cat "$folder/gpu/parts.tsv"
exit $failed
