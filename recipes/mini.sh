#!/usr/bin/env bash
# The story on a laptop: rated clips become a cache, the cache a LoRA that diffusers loads. No GPU, no network.
# Every line is what you would run for a real model; recipes/cogvideox_2b.sh has those.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" HF_HUB_OFFLINE=1

lift-trl mini-world runs/mini/world
lift-trl validate runs/mini/world/rated
accelerate launch --config_file recipes/configs/accelerate/cpu.yaml recipes/cache.py --config recipes/configs/mini/cache.yaml
accelerate launch --config_file recipes/configs/accelerate/cpu.yaml recipes/align.py --config recipes/configs/mini/align_rwl.yaml
lift-trl inspect runs/mini/cache
lift-trl inspect runs/mini/lora_rwl

cat <<'NEXT'

Done. The LoRA is runs/mini/lora_rwl/pytorch_lora_weights.safetensors; videos of base and tuned model are in
runs/mini/lora_rwl/validation. Next:
  * your own clips: docs/index.md says how the folder looks, `lift-trl validate DIR` checks it
  * the real model: recipes/cogvideox_2b.sh
  * rejection sampling or plain fine-tuning instead: recipes/configs/mini/align_rs.yaml, align_sft.yaml
NEXT
