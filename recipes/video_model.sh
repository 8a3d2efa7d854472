#!/usr/bin/env bash
# The story of recipes/mini.sh for a real model on GPUs: a critic from the published ratings, the base's own videos and their
# rewards, a LoRA, VBench. Put real videos with captions into runs/<model>/real (docs/index.md) before you start; all else
# goes to runs/ in the folder that it is started in, too.
#
#   bash recipes/video_model.sh wan2.1-1.3b      any folder of recipes/configs with a cache.yaml; cogvideox-2b by default
#
# Never run on a GPU by us: a test checks each line's options and YAML, and the sizes without weights.
set -euo pipefail
RECIPES="$(dirname "$0")"
ACCELERATE="${ACCELERATE:-$RECIPES/configs/accelerate/single_gpu.yaml}"
MODEL="${1:-cogvideox-2b}"
VIDEO="$RECIPES/configs/$MODEL"
CRITIC="${CRITIC:-$RECIPES/configs/qwen2.5-vl-7b}"
VBENCH_SUITE="${VBENCH_SUITE:-Vbench_full_info_opt.json}"

# 1, 2: LiFT-HRA is fetched from the Hub; for ratings of your own start with spaces/annotate and recipes/correct.py.
accelerate launch --config_file "$ACCELERATE" "$RECIPES/train_critic.py" --config "$CRITIC/train_critic.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/evaluate_critic.py" --config "$CRITIC/evaluate_critic.yaml"

# 3: videos of the base, their rewards, a cache, LoRAs by reward-weighted likelihood and by rejection sampling.
lift-trl prompts "runs/$MODEL/prompts.txt" --num 1000
lift-trl validate "runs/$MODEL/real"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/score.py" --config "$CRITIC/score.yaml" --videos "runs/$MODEL/generated" --output_dir "runs/$MODEL/scored"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/cache.py" --config "$VIDEO/cache.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/align.py" --config "$VIDEO/align_rwl.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/align.py" --config "$VIDEO/align_rs.yaml"
lift-trl export "runs/$MODEL/lora_rwl" --format comfyui

# 4: the same prompts and seeds from base, LoRAs and the authors' released model, VBench and one report.
lift-trl eval plan --suite "$VBENCH_SUITE" --prompts lift_opt --output "runs/$MODEL/vbench_plan"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml" --adapter "runs/$MODEL/lora_rwl" --output_dir "runs/$MODEL/vbench_rwl"
accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml" --adapter "runs/$MODEL/lora_rs" --output_dir "runs/$MODEL/vbench_rs"
if [ "$MODEL" = cogvideox-2b ]; then
  accelerate launch --config_file "$ACCELERATE" "$RECIPES/generate.py" --config "$VIDEO/generate_vbench.yaml" --model_name_or_path Fudan-FUXI/CogVideoX-2B-LiFT --output_dir "runs/$MODEL/vbench_released"
fi
python "$RECIPES/evaluate.py" --config "$VIDEO/evaluate.yaml"
