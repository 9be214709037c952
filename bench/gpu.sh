#!/usr/bin/env bash
# What is measured on a GPU: correctness, step times, CIFAR-10 seconds to accuracy.
#
#   bench/gpu.sh [DATA]     DATA holds the folder cifar10 (default: ../shared/data)
#
# Needs this clone, a python3 with torch, pydantic, numpy, safetensors and pytest (PYTHON names
# another one), and for all optimizers the extras `data` and `peers`. At most nine minutes
# (LIMIT seconds); a second call goes on where the first one stopped. Writes RESULTS, by default
# docs/results/gpu.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${1:-../shared/data}
RESULTS=${RESULTS:-docs/results/gpu}
LIMIT=${LIMIT:-540}
export PYTHONPATH="$PWD/engine:$PWD/app:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
mkdir -p "$RESULTS"
began=$SECONDS

left() { echo $((LIMIT - (SECONDS - began))); }

"$PYTHON" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' \
  || { echo "no CUDA device: nothing to measure"; exit 1; }

status=0
if ! grep -q ' passed' "$RESULTS/tests.txt" 2>/dev/null || grep -qE ' (failed|error)' "$RESULTS/tests.txt"; then
  echo "== tests (pytest -m gpu)"
  timeout "$(($(left) < 210 ? $(left) : 210))" "$PYTHON" -m pytest -m gpu tests/gpu tests/engine \
    -p no:cacheprovider -n 4 --timeout 120 2>&1 | tee "$RESULTS/tests.txt"
  [ "${PIPESTATUS[0]}" = 0 ] || status=1
fi

echo "== step times"
share=$(( $(left) * 55 / 100 ))
timeout "$((share + 30))" "$PYTHON" -m bench.gpu.steps --output "$RESULTS/steps.json" --seconds "$share" || status=1

echo "== CIFAR-10"
if [ -d "$DATA/cifar10" ]; then
  timeout "$(left)" "$PYTHON" -m bench.gpu.cifar --data "$DATA" --output "$RESULTS/cifar.json" \
    --seconds "$(($(left) - 45))" || status=1
else
  echo "$DATA/cifar10 is not there: skipped"
fi
"$PYTHON" -m bench.gpu.report "$RESULTS" || status=1
exit $status
