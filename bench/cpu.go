package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// cpuTimes are the seconds of processor time that each part has used, where /proc tells; the load generator is this process.
type cpuTimes struct{ api, postgres, redis, clients float64 }

func (t cpuTimes) add(o cpuTimes) cpuTimes {
	return cpuTimes{t.api + o.api, t.postgres + o.postgres, t.redis + o.redis, t.clients + o.clients}
}

func (t cpuTimes) sub(o cpuTimes) cpuTimes {
	return cpuTimes{t.api - o.api, t.postgres - o.postgres, t.redis - o.redis, t.clients - o.clients}
}

// cpu reads them. ok is false where there is no /proc.
func (b *bench) cpu(ctx context.Context, conn *pgx.Conn) (t cpuTimes, ok bool) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return t, false
	}
	t.api, t.clients = cpuOf(b.apiPid), cpuOf(os.Getpid())
	rdb := redis.NewClient(&redis.Options{Addr: b.redis})
	defer rdb.Close()
	if info, err := rdb.InfoMap(ctx, "server").Result(); err == nil {
		pid, _ := strconv.Atoi(info["Server"]["process_id"])
		t.redis = cpuOf(pid)
	}
	postmaster := statField(int(conn.PgConn().PID()), 4)
	for _, pid := range childrenOf(postmaster) {
		t.postgres += cpuOf(pid)
	}
	return t, true
}

// statField returns a field of /proc/<pid>/stat, numbered as in its manual page; 0 when there is none.
func statField(pid, n int) int {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from field 3 on
	if n-3 >= len(fields) {
		return 0
	}
	v, _ := strconv.Atoi(fields[n-3])
	return v
}

// cpuOf returns the seconds that a process has run: user and system time, 100 ticks a second.
func cpuOf(pid int) float64 { return float64(statField(pid, 14)+statField(pid, 15)) / 100 }

func childrenOf(parent int) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && statField(pid, 4) == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}
