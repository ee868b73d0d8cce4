#!/bin/sh
# run.sh CONFIGURATION [-DM_MUTATION] [-DREDISF=N]: explores one configuration of consume.pml to its end and prints one line: errors, states,
# depth, seconds, and the invariant that broke. With TRAIL=60 in the environment the last 60 steps of the counter-example follow.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
configuration=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/consume.pml" "$work"
cd "$work"
spin -a "-DCFG_$configuration" "$@" consume.pml >spin.log 2>&1 || { cat spin.log >&2; exit 2; }
cc -O2 -DSAFETY -DCOLLAPSE "-DMEMLIM=${MEMLIM:-12000}" -o pan pan.c
began=$(date +%s)
status=0
./pan -m100000 -w26 >out 2>&1 || status=$?
number() { sed -n "s/.*$1.*/\1/p" out | head -n 1; }
printf '%-9s %-30s errors=%s states=%s depth=%s %ss %s\n' "$configuration" "${*:-}" "$(number 'errors: \([0-9]*\)')" \
	"$(number ' \([0-9]*\) states, stored')" "$(number 'depth reached \([0-9]*\)')" $(($(date +%s) - began)) \
	"$(grep -m1 -o 'assertion violated.*' out | cut -c1-100 || :)"
if grep -qE 'max search depth too small|out of memory|reached -DMEMLIM' out; then
	echo "not explored to the end:" >&2
	cat out >&2
	exit 1
fi
if [ -n "${TRAIL:-}" ] && [ -f consume.pml.trail ]; then
	spin -t -p "-DCFG_$configuration" "$@" consume.pml | tail -n "$TRAIL"
fi
exit "$status"
