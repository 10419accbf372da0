#!/usr/bin/env bash
# The full schedules of papers, for a machine with a GPU; each command goes on where it was stopped.
# From the top of the repository: bash benchmarks/paper_gpu.sh [python] [folder of the data sets]
set -euo pipefail
python=${1:-python}
data=${2:-data}
bench() {
  "$python" -m priorzoo bench "$@" --budget paper --device cuda --data-root "$data" --download \
    --out runs/paper-gpu
}
# The structured VAE: 320,000 steps in all, as in the paper, and the annealed runs of 26,000 steps.
bench factorial --importance-samples 5000 --seeds 10:13 --set step=cudagraph precision=bf16
bench factorial-annealed factorial-annealed-dynamic --importance-samples 5000 --seeds 10:13 \
  --set step=cudagraph model.clusters=1,512
bench factorial-annealed-omniglot --importance-samples 5000 --seeds 10:13 --set step=cudagraph
bench sb-vae-annealed sb-vae-grey --seeds 10:13 --set step=cudagraph
bench dilokthanakul-reseeded dilokthanakul-reseeded-16 --seeds 10:15 --set step=cudagraph
"$python" -m priorzoo report runs/paper-gpu --out runs/paper-gpu/site
