package devstack

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// Ports are picked below 32768. Above it the kernel gives the same numbers to outgoing connections, and Temporal on
// Postgres cannot store its membership port.
const (
	lowestPort  = 15000
	highestPort = 32767
)

// usualPorts are tried first for development, so that URLs stay the same from clone to clone.
var usualPorts = Ports{Postgres: 15432, Redis: 16379, TemporalGRPC: 7233, TemporalUI: 8233, TemporalHTTP: 7243}

func portsFile(dir string) string { return filepath.Join(dir, "ports.json") }

// loadPorts returns the ports used last in dir; the usual ones if there are none, and zeros for an ephemeral stack.
func loadPorts(dir string, ephemeral bool) (Ports, error) {
	if ephemeral {
		return Ports{}, nil
	}
	b, err := os.ReadFile(portsFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return usualPorts, nil
	}
	if err != nil {
		return Ports{}, fmt.Errorf("read the ports used last: %w", err)
	}
	last := usualPorts
	if err := json.Unmarshal(b, &last); err != nil {
		return Ports{}, fmt.Errorf("read the ports used last from %s: %w", portsFile(dir), err)
	}
	return last, nil
}

// savePorts remembers the ports in use, and those of servers that were not started this time.
func savePorts(dir string, used Ports) error {
	b, err := json.MarshalIndent(used, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the ports: %w", err)
	}
	if err := os.WriteFile(portsFile(dir), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("save the ports: %w", err)
	}
	return nil
}

// picker hands out ports for one stack.
type picker struct {
	mu  sync.Mutex
	now Ports
	log *progress
}

// newPicker prefers the ports in wanted to those in last; 0 in both means any.
func newPicker(last, wanted Ports, log *progress) *picker {
	p := &picker{now: last, log: log}
	for _, f := range portFields {
		if w := *f.of(&wanted); w != 0 {
			*f.of(&p.now) = w
		}
	}
	return p
}

type portField struct {
	name string
	of   func(*Ports) *int
}

var (
	postgresPort     = portField{"Postgres", func(p *Ports) *int { return &p.Postgres }}
	redisPort        = portField{"Redis", func(p *Ports) *int { return &p.Redis }}
	temporalGRPCPort = portField{"Temporal", func(p *Ports) *int { return &p.TemporalGRPC }}
	temporalUIPort   = portField{"Temporal UI", func(p *Ports) *int { return &p.TemporalUI }}
	temporalHTTPPort = portField{"Temporal HTTP API", func(p *Ports) *int { return &p.TemporalHTTP }}

	portFields = []portField{postgresPort, redisPort, temporalGRPCPort, temporalUIPort, temporalHTTPPort}
)

// pick returns a port for f that nothing listened on a moment ago: the one it has, or another.
func (p *picker) pick(f portField) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	has := f.of(&p.now)
	if *has != 0 && portFree(*has) && claim(*has) {
		return *has, nil
	}
	for range 200 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if !portFree(port) || !claim(port) {
			continue
		}
		if *has != 0 {
			p.log.printf("port %d for %s is taken, using %d", *has, f.name, port)
		}
		*has = port
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d for %s", lowestPort, highestPort, f.name)
}

func (p *picker) used() Ports {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// portFree reports whether a server could listen on port now.
func portFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// claimed are the ports that stacks of this process have picked: between a pick and the server's listen another stack
// must not pick the same one.
var claimed = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

func claim(port int) bool {
	claimed.Lock()
	defer claimed.Unlock()
	if claimed.ports[port] {
		return false
	}
	claimed.ports[port] = true
	return true
}

// unclaim gives ports free for a later pick; the server that had them has ended.
func unclaim(ports ...int) {
	claimed.Lock()
	defer claimed.Unlock()
	for _, port := range ports {
		delete(claimed.ports, port)
	}
}
