#!/bin/sh
# Checks the protocol in every configuration, which must show errors=0, and then every mutation, which must show errors=1. Exits with 1 when
# one does not. About 5 to 10 minutes, 2 GB of memory.
set -u
cd "$(dirname "$0")" || exit 2
failed=0

expect() { # expect ERRORS CONFIGURATION [FLAG ...]
	want=$1
	shift
	line=$(./run.sh "$@")
	echo "$line"
	case $line in
	*" errors=$want "*) ;;
	*)
		echo "^ expected errors=$want"
		failed=1
		;;
	esac
}

echo "== the protocol"
expect 0 RETRY
expect 0 RETRY2
expect 0 UNKNOWN
expect 0 CACHEDUP -DREDISF=2
expect 0 CACHE -DREDISF=2
echo "== one rule removed"
expect 1 CACHE -DREDISF=2 -DM_REDIS_DECIDES # what Redis says is carried out, Postgres does not look
expect 1 CACHE -DREDISF=2 -DM_REDIS_VETO    # Redis refuses, Postgres only guards against overspending
expect 1 CACHEDUP -DREDISF=2 -DM_IDEM_REDIS # idempotency keys are kept in Redis only
expect 1 RETRY2 -DM_STALE_READ              # the balance is read before the lock, or in the same statement
expect 1 UNKNOWN -DM_ACK_EARLY              # the answer is given before COMMIT has returned
expect 1 UNKNOWN -DM_ASYNC_REPL             # the standby is asynchronous
expect 1 UNKNOWN -DM_CANCEL_ACK             # a COMMIT with the warning "canceling wait" is believed
expect 1 RETRY2 -DM_REPLAY_NOFENCE          # a replay is answered from a plain read
expect 1 RETRY2 -DM_NO_DENY_ROW             # refusals are not kept under their key
expect 1 CACHE -DREDISF=2 -DM_NO_VER_CMP    # a load does not compare versions
expect 1 CACHE -DREDISF=2 -DM_NO_EPOCH      # versions are compared without the timeline
exit $failed
