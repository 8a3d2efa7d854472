#!/usr/bin/env bash
# A recipe on the machines of a SLURM job, one launcher on each:
#   sbatch --nodes 2 recipes/launch/slurm.sh recipes/align.py --config recipes/configs/cogvideox-2b/align_rwl.yaml
# Paths are seen from the folder that it is submitted in. A job that is preempted starts again and goes on where it was;
# every machine needs the same paths. Stages that have no training (generate, score, cache) share their work out in the same way.
#SBATCH --job-name=lift_trl
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
export MAIN_HOST LAUNCHER GPUS="${SLURM_GPUS_ON_NODE:?no GPUs: start this by sbatch}"
# Beside the recipe, since SLURM runs a copy of this file that lies elsewhere.
LAUNCHER="$(dirname "$1")/configs/accelerate/multi_node.yaml"
read -r MAIN_HOST < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# The inner shell runs on each machine, where SLURM_NODEID is that machine's.
srun --kill-on-bad-exit=1 bash -c 'exec accelerate launch --config_file "$LAUNCHER" \
    --num_machines "$SLURM_NNODES" --num_processes $((SLURM_NNODES * GPUS)) --machine_rank "$SLURM_NODEID" \
    --main_process_ip "$MAIN_HOST" "$@"' accelerate "$@"
