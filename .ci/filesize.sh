#!/usr/bin/env bash
# A Go file has at most 500 lines; a longer one says why in a comment that begins with "// long:".
set -euo pipefail

lines_max=500
bad=0
while IFS= read -r -d '' file; do
	[ -f "$file" ] || continue
	lines=$(wc -l <"$file")
	if [ "$lines" -gt "$lines_max" ] && ! grep -q '^// long: ' "$file"; then
		echo "$file: $lines lines, $lines_max are allowed: split it, or say why not in a comment \"// long: …\"" >&2
		bad=1
	fi
done < <(git ls-files -z --cached --others --exclude-standard -- '*.go')
exit "$bad"
