package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one keep-alive HTTP/1.1 connection, as thin as can be: what is measured is the server, and both share two cores.
type conn struct {
	c    net.Conn
	r    *bufio.Reader
	out  []byte
	body []byte
}

func dial(addr string) (*conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial the API: %w", err)
	}
	return &conn{c: c, r: bufio.NewReaderSize(c, 16<<10)}, nil
}

// do sends one request and reads its answer. The body returned is good until the next call.
func (c *conn) do(method, path string, headers []string, body []byte) (status int, answer []byte, err error) {
	b := append(c.out[:0], method...)
	b = append(append(append(b, ' '), path...), " HTTP/1.1\r\nHost: bench\r\n"...)
	for i := 0; i < len(headers); i += 2 {
		b = append(append(append(append(b, headers[i]...), ": "...), headers[i+1]...), '\r', '\n')
	}
	if body != nil {
		b = append(append(append(b, "Content-Type: application/json\r\nContent-Length: "...), strconv.Itoa(len(body))...), '\r', '\n')
	}
	b = append(append(b, '\r', '\n'), body...)
	c.out = b
	if _, err := c.c.Write(b); err != nil {
		return 0, nil, fmt.Errorf("send request: %w", err)
	}
	return c.read()
}

var errMalformed = errors.New("malformed answer")

func (c *conn) read() (status int, body []byte, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	if len(line) < 12 {
		return 0, nil, errMalformed
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, errMalformed
	}
	length := -1
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, fmt.Errorf("read header: %w", err)
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, nil, errMalformed
			}
		}
	}
	if length < 0 {
		return 0, nil, fmt.Errorf("%w: no Content-Length", errMalformed)
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return 0, nil, fmt.Errorf("read body: %w", err)
	}
	return status, c.body, nil
}

// figures are what a run came to.
type figures struct {
	events  int
	elapsed time.Duration
	lat     []time.Duration // sorted
}

func (f figures) rate() float64 { return float64(f.events) / f.elapsed.Seconds() }

func (f figures) at(q float64) time.Duration { return f.lat[int(float64(len(f.lat)-1)*q)] }

func (f figures) String() string {
	return fmt.Sprintf("%9.0f/s   p50 %6.2f ms   p99 %6.2f ms   max %7.2f ms", f.rate(), ms(f.at(0.5)), ms(f.at(0.99)), ms(f.at(1)))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// merge makes one of several runs.
func merge(runs []figures) figures {
	var f figures
	for _, r := range runs {
		f.events += r.events
		f.elapsed += r.elapsed
		f.lat = append(f.lat, r.lat...)
	}
	slices.Sort(f.lat)
	return f
}

// run has clients call work for a while and times every call. work is given its client and a number that no other call gets.
func run(clients int, warmUp, measure time.Duration, work func(client int, n int64) error) (figures, error) {
	var (
		wg       sync.WaitGroup
		next     atomic.Int64
		failed   atomic.Pointer[error]
		lat      = make([][]time.Duration, clients)
		began    = time.Now()
		from, to = began.Add(warmUp), began.Add(warmUp + measure)
	)
	for k := range clients {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<16)
			for failed.Load() == nil {
				start := time.Now()
				if start.After(to) {
					break
				}
				if err := work(k, next.Add(1)); err != nil {
					failed.Store(&err)
					break
				}
				if end := time.Now(); start.After(from) && end.Before(to) {
					mine = append(mine, end.Sub(start))
				}
			}
			lat[k] = mine
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return figures{}, *err
	}
	f := figures{elapsed: measure, lat: slices.Concat(lat...)}
	slices.Sort(f.lat)
	if f.events = len(f.lat); f.events == 0 {
		return f, errors.New("nothing was measured")
	}
	return f, nil
}
