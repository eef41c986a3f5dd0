#!/bin/bash
#SBATCH --job-name=interpret-part
#SBATCH --array=1-8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue

# Mine the parts of a data set in jobs that start whenever a GPU is free, each into a study of its own:
#
#     sbatch --wait slurm-parts.sh torchvision:resnet50 /data/images /results/study
#     interpret merge /results/study.part* --study /results/study
#
# The merged study has the same bytes as one that a single process mined.

set -euo pipefail

model=$1 data=$2 study=$3
shift 3
interpret mine "$model" "$data" --study "$study.part$SLURM_ARRAY_TASK_ID" \
    --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
