#!/usr/bin/env bash
# Everything that must hold before a change lands: style, types, the contract of layers, and the tests.
# Extra arguments go to pytest, for example: ./check.sh tests/ops -x, or -n 8 where there are more cores than two.
set -euo pipefail
cd "$(dirname "$0")"
ruff check .
ruff format --check .
mypy
lint-imports
pytest -n 2 --dist worksteal "$@"
