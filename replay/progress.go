package replay

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows how far a run is: a bar that is drawn again and again on a terminal, elsewhere a line for each tenth.
type progress struct {
	run     *run
	began   time.Time
	columns int // of the terminal; 0: there is none
	tenths  int
	stop    func()
}

func (r *run) progress(began time.Time) *progress {
	p := &progress{run: r, began: began, columns: Columns(r.Out)}
	p.stop = Repaint(p.show)
	return p
}

// Repaint calls show ten times a second until stop is called; after that it is called no more.
func Repaint(show func()) (stop func()) {
	ended := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				show()
			}
		}
	})
	return func() {
		close(ended)
		done.Wait()
	}
}

// end shows where the run ended.
func (p *progress) end() {
	p.stop()
	p.tenths = -1
	p.show()
	if p.columns > 0 {
		fmt.Fprintln(p.run.Out)
	}
}

func (p *progress) show() {
	done, all := int(p.run.sent.Load()), p.run.Trace.Events
	took := time.Since(p.began)
	text := fmt.Sprintf("%3d %%  %d of %d events", done*100/all, done, all)
	if took > 0 {
		text += fmt.Sprintf("  %d/s", int64(done)*int64(time.Second)/int64(took))
	}
	if n := p.run.refused.Load(); n > 0 {
		text += fmt.Sprintf("  %d refused", n)
	}
	if done > 0 && done < all {
		text += fmt.Sprintf("  %s left", (took * time.Duration(all-done) / time.Duration(done)).Round(time.Second))
	}
	if p.columns == 0 {
		if tenths := done * 10 / all; tenths != p.tenths {
			fmt.Fprintln(p.run.Out, text)
			p.tenths = tenths
		}
		return
	}
	if width := min(30, p.columns-65); width >= 10 {
		full := width * done / all
		text = "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "] " + text
	}
	fmt.Fprintf(p.run.Out, "\r\x1b[K%.*s", p.columns-1, text)
}

// Columns returns how wide a terminal is; 0 when w is none.
func Columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Col == 0: // it does not say
		return 80
	}
	return int(size.Col)
}
