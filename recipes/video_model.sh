#!/usr/bin/env bash
# The story of recipes/mini.sh for a real model on GPUs: a critic from the published ratings, the base's own videos and their
# rewards, a LoRA, VBench. Put real videos with captions into runs/<model>/real (docs/index.md) before you start; all else
# goes to runs/ in the folder that it is started in, too. What it needs is asked for first. Kill it, start it again: it goes
# on where it stopped.
#
#   bash recipes/video_model.sh wan2.1-1.3b      any folder of recipes/configs with a generate_vbench.yaml; cogvideox-2b by default
#
# Never run on a GPU by us: a test checks each line's options and YAML, and the sizes without weights.
set -euo pipefail
RECIPES="$(dirname "$0")"
ACCELERATE="${ACCELERATE:-$RECIPES/configs/accelerate/single_gpu.yaml}"
MODEL="${1:-cogvideox-2b}"
VIDEO="$RECIPES/configs/$MODEL"
CRITIC="${CRITIC:-$RECIPES/configs/qwen2.5-vl-7b}"
VBENCH_SUITE="${VBENCH_SUITE:-Vbench_full_info_opt.json}"

# 0: what would else be missed after days: the YAMLs, the real videos, VBench's prompts; and the prompts of step 3.
for needed in "$ACCELERATE" "$CRITIC"/{train_critic,evaluate_critic,score}.yaml \
              "$VIDEO"/{generate,cache,align_rwl,align_rs,generate_vbench,evaluate}.yaml; do
  if [ ! -f "$needed" ]; then
    echo "$needed: missing. Models that have all: $(cd "$RECIPES/configs" && echo */generate_vbench.yaml | sed 's|/[^ ]*||g')" >&2
    exit 1
  fi
done
lift-trl validate "runs/$MODEL/real"
lift-trl eval plan --suite "$VBENCH_SUITE" --prompts lift_opt --output "runs/$MODEL/vbench_plan"
if [ ! -f "runs/$MODEL/prompts.txt" ]; then  # those of an earlier start, or your own
  lift-trl prompts "runs/$MODEL/prompts.txt" --num 1000
fi

# 1, 2: LiFT-HRA is fetched from the Hub; for ratings of your own start with spaces/annotate and recipes/correct.py.
accelerate launch --config_file "$ACCELERATE" "$RECIPES/train_critic.py" --config "$CRITIC/train_critic.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/evaluate_critic.py" --config "$CRITIC/evaluate_critic.yaml"

# 3: videos of the base, their rewards, a cache, LoRAs by reward-weighted likelihood and by rejection sampling.
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/score.py" --config "$CRITIC/score.yaml" --videos "runs/$MODEL/generated" --output_dir "runs/$MODEL/scored"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/cache.py" --config "$VIDEO/cache.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/align.py" --config "$VIDEO/align_rwl.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/align.py" --config "$VIDEO/align_rs.yaml"
lift-trl export "runs/$MODEL/lora_rwl" --format comfyui

# 4: the same prompts and seeds from base, LoRAs and the authors' released model, VBench and one report.
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml" --adapter "runs/$MODEL/lora_rwl" --output_dir "runs/$MODEL/vbench_rwl"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml" --adapter "runs/$MODEL/lora_rs" --output_dir "runs/$MODEL/vbench_rs"
if [ "$MODEL" = cogvideox-2b ]; then
  accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml" --model_name_or_path Fudan-FUXI/CogVideoX-2B-LiFT --output_dir "runs/$MODEL/vbench_released"
fi
python "$RECIPES/evaluate.py" --config "$VIDEO/evaluate.yaml"
