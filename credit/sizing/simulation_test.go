package sizing_test

import (
	"container/heap"
	"encoding/csv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit/sizing"
)

// answer is a request and how many tokens a model wrote for it.
type answer struct {
	at       time.Time
	customer int
	tokens   int64
}

// What is simulated: customers who get so many tokens to begin with and again every five minutes, about what they use in that time and a tenth; and
// answers that come at so many tokens a second.
const (
	someCustomers = 60
	share         = 1.1
	every         = 5 * time.Minute
	maxTokens     = 4096
	perSecond     = 30
)

// traced reads when the conversations of the Azure LLM inference trace 2023 came and how long their answers were, and deals them to customers; nil when
// it is not there.
func traced(t *testing.T) (out []answer) {
	t.Helper()
	shared := os.Getenv("TALLYSTICK_SHARED")
	for dir, _ := os.Getwd(); shared == "" && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "shared")); err == nil {
			shared = filepath.Join(dir, "shared")
		}
	}
	f, err := os.Open(filepath.Join(shared, "data", "azure-llm-2023", "AzureLLMInferenceTrace_conv.csv"))
	if err != nil {
		return nil
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, r := range rows[1:] {
		when, err1 := time.Parse("2006-01-02 15:04:05.9999999", r[0])
		n, err2 := strconv.ParseInt(r[2], 10, 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%v", r)
		}
		out = append(out, answer{when, rnd.IntN(someCustomers), max(1, min(n, maxTokens))})
	}
	return out
}

// made is a stand-in: five requests a second for an hour, answers of about 150 tokens, a few of thousands.
func made() (out []answer) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for when := at; when.Before(at.Add(time.Hour)); when = when.Add(time.Duration(rnd.ExpFloat64() * float64(200*time.Millisecond))) {
		out = append(out, answer{when, rnd.IntN(someCustomers), max(1, min(int64(150*math.Exp(0.9*rnd.NormFloat64())), maxTokens))})
	}
	return out
}

// outcome is what a way of holding came to. A refusal, or the cut of an answer that had begun, is false when the customer had enough for this answer and
// all others under way.
type outcome struct {
	served, refused, falselyRefused, cut, falselyCut, extended int
	overspent                                                  int64
	held                                                       float64 // on the average, over what the answer took
}

// stream is an answer under way: what is held for it, and what it has taken when next something happens to it.
type stream struct {
	answer
	held int64
	next time.Time
}

type streams []*stream

func (s streams) Len() int           { return len(s) }
func (s streams) Less(i, j int) bool { return s[i].next.Before(s[j].next) }
func (s streams) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *streams) Push(x any)        { *s = append(*s, x.(*stream)) }
func (s *streams) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// simulate plays answers in order, with holds of the maximum, or of what is suggested, extended by a half while the answer comes.
func simulate(answers []answer, adaptive bool) (o outcome) {
	var balance, held, need [someCustomers]int64 // what is left, what of it is held, and what the answers under way will take
	var own [someCustomers]sizing.Histogram
	var all sizing.Histogram
	var used int64
	for _, a := range answers {
		used += a.tokens
	}
	allowance := int64(share * float64(used) / someCustomers * float64(every) / float64(answers[len(answers)-1].at.Sub(answers[0].at)))
	due := answers[0].at
	var under streams
	plan := func(s *stream) {
		heap.Push(&under, s)
	}
	after := func(s *stream, tokens int64) time.Time {
		return s.at.Add(time.Duration(tokens) * time.Second / perSecond)
	}
	end := func(s *stream, took int64) {
		c := s.customer
		balance[c] -= took
		held[c] -= s.held
		need[c] -= s.tokens
		o.overspent += max(0, -balance[c])
		o.held += float64(s.held) / float64(took)
		own[c].Add(s.next, took)
		all.Add(s.next, took)
	}
	step := func() { // an answer is complete, or has used what is held
		s := heap.Pop(&under).(*stream)
		c := s.customer
		if s.held >= s.tokens {
			o.served++
			end(s, s.tokens)
			return
		}
		if more := max(32, s.held/2); balance[c]-held[c] >= more {
			o.extended++
			s.held += more
			held[c] += more
			s.next = after(s, min(s.held, s.tokens))
			plan(s)
			return
		}
		o.cut++
		if balance[c]-need[c] >= 0 {
			o.falselyCut++
		}
		end(s, s.held)
	}
	for _, a := range answers {
		for ; !due.After(a.at); due = due.Add(every) {
			for c := range balance {
				balance[c] += allowance
			}
		}
		for len(under) > 0 && !under[0].next.After(a.at) {
			step()
		}
		c, size := a.customer, int64(maxTokens)
		if adaptive {
			const q = 0.95
			for _, h := range []*sizing.Histogram{&own[c], &all} {
				if sizing.Enough(h.Samples(a.at), q) {
					size = min(size, h.Quantile(q))
					break
				}
			}
		}
		if balance[c]-held[c] < size {
			o.refused++
			if balance[c]-need[c] >= a.tokens {
				o.falselyRefused++
			}
			continue
		}
		held[c] += size
		need[c] += a.tokens
		s := &stream{answer: a, held: size}
		s.next = after(s, min(size, a.tokens))
		plan(s)
	}
	for len(under) > 0 {
		step()
	}
	return o
}

// Holds of what is suggested, extended while the answer comes, refuse far fewer who can pay than holds of the most that a model may write, and
// nobody spends more than there is.
func TestHoldsOfASuggestedSize(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string][]answer{"made up": made(), "Azure conversation": traced(t)} {
		if answers == nil {
			t.Logf("%s: the trace is not there", name)
			continue
		}
		most, adaptive := simulate(answers, false), simulate(answers, true)
		for how, o := range map[string]outcome{"of the maximum": most, "suggested": adaptive} {
			t.Logf("%-18s %-14s %5d answers: %5d served, %4d refused (%3d falsely), %3d cut (%d falsely), %4d extensions, held %.1f times what was used, overspent %d",
				name, how, len(answers), o.served, o.refused, o.falselyRefused, o.cut, o.falselyCut, o.extended, o.held/float64(o.served+o.cut), o.overspent)
			if o.overspent != 0 || o.served+o.refused+o.cut != len(answers) {
				t.Errorf("%s, %s: %+v", name, how, o)
			}
		}
		if 2*(adaptive.falselyRefused+adaptive.falselyCut) > most.falselyRefused {
			t.Errorf("%s: %+v, and with the maximum %+v", name, adaptive, most)
		}
	}
}
