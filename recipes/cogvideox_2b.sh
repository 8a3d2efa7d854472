#!/usr/bin/env bash
# The same story for CogVideoX-2B on GPUs: rated clips in runs/cogvideox-2b/rated, real ones in runs/cogvideox-2b/real.
# These lines were never run on a GPU by us: their options and YAMLs are checked by tests, their arithmetic on a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
ACCELERATE="${ACCELERATE:-recipes/configs/accelerate/single_gpu.yaml}"

lift-trl validate runs/cogvideox-2b/rated
lift-trl validate runs/cogvideox-2b/real
accelerate launch --config_file "$ACCELERATE" recipes/cache.py --config recipes/configs/cogvideox-2b/cache.yaml
accelerate launch --config_file "$ACCELERATE" recipes/align.py --config recipes/configs/cogvideox-2b/align_rwl.yaml
lift-trl export runs/cogvideox-2b/lora_rwl --format comfyui
