#!/usr/bin/env bash
# Asks a running `lime-edge serve` with curl: examples/serve_client.sh [URL] [MODEL] [API_KEY]
set -euo pipefail
url=${1:-http://127.0.0.1:8000} model=${2:-router} key=${3:-any}

ask() { curl --silent --show-error --fail-with-body --no-buffer -H "Authorization: Bearer $key" -H "Content-Type: application/json" "$@"; echo; }

ask "$url/health"
ask "$url/v1/models"
ask "$url/v1/chat/completions" -d '{"model": "'"$model"'", "messages": [{"role": "user", "content": "what can I cook with leeks"}]}'
ask "$url/v1/chat/completions" -d '{"model": "'"$model"'", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 40,
  "messages": [{"role": "user", "content": "my flight was cancelled, find me another one"}]}'
ask "$url/tokenize" -d '{"model": "'"$model"'", "prompt": "what can I cook with leeks"}'
