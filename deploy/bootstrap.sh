#!/bin/sh
# Installs what "make run" and "make test" need and this machine does not have: Postgres, Redis and the Temporal CLI.
# "bootstrap.sh checkers" installs hledger, Ledger and Beancount too, which check exports in tests.
# It does nothing, and says nothing, when all of them are there. Servers that it installs are not started and not
# enabled: the development stack runs private ones.
set -eu
cd "$(dirname "$0")/.."

bin=.tallystick/bin
checkers=no
[ "${1:-}" != checkers ] || checkers=yes

say() { printf 'bootstrap: %s\n' "$*"; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# as_root runs a command as root. Without a terminal sudo must not ask for a password.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

# The same places as devstack looks in.
has_postgres() {
	has postgres && return 0
	for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		/opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
		/opt/homebrew/opt/postgresql/bin /usr/local/opt/postgresql/bin; do
		if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then
			return 0
		fi
	done
	return 1
}

has_redis() {
	has redis-server && return 0
	has valkey-server && return 0
	for dir in /usr/bin /usr/local/bin /opt/homebrew/bin /opt/homebrew/opt/redis/bin /usr/local/opt/redis/bin; do
		if [ -x "$dir/redis-server" ] || [ -x "$dir/valkey-server" ]; then
			return 0
		fi
	done
	return 1
}

has_checkers() { [ "$checkers" = no ] || { has hledger && has ledger && has bean-check; }; }

has_temporal() { [ -x "$bin/temporal" ] || has temporal; }

# apt_install installs packages without starting the services in them: the packages ask policy-rc.d, and one that says
# no is put there for the time being, unless the machine has its own.
apt_install() {
	policy=/usr/sbin/policy-rc.d
	ours=no
	if [ ! -e "$policy" ]; then
		ours=yes
		trap 'as_root rm -f "$policy"' EXIT
		trap 'exit 130' INT TERM
		as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$0" && chmod 755 "$0"' "$policy"
	fi
	say "apt-get update"
	as_root apt-get -qq update || say "apt-get update failed, going on with the lists that are there"
	say "apt-get install $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
	if [ "$ours" = yes ]; then
		as_root rm -f "$policy"
		trap - EXIT INT TERM
	fi
	if [ -d /run/systemd/system ]; then
		for package in "$@"; do
			case $package in postgresql | redis-server) ;; *) continue ;; esac
			say "systemctl disable $package (it would start at the next boot)"
			as_root systemctl disable --quiet "$package" || say "$package stays enabled"
		done
	fi
}

has go || die "Go is not installed: see https://go.dev/doc/install"

packages=
has_postgres || packages=postgresql
has_redis || packages="$packages redis"
has_checkers || packages="$packages hledger ledger beancount"
if [ -n "$packages" ]; then
	say "not installed: $packages"
	if has apt-get; then
		if [ "$(id -u)" != 0 ] && ! has sudo; then
			die "run as root: apt-get install $(echo "$packages" | sed 's/redis/redis-server/')"
		fi
		# shellcheck disable=SC2046,SC2086 # one word per package
		apt_install $(echo $packages | sed 's/redis/redis-server/')
	elif has brew; then
		has_temporal || packages="$packages temporal"
		# shellcheck disable=SC2046,SC2086
		set -- $(echo $packages | sed 's/postgresql/postgresql@17/')
		say "brew install $*"
		brew install "$@"
	else
		die "install them with this system's package manager: $packages"
	fi
	has_postgres || die "postgres is still not to be found"
	has_redis || die "redis-server is still not to be found"
	has_checkers || die "hledger, ledger or bean-check is still not to be found"
fi

# The Temporal CLI, with the development server in it, is built at the version in tools/temporal/go.mod.
wanted=$(cksum <tools/temporal/go.mod)
if [ -x "$bin/temporal" ]; then
	[ -e "$bin/temporal.built-from" ] || echo "$wanted" >"$bin/temporal.built-from"
	[ "$(cat "$bin/temporal.built-from")" = "$wanted" ] && exit 0
elif has temporal; then
	exit 0
fi
say "building the Temporal development server, once: 2 to 4 minutes on two cores"
mkdir -p "$bin"
began=$(date +%s)
(while sleep 20; do say "still building after $(($(date +%s) - began)) s"; done) &
beat=$!
trap 'kill "$beat" 2>/dev/null || :' EXIT
trap 'exit 130' INT TERM
nice go build -modfile=tools/temporal/go.mod -ldflags "-s -w" -o "$bin/temporal.new" github.com/temporalio/cli/cmd/temporal
mv "$bin/temporal.new" "$bin/temporal"
echo "$wanted" >"$bin/temporal.built-from"
say "built $bin/temporal in $(($(date +%s) - began)) s"
