package forecast_test

import (
	"encoding/csv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit/forecast"
)

// sizes are what single requests consume, to draw from.
type sizes []float64

// made is a stand-in for a trace: most requests are small, a few very large.
func made() sizes {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make(sizes, 20_000)
	for i := range out {
		out[i] = math.Round(600 * math.Exp(1.1*rnd.NormFloat64()))
	}
	return out
}

// traced reads the requests of the Azure LLM inference trace 2023, an answer's token counting for four of its context; nil when it is not there.
func traced(t testing.TB, name string) (out sizes) {
	t.Helper()
	shared := os.Getenv("TALLYSTICK_SHARED")
	for dir, _ := os.Getwd(); shared == "" && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "shared")); err == nil {
			shared = filepath.Join(dir, "shared")
		}
	}
	f, err := os.Open(filepath.Join(shared, "data", "azure-llm-2023", name))
	if err != nil {
		return nil
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows[1:] {
		in, err1 := strconv.ParseFloat(r[1], 64)
		answer, err2 := strconv.ParseFloat(r[2], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%v", r)
		}
		out = append(out, in+4*answer)
	}
	return out
}

// week is a customer's habit: how busy an hour of the week is (0: Monday, midnight), mean about 1.
type week func(hour int) float64

var habits = map[string]week{
	"office": func(h int) float64 {
		if h/24 >= 5 {
			return 0.15
		}
		return 0.2 + 2.4*math.Exp(-math.Pow(float64(h%24)-14, 2)/18)
	},
	"evening": func(h int) float64 {
		weekend := 1.0
		if h/24 >= 5 {
			weekend = 1.4
		}
		return weekend * (0.5 + 1.5*math.Exp(-math.Pow(float64(h%24)-20, 2)/12))
	},
	"around the clock": func(h int) float64 { return 1 + 0.15*math.Sin(2*math.Pi*float64(h%24)/24) },
}

// generate makes hours of consumption from a Monday on: a Poisson number of requests, each of a size drawn from sizes. How many are expected is the
// habit, times a growth between −3 and +8 % a week, times noise that lasts for hours (AR(1), σ 0.3), times noise that lasts for days (AR(1), σ 0.2),
// times one day in forty that is three times as busy.
func generate(rnd *rand.Rand, from sizes, habit week, hours int) []float64 {
	base := math.Exp(3 + 3*rnd.Float64()) // 20 to 400 requests an hour
	growth := -0.03 + 0.11*rnd.Float64()
	out := make([]float64, hours)
	var hourly, daily, busy float64
	for i := range out {
		hourly = 0.8*hourly + 0.3*math.Sqrt(1-0.64)*rnd.NormFloat64()
		if i%24 == 0 {
			daily = 0.6*daily + 0.2*math.Sqrt(1-0.36)*rnd.NormFloat64()
			if busy = 1; rnd.IntN(40) == 0 {
				busy = 3
			}
		}
		requests := base * habit(i%168) * math.Pow(1+growth, float64(i)/168) * math.Exp(hourly+daily) * busy
		for range int(math.Round(requests + math.Sqrt(requests)*rnd.NormFloat64())) {
			out[i] += from[rnd.IntN(len(from))]
		}
	}
	return out
}

// score is what a back-test comes to.
type score struct {
	cases, within         int
	errors, averageErrors float64 // of the time to depletion, relative, summed: of the forecast, of a 7-day average
}

func (s *score) coverage() float64 { return float64(s.within) / float64(s.cases) }

// until is when consumption from hour at on has taken so much; +Inf: never in it.
func until(x []float64, at int, balance float64) float64 {
	for i := at; i < len(x); i++ {
		if x[i] >= balance {
			return float64(i-at) + balance/x[i]
		}
		balance -= x[i]
	}
	return math.Inf(1)
}

// backtest forecasts from instants of a series about what comes after them, for balances that would last so many days at the average of the last seven.
func (s *score) backtest(t *testing.T, x []float64) {
	monday := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	for at := 3 * 168; at <= len(x)-4*168; at += 61 { // at other hours of other days
		m := forecast.Fit(forecast.History{From: monday, Hours: x[:at]})
		now := monday.Add(time.Duration(at) * time.Hour)
		var average float64
		for _, v := range x[at-168 : at] {
			average += v / 168
		}
		for _, days := range []float64{0.25, 0.5, 1, 2, 3, 5, 7, 10, 14} {
			balance := average * 24 * days
			came := until(x, at, balance)
			if math.IsInf(came, 1) {
				t.Fatal("the series is too short")
			}
			p := m.Project(now, []forecast.Grant{{Left: balance}})
			if p.Expected.IsZero() || p.Early.After(p.Expected) || !p.Late.IsZero() && p.Late.Before(p.Expected) {
				t.Fatalf("%+v", p)
			}
			s.cases++
			if p.Early.Sub(now).Hours() <= came && (p.Late.IsZero() || came <= p.Late.Sub(now).Hours()) {
				s.within++
			}
			s.errors += math.Abs(p.Expected.Sub(now).Hours()-came) / came
			s.averageErrors += math.Abs(balance/average-came) / came
		}
	}
}

// Of what was held back, the band holds about four of five outcomes, and the expected instant is nearer than that of a 7-day average.
func TestBacktest(t *testing.T) {
	t.Parallel()
	for name, from := range map[string]sizes{"made up": made(), "Azure code": traced(t, "AzureLLMInferenceTrace_code.csv"), "Azure conversation": traced(t, "AzureLLMInferenceTrace_conv.csv")} {
		if from == nil {
			t.Logf("%s: the trace is not there", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var all score
			for habit, shape := range habits {
				var s score
				for seed := range uint64(10) {
					s.backtest(t, generate(rand.New(rand.NewPCG(seed, 7)), from, shape, 13*168))
				}
				t.Logf("%-18s %-17s %5d forecasts: %.1f %% within the band, mean error %.1f %%, of a 7-day average %.1f %%",
					name, habit, s.cases, 100*s.coverage(), 100*s.errors/float64(s.cases), 100*s.averageErrors/float64(s.cases))
				all.cases, all.within, all.errors, all.averageErrors = all.cases+s.cases, all.within+s.within, all.errors+s.errors, all.averageErrors+s.averageErrors
			}
			t.Logf("%-18s %-17s %5d forecasts: %.1f %% within the band, mean error %.1f %%, of a 7-day average %.1f %%",
				name, "all", all.cases, 100*all.coverage(), 100*all.errors/float64(all.cases), 100*all.averageErrors/float64(all.cases))
			if c := all.coverage(); c < 0.75 || c > 0.85 {
				t.Errorf("%.1f %% of the outcomes were within the band", 100*c)
			}
			if all.errors >= all.averageErrors {
				t.Errorf("the mean error is %.3f, of a 7-day average %.3f", all.errors/float64(all.cases), all.averageErrors/float64(all.cases))
			}
		})
	}
}
