package devstack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// retention is how long the Temporal server keeps closed workflows; its own default for development is one day.
const retention = 30 * 24 * time.Hour

// startTemporal starts Temporal's development server, with its SQLite file in Dir/temporal and the web UI.
func startTemporal(ctx context.Context, st *Stack, bin string, o Options, ports *picker) (*Server, error) {
	dir := filepath.Join(st.Dir, "temporal")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of Temporal: %w", err)
	}
	fields := []portField{temporalGRPCPort, temporalUIPort, temporalHTTPPort}
	var namespaceURL string
	srv, err := startServer(ctx, st, "Temporal", ports, fields, func(p []int) (spec, error) {
		args := []string{
			"server", "start-dev",
			"--ip", "127.0.0.1",
			"--port", strconv.Itoa(p[0]),
			"--ui-port", strconv.Itoa(p[1]),
			"--http-port", strconv.Itoa(p[2]),
			"--db-filename", filepath.Join(dir, "temporal.db"),
			"--namespace", o.TemporalNamespace,
			"--log-level", "error",
		}
		for _, name := range slices.Sorted(maps.Keys(o.SearchAttributes)) {
			args = append(args, "--search-attribute", name+"="+o.SearchAttributes[name])
		}
		namespaceURL = fmt.Sprintf("http://127.0.0.1:%d/api/v1/namespaces/%s", p[2], url.PathEscape(o.TemporalNamespace))
		probeURL := namespaceURL
		return spec{
			command:  func() *exec.Cmd { return command(dir, bin, args...) },
			orphaned: syscall.SIGKILL,
			probe: func(ctx context.Context, _ int) error {
				return callTemporal(ctx, http.MethodGet, probeURL, nil)
			},
			stop:    []stopStep{{syscall.SIGTERM, 5 * time.Second}},
			stopNow: nil,
		}, nil
	})
	if err != nil || o.Ephemeral {
		return srv, err
	}
	body := fmt.Appendf(nil, `{"config": {"workflowExecutionRetentionTtl": "%ds"}}`, int(retention.Seconds()))
	if err := callTemporal(ctx, http.MethodPost, namespaceURL+"/update", body); err != nil {
		return srv, fmt.Errorf("set how long Temporal keeps closed workflows: %w", err)
	}
	return srv, nil
}

// callTemporal makes a request to Temporal's HTTP API and expects status 200.
func callTemporal(ctx context.Context, method, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make a request to Temporal: %w", err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	resp, err := temporalHTTP.Do(req)
	if err != nil {
		return fmt.Errorf("call Temporal: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // the status says enough if this fails
		return fmt.Errorf("call Temporal: %s: %s", resp.Status, bytes.TrimSpace(said))
	}
	return nil
}

// temporalHTTP ignores proxy settings: the server is on this machine.
var temporalHTTP = &http.Client{Transport: &http.Transport{}}
