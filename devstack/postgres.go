package devstack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	superuser = "postgres"
	database  = "tallystick" // made at the first start, owned by the superuser
)

func postgresURL(port int, database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", superuser, port, database)
}

// postgresDefaults suit a small development machine. fsync and full_page_writes stay on: an acknowledged write that
// was lost would make every measurement and every fault test worthless.
var postgresDefaults = map[string]string{
	"listen_addresses":     "127.0.0.1",
	"max_connections":      "200",
	"shared_buffers":       "256MB",
	"effective_cache_size": "1GB",
	"wal_buffers":          "16MB",
	"max_wal_size":         "2GB",
	"checkpoint_timeout":   "15min",
	"random_page_cost":     "1.1",
	"jit":                  "off",
	"fsync":                "on",
	"full_page_writes":     "on",
	"synchronous_commit":   "on",
	"timezone":             "UTC",
	"log_timezone":         "UTC",
	"lc_messages":          "C",
	"log_destination":      "stderr",
	"logging_collector":    "off",
	"log_line_prefix":      "%m [%p] %u@%d ",
}

// startPostgres starts Postgres with the data in Dir/postgres, which it makes if need be, and makes the database.
func startPostgres(ctx context.Context, st *Stack, bin postgresBin, user *dropUser, settings map[string]string, ports *picker) (*Server, error) {
	data := filepath.Join(st.Dir, "postgres")
	if err := initdb(ctx, st, bin, user, data); err != nil {
		return nil, err
	}
	all := maps.Clone(postgresDefaults)
	maps.Copy(all, settings)
	// Every backend shows the cluster's name in its title: that is how its processes are found, for each of them leads
	// a process group of its own.
	all["cluster_name"] = clusterName(data)

	srv, err := startServer(ctx, st, "Postgres", ports, []portField{postgresPort}, func(p []int) (spec, error) {
		// A path for a Unix socket is limited to about a hundred bytes, which a deep directory exceeds: TCP only.
		args := []string{"-D", data, "-k", "", "-p", strconv.Itoa(p[0])}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			args = append(args, "-c", name+"="+all[name])
		}
		return spec{
			command: func() *exec.Cmd {
				return command(data, filepath.Join(bin.dir, "postgres"), args...)
			},
			user: user,
			// Immediate shutdown: the postmaster takes its backends with it. The next start recovers.
			orphaned: syscall.SIGQUIT,
			probe: func(ctx context.Context, _ int) error {
				return probePostgres(ctx, p[0], data)
			},
			members:       postgresMembers(data),
			beforeRestart: func() error { return removePostmasterPid(data) },
			stop:          []stopStep{{syscall.SIGINT, 20 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}},
			stopNow:       []stopStep{{syscall.SIGQUIT, 5 * time.Second}},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	if err := makeDatabase(ctx, ports.used().Postgres); err != nil {
		return srv, err
	}
	return srv, nil
}

// initdb makes the data directory unless it is there. It is made under another name first, so that one that was
// interrupted is never taken for a whole one.
func initdb(ctx context.Context, st *Stack, bin postgresBin, user *dropUser, data string) error {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		return ownBy(data, user)
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at the data of Postgres: %w", err)
	}
	began := time.Now()
	fresh := data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove an unfinished data directory of Postgres: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("make the data directory of Postgres: %w", err)
	}
	if err := ownBy(fresh, user); err != nil {
		return err
	}
	logPath := filepath.Join(st.Dir, "log", "initdb.log")
	log, err := openLog(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := command(fresh, filepath.Join(bin.dir, "initdb"),
		"-N", "--auth=trust", "-U", superuser, "-E", "UTF8", "--locale=C", "-D", fresh)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr(user, syscall.SIGKILL)
	if err := startBound(cmd); err != nil {
		return fmt.Errorf("start initdb: %w", err)
	}
	stopWatching := context.AfterFunc(ctx, func() { signalGroup(cmd.Process.Pid, syscall.SIGKILL) })
	defer stopWatching()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("run initdb: %w", ctx.Err())
		}
		said, _ := os.ReadFile(logPath) // the error itself matters more than what we fail to quote
		return fmt.Errorf("run initdb: %w: %s", err, strings.TrimSpace(string(said)))
	}
	if err := os.Rename(fresh, data); err != nil {
		return fmt.Errorf("put the data directory of Postgres in place: %w", err)
	}
	st.log.printf("Postgres %d data directory made in %d ms", bin.major, time.Since(began).Milliseconds())
	return nil
}

// ownBy gives dir and what is in it to user, if it is not theirs. A nil user changes nothing.
func ownBy(dir string, user *dropUser) error {
	if user == nil {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the data of Postgres: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == user.uid {
		return nil
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(user.uid), int(user.gid))
	})
	if err != nil {
		return fmt.Errorf("give the data of Postgres to user %s: %w", user.name, err)
	}
	return nil
}

// connect connects to the database postgres as the superuser, with no settings from PGOPTIONS and the like.
func connect(ctx context.Context, port int) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(postgresURL(port, "postgres"))
	if err != nil {
		return nil, fmt.Errorf("read the URL of Postgres: %w", err)
	}
	config.RuntimeParams = map[string]string{"application_name": "tallystick devstack"}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return conn, nil
}

// probePostgres returns nil if a Postgres with the data directory data answers on port.
func probePostgres(ctx context.Context, port int, data string) error {
	conn, err := connect(ctx, port)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var has string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&has); err != nil {
		return fmt.Errorf("ask Postgres for its data directory: %w", err)
	}
	if has != data {
		return fmt.Errorf("the Postgres on port %d is another one, with its data in %s", port, has)
	}
	return nil
}

// makeDatabase makes the database unless it is there.
func makeDatabase(ctx context.Context, port int) error {
	conn, err := connect(ctx, port)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&exists); err != nil {
		return fmt.Errorf("look for the database %s: %w", database, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize()); err != nil {
		return fmt.Errorf("make the database %s: %w", database, err)
	}
	return nil
}

// clusterName names the cluster with its data in data, the same at every start.
func clusterName(data string) string {
	return fmt.Sprintf("tallystick-%x", sha256.Sum256([]byte(data)))[:len("tallystick-")+16]
}

// postgresMembers lists the postmaster and the backends of the cluster with its data in data, also when the postmaster
// has gone.
func postgresMembers(data string) func() ([]int, error) {
	name := clusterName(data)
	return func() ([]int, error) {
		lines, err := commandLines()
		if err != nil {
			return nil, err
		}
		var pids []int
		for pid, line := range lines {
			if strings.Contains(line, name) && (strings.HasPrefix(line, "postgres:") || strings.Contains(line, "/postgres -D ")) {
				pids = append(pids, pid)
			}
		}
		return pids, nil
	}
}

// removePostmasterPid removes the lock file of a postmaster that was killed. The caller has made sure that no process
// of the cluster lives; Postgres itself only looks whether the number in the file is in use, by whatever program.
func removePostmasterPid(data string) error {
	if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the lock file of a killed Postgres: %w", err)
	}
	return nil
}

// command is a command with an environment that does not depend on the caller's: neither PGDATA nor TEMPORAL_ADDRESS
// nor a locale may change what a server does. dir is its working directory and home.
func command(dir, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + dir,
		"TMPDIR=" + os.TempDir(),
		"LC_ALL=C",
		"TZ=UTC",
	}
	return cmd
}
