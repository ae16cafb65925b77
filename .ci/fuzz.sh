#!/usr/bin/env bash
# Runs each fuzz target of the repository in turn. Usage: fuzz.sh DURATION
set -euo pipefail

duration=${1:-20s}
count=0
while IFS=: read -r file target; do
	echo "fuzz: $target in ${file%/*}, $duration" >&2
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "./${file%/*}" </dev/null
	count=$((count + 1))
done < <(git grep -oE '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | sed 's/:func /:/')
if [ "$count" -eq 0 ]; then
	echo "fuzz: no fuzz target anywhere" >&2
	exit 1
fi
