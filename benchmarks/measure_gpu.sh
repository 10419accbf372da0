#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in one go of at most ten minutes.
# From the top of the repository: bash benchmarks/measure_gpu.sh [python]
set -euo pipefail
python=${1:-python}
rows=benchmarks/results/speed.jsonl
bench() { timeout "$1" "$python" -m priorzoo bench speed --device cuda --rows "$rows" "${@:2}"; }
"$python" -m pytest -q tests/inference/training/test_compiled.py -k captured
bench 130 --recipes '[gmvae]' --rounds 10 --steps 200 \
  --arms '[hand-written,"hand-written, compiled",eager,compiled,cudagraph]'
bench 80 --recipes '[vae]' --sizes '[reference]' --rounds 10 --steps 200 \
  --arms '[hand-written,eager,compiled,cudagraph]'
timeout 300 "$python" -m priorzoo bench speed-runs --device cuda --rows "$rows" --minutes 3.5
