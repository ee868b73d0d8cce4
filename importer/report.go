package importer

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tallystick/tallystick/replay"
)

// Write prints the table of outcomes.
func (r *Report) Write(to io.Writer) error {
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "outcome\tevents\t")
	for _, name := range slices.Sorted(maps.Keys(r.Outcomes)) {
		fmt.Fprintf(t, "%s\t%d\t\n", name, r.Outcomes[name])
		for _, reason := range slices.Sorted(maps.Keys(r.Reasons)) {
			if code, its := strings.CutPrefix(reason, name+" "); its {
				fmt.Fprintf(t, "%s\t%d\t\n", code, r.Reasons[reason])
			}
		}
	}
	fmt.Fprintf(t, "all\t%d\t\n", r.Events)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, unit := range slices.Sorted(maps.Keys(r.Credits)) {
		fmt.Fprintf(to, "%s %s consumed\n", r.Credits[unit], unit)
	}
	_, err := fmt.Fprintf(to, "%d events in %s", r.Events-r.Resumed, r.Took.Round(time.Millisecond))
	if s := r.Took.Seconds(); err == nil && s > 0 {
		_, err = fmt.Fprintf(to, ", %.0f a second", float64(r.Events-r.Resumed)/s)
	}
	if r.Resumed > 0 && err == nil {
		_, err = fmt.Fprintf(to, "; %d had their outcome before", r.Resumed)
	}
	if err == nil {
		_, err = fmt.Fprintln(to)
	}
	return err
}

// progress shows how far an import is: a bar on a terminal, elsewhere a line for each tenth of the file.
type progress struct {
	cfg     Config
	k       *checkpoint
	began   time.Time
	from    int64 // events that were there before
	columns int   // of the terminal; 0: there is none
	tenths  int64
	stop    func()
}

func newProgress(cfg Config, k *checkpoint) *progress {
	p := &progress{cfg: cfg, k: k, began: time.Now(), from: k.noted.Load(), columns: replay.Columns(cfg.Out)}
	p.stop = replay.Repaint(p.show)
	return p
}

func (p *progress) end() {
	p.stop()
	p.tenths = -1
	p.show()
	if p.columns > 0 {
		fmt.Fprintln(p.cfg.Out)
	}
}

func (p *progress) show() {
	read, size, events := p.cfg.File.Read(), max(p.cfg.File.Size, 1), p.k.noted.Load()
	took := time.Since(p.began)
	text := fmt.Sprintf("%3d %% read  %d events", read*100/size, events)
	if took > 0 {
		text += fmt.Sprintf("  %d/s", (events-p.from)*int64(time.Second)/int64(took))
	}
	if p.columns == 0 {
		if tenths := read * 10 / size; tenths != p.tenths {
			fmt.Fprintln(p.cfg.Out, text)
			p.tenths = tenths
		}
		return
	}
	if width := min(30, p.columns-45); width >= 10 {
		full := int(int64(width) * read / size)
		text = "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "] " + text
	}
	fmt.Fprintf(p.cfg.Out, "\r\x1b[K%.*s", p.columns-1, text)
}
