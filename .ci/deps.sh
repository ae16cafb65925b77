#!/usr/bin/env bash
# Installs the Debian packages that are missing. Usage: deps.sh [build|bpf|demo|bench|test]...
# One dpkg-query when nothing is missing.
set -euo pipefail

declare -A packages=(
	[build]="gcc libc6-dev libopencore-amrnb-dev libopencore-amrwb-dev libmp3lame-dev libopus-dev libopusfile-dev pkg-config"
	[bpf]="clang llvm libbpf-dev gcc"
	[demo]="espeak-ng"
	[bench]="rtpengine-daemon iproute2 util-linux"
	[test]="postgresql sip-tester kamailio baresip-core linphone-cli espeak-ng ffmpeg flac tcpdump tshark opus-tools sox iproute2 softhsm2 unzip openssl"
)

wanted=()
for group in "${@:-build}"; do
	if [ -z "${packages[$group]:-}" ]; then
		echo "deps: no group \"$group\"; there are: ${!packages[*]}" >&2
		exit 2
	fi
	read -ra names <<<"${packages[$group]}"
	wanted+=("${names[@]}")
done

if ! command -v go >/dev/null; then
	echo "deps: Go 1.26 or newer is needed and is not in PATH: https://go.dev/dl" >&2
	exit 1
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	# Only what the build itself cannot do without stops it here.
	if command -v pkg-config >/dev/null && pkg-config --exists opus opusfile opencore-amrnb opencore-amrwb; then
		exit 0
	fi
	cat >&2 <<-TEXT
		deps: this is no Debian machine, so nothing was installed. What is needed, by its Debian names:
		  to build: a C compiler, pkg-config, and the headers of libopus, libopusfile, opencore-amr and libmp3lame
		  for the demo: espeak-ng (without it the demo uses tones)
		  for the tests: ${packages[test]} (a test whose peer is missing says so and is skipped)
	TEXT
	exit 1
fi

# dpkg-query leaves out, or prints as "un" or "rc", what is not installed.
have=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "${wanted[@]}" 2>/dev/null | awk '$2 == "ii" {print $1}') || true
missing=()
for name in "${wanted[@]}"; do
	grep -qxF -- "$name" <<<"$have" || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: missing: ${missing[*]}" >&2
		echo "deps: there is no sudo here; run as root: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	root=(sudo)
fi

apt() {
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"
}

echo "deps: installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "deps: could not install ${missing[*]}; see above" >&2
	exit 1
fi

# Debian starts what it installs; benchmark and tests start their own, on other ports.
for name in rtpengine-daemon kamailio; do
	if [[ " ${missing[*]} " == *" $name "* ]] && [ -d /run/systemd/system ]; then
		"${root[@]}" systemctl disable --quiet --now "$name.service"
	fi
done
