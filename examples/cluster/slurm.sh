#!/bin/bash
#SBATCH --job-name=interpret
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue

# Run a subcommand of interpret on all GPUs of all nodes, or on all cores where there is no GPU:
#
#     sbatch slurm.sh gallery torchvision:resnet50 /data/images --study /results/study --out /results/gallery
#
# All nodes must see the images, the model and the study. A process that dies is started again, and so is a job that
# Slurm puts back into the queue; both go on from the last minute, with any number of nodes.

set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node "${PROCESSES_PER_NODE:-auto}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:${PORT:-29500}" \
    --rdzv-id "$SLURM_JOB_ID" \
    --max-restarts 3 \
    -m interpret "$@"
