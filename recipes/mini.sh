#!/usr/bin/env bash
# The whole paper on a laptop: people rate a model's videos, a critic learns their ratings, the critic's rewards make the
# model better, and a report says by how much. Two CPU cores, 8 to 13 minutes, no GPU, no network.
# Every stage is what you would run for a real model; video_model.sh has those lines. All goes to runs/mini in the folder
# that it is started in. Kill it, start it again: it goes on where it stopped.
set -euo pipefail
RECIPES="$(dirname "$0")"
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# glibc keeps freed memory for the next batch; to give it back and ask again costs a tenth of the time on a CPU.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=2000000000
MINI="$RECIPES/configs/mini"

one() { ACCELERATE_USE_CPU=true python "$@"; }  # one process, without a launcher and its own imports
two() { accelerate launch --config_file "$RECIPES/configs/accelerate/cpu_2.yaml" "$@"; }  # two processes
# Runs its arguments side by side; fails if one of them fails. In the background a function ends at its first failure.
both() {
    local first second status=0
    "$1" & first=$!
    "$2" & second=$!
    wait "$first" || status=$?
    wait "$second" || status=$?
    return "$status"
}

echo "== 0. the world: a tiny CogVideoX, a tiny chat VLM, prompts, real videos"
lift-trl mini-world runs/mini/world

echo "== 1. human feedback: people rate videos of the base model and say why; beside it, the videos that alignment will need"
rated() {
    one "$RECIPES/generate.py" --config "$MINI/generate.yaml" --seed 0 --output_dir runs/mini/to_rate
    lift-trl mini-rate runs/mini/to_rate runs/mini/rated
    lift-trl validate runs/mini/rated
}
generated() { one "$RECIPES/generate.py" --config "$MINI/generate.yaml"; }
both rated generated

echo "== 2. the critic learns their labels and reasons"
two "$RECIPES/train_critic.py" --config "$MINI/train_critic.yaml"

judge() {
    one "$RECIPES/score.py" --config "$MINI/score.yaml" --videos "runs/mini/eval_$1" --output_dir "runs/mini/scored_$1"
    lift-trl mini-rate "runs/mini/eval_$1" "runs/mini/oracle_$1" --oracle
}

echo "== 3. alignment: rewards, a LoRA by reward-weighted likelihood, plain fine-tuning as the control; beside it, the base's part of 4"
scored_and_cached() {
    one "$RECIPES/score.py" --config "$MINI/score.yaml"
    one "$RECIPES/cache.py" --config "$MINI/cache.yaml"
}
base() {
    one "$RECIPES/generate.py" --config "$MINI/generate_eval.yaml"
    judge base
}
both scored_and_cached base
rwl() { one "$RECIPES/align.py" --config "$MINI/align_rwl.yaml"; }
sft() { one "$RECIPES/align.py" --config "$MINI/align_sft.yaml"; }
both rwl sft

echo "== 4. evaluation: the same prompts and seeds from each model, judged by the critic and by the oracle"
tuned() {
    one "$RECIPES/generate.py" --config "$MINI/generate_eval.yaml" --adapter "runs/mini/lora_$1" --output_dir "runs/mini/eval_$1"
    judge "$1"
}
kto_guided_and_critic() {
    # What gained most by a critic's labels (docs/objectives.md), on the same clips, in fewer and smaller steps; fewer videos.
    one "$RECIPES/align.py" --config "$MINI/align_kto.yaml" --max_steps 120 --per_device_train_batch_size 32
    one "$RECIPES/generate.py" --config "$MINI/generate_eval.yaml" --adapter runs/mini/lora_kto --videos_per_prompt 2 --output_dir runs/mini/eval_kto
    judge kto
    # What classifier-free guidance repairs by itself, at twice the cost of a video: the base again, fewer videos.
    one "$RECIPES/generate.py" --config "$MINI/generate_eval.yaml" --guidance_scale 3 --videos_per_prompt 2 --output_dir runs/mini/eval_guided
    judge guided
    one "$RECIPES/evaluate_critic.py" --config "$MINI/evaluate_critic.yaml"
}
rwl_and_sft() {
    tuned rwl
    tuned sft
}
both kto_guided_and_critic rwl_and_sft
one "$RECIPES/evaluate.py" --config "$MINI/evaluate.yaml"

cat <<NEXT

Done. Open runs/mini/report/report.html. The LoRA is runs/mini/lora_rwl/pytorch_lora_weights.safetensors. Next:
  * look at base and tuned model side by side: python spaces/compare/app.py (of a checkout)
  * your own clips: docs/index.md says how the folder looks, \`lift-trl validate DIR\` checks it
  * the real model: $RECIPES/video_model.sh
  * other objectives on the same clips, rounds: docs/objectives.md, $MINI/align_best_of_n.yaml, $RECIPES/iterate.py
NEXT
