#!/usr/bin/env bash
# Steps beside those of other libraries, on one core and on two, and how they grow with the sizes.
# It takes about an hour on two cores that nothing else uses, and needs the extra peers. With
# --quick it only measures growth, of compiled steps at three sizes each, in about three minutes.
# From the top of the repository: bash benchmarks/measure_cpu.sh [--quick] [python]
set -euo pipefail
quick=
if [ "${1:-}" = --quick ]; then quick=1; shift; fi
python=${1:-python}
folder=benchmarks/results
bench() { OMP_NUM_THREADS=$1 "$python" -m priorzoo bench "${@:3}" --device cpu --rows "$folder/$2"; }
if [ -n "$quick" ]; then
  growth='--rounds 3 --steps 5'
  bench 1 growth.jsonl speed --recipes '[gmvae]' --sizes '[]' --sweep --quick --arms '[compiled]' \
    $growth
  for clusters in 64 512 2048; do
    bench 1 growth.jsonl speed --recipes '[factorial]' --sizes '[small]' --clusters "$clusters" \
      --arms '[compiled]' $growth
  done
  exit
fi
arms='[hand-written,eager,compiled,pyro,jax,numpyro,"matrix products"]'
for threads in 1 2; do
  bench "$threads" peers.jsonl speed --recipes '[vae,gmvae]' --sizes '[small]' --arms "$arms" \
    --base compiled --rounds 21 --steps 50
  bench "$threads" peers.jsonl speed --recipes '[vae,gmvae]' --sizes '[reference]' \
    --arms "$arms" --base compiled --rounds 15
  bench "$threads" peers.jsonl speed --recipes '[factorial]' --sizes '[reference]' \
    --clusters 64 --arms '[eager,compiled,jax,"matrix products"]' --base compiled --rounds 11
done
bench 1 growth.jsonl speed --recipes '[gmvae]' --sizes '[]' --sweep --arms '[compiled,numpyro]' \
  --base compiled --rounds 7
for clusters in 64 512 2048; do
  bench 1 growth.jsonl speed --recipes '[factorial]' --sizes '[small]' --clusters "$clusters" \
    --arms '[compiled,jax]' --base compiled --rounds 5
done
