#!/usr/bin/env bash
# Everything that must hold before a change lands: style, types, the contract of layers, and the tests.
# --fast: for daily work, the tests that together take seconds. Other arguments go to pytest, for example:
# ./check.sh tests/ops -x, or -n 8 where there are more cores than two.
set -euo pipefail
cd "$(dirname "$0")"
fast=(
  tests/structures tests/heads tests/preprocessing tests/features/necks tests/data/formats tests/ops/roi_align
  tests/ops/test_boxes.py tests/ops/test_nms.py tests/ops/test_matching.py tests/evaluation/test_coco.py
  tests/training/test_config.py tests/detectors/test_dialects.py tests/cli/test_help.py tests/cli/test_options.py
  tests/contracts/test_structure.py tests/contracts/test_checked_types.py tests/test_files.py
)
if [[ "${1:-}" == "--fast" ]]; then
  shift
  set -- "${fast[@]}" "$@"
fi
ruff check .
ruff format --check .
lint-imports
# mypy has one core for half a minute, the tests have two for minutes: what it says comes behind them.
types=$(mktemp)
trap 'rm -f "$types"' EXIT
mypy >"$types" 2>&1 &
checking=$!
tested=0
pytest -n 2 --dist worksteal "$@" || tested=$?
wait "$checking" || { cat "$types"; exit 1; }
cat "$types"
exit "$tested"
