#!/usr/bin/env bash
# generate or score as an array of SLURM jobs, each with one GPU and a part of the work:
#   bash recipes/launch/slurm_array.sh 32 recipes/generate.py --config recipes/configs/cogvideox-2b/generate.yaml
# A job that is preempted or fails loses its unfinished batch only. A last job does what the others left, and merges: when it
# is done the folder is complete. Further options of sbatch in SBATCH_OPTIONS (--partition gpu --account me).
set -euo pipefail
jobs="$1"
shift
read -ra options <<< "${SBATCH_OPTIONS:-}"
# (To bash before 4.4 an empty array is an unbound variable.)
submit=(sbatch --parsable --job-name=lift_trl --gpus=1 --time=24:00:00 --requeue ${options[@]+"${options[@]}"})
# A script of bash's own, which reads what bash quotes. sbatch --wrap is read by sh, and dash takes $'..' by the letter.
command="#!/usr/bin/env bash
exec $(printf '%q ' python "$@")"
array="$("${submit[@]}" --array="0-$((jobs - 1))" <<< "$command --shard \"\$SLURM_ARRAY_TASK_ID/$jobs\"")"
# On a GPU as well: the precision, which belongs to the settings, is the device's.
exec "${submit[@]}" --dependency="afterany:${array%%;*}" <<< "$command"
