#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in one go of at most ten minutes.
# From the top of the repository: bash benchmarks/measure_gpu.sh [python]
# JAX and NumPyro are measured beside the zoo where they are installed for CUDA: jax[cuda], numpyro
# and optax.
set -euo pipefail
export XLA_PYTHON_CLIENT_PREALLOCATE=false  # JAX would take three quarters of the memory
python=${1:-python}
rows=benchmarks/results/speed.jsonl
peers=$("$python" -c 'import jax, numpyro, optax
print(",jax,numpyro" if jax.default_backend() == "gpu" else "")' 2>/dev/null || true)
bench() { timeout "$1" "$python" -m priorzoo bench speed --device cuda --rows "$rows" "${@:2}"; }
"$python" -m pytest -q tests/inference/training/test_compiled.py -k captured
bench 130 --recipes '[gmvae]' --rounds 10 --steps 200 \
  --arms "[hand-written,\"hand-written, compiled\",eager,compiled,cudagraph,\"matrix products\"$peers]"
bench 80 --recipes '[vae]' --sizes '[reference]' --rounds 10 --steps 200 \
  --arms "[hand-written,eager,compiled,cudagraph,\"matrix products\"$peers]"
timeout 300 "$python" -m priorzoo bench speed-runs --device cuda --rows "$rows" --minutes 3.5
