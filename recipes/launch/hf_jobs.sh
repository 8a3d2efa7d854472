#!/usr/bin/env bash
# A recipe as a job on the Hub's machines, with a bucket of yours at /data:
#   python -m build --wheel && hf buckets sync dist hf://buckets/USER/lift/dist
#   bash recipes/launch/hf_jobs.sh a100-large USER/lift recipes/align.py --config /configs/cogvideox-2b/align_rwl.yaml \
#       --cache /data/cache --output_dir /data/lora
# What it writes under /data stays; a job that is started again goes on there. Further options of `hf jobs` in JOB_OPTIONS.
set -euo pipefail
flavor="$1" bucket="$2" recipe="$3"
shift 3
read -ra options <<< "${JOB_OPTIONS:-}"
# uv installs lift-trl, which the recipe's header names, from the wheel in the bucket. (To bash before 4.4, as macOS has it,
# an empty array is an unbound variable.)
exec hf jobs uv run --flavor "$flavor" --timeout 24h --attempts 3 --secrets HF_TOKEN \
    --volume "hf://buckets/$bucket:/data" --volume "$(dirname "$0")/../configs:/configs" \
    --env UV_FIND_LINKS=/data/dist --env UV_PRERELEASE=allow ${options[@]+"${options[@]}"} "$recipe" "$@"
