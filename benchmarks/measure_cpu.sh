#!/usr/bin/env bash
# Steps beside those of other libraries, on one core and on two, and how they grow with the sizes.
# It takes about an hour on two cores that nothing else uses, and needs the extra peers.
# From the top of the repository: bash benchmarks/measure_cpu.sh [python]
set -euo pipefail
python=${1:-python}
rows=benchmarks/results/peers.jsonl
arms='[hand-written,eager,compiled,pyro,jax,numpyro,"matrix products"]'
bench() { OMP_NUM_THREADS=$1 "$python" -m priorzoo bench "${@:2}" --device cpu --rows "$rows"; }
for threads in 1 2; do
  bench "$threads" speed --recipes '[vae,gmvae]' --sizes '[small]' --arms "$arms" --base compiled \
    --rounds 21 --steps 50
  bench "$threads" speed --recipes '[vae,gmvae]' --sizes '[reference]' --arms "$arms" \
    --base compiled --rounds 21
  bench "$threads" speed --recipes '[factorial]' --sizes '[reference]' --clusters 64 \
    --arms '[eager,compiled,jax,"matrix products"]' --base compiled --rounds 11
done
bench 1 speed --recipes '[vae,gmvae]' --sizes '[small]' --sweep --arms '[compiled,numpyro]' \
  --base compiled --rounds 7
for clusters in 512 2048; do
  bench 1 speed --recipes '[factorial]' --sizes '[reference]' --clusters "$clusters" \
    --arms '[compiled,jax]' --base compiled --rounds 5
done
