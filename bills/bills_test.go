package bills_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/bills"
	"github.com/tallystick/tallystick/credit"
)

func day(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }

// openAI writes a page of costs, of days from first on, one amount each, "" for none.
func openAI(first int, more string, amounts ...string) []byte {
	var b strings.Builder
	b.WriteString(`{"object":"page","data":[`)
	for i, a := range amounts {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"object":"bucket","start_time":%d,"end_time":%d,"results":[`, day(first+i).Unix(), day(first+i+1).Unix())
		if a != "" {
			fmt.Fprintf(&b, `{"object":"organization.costs.result","amount":{"value":%s,"currency":"usd"},"line_item":"gpt-4o-2024-08-06, cached input","project_id":null,"quantity":null}`, a)
		}
		b.WriteString("]}")
	}
	switch more {
	case "":
		b.WriteString(`],"has_more":false,"next_page":null}`)
	case "nowhere":
		b.WriteString(`],"has_more":true,"next_page":null}`)
	default:
		fmt.Fprintf(&b, `],"has_more":true,"next_page":%q}`, more)
	}
	return []byte(b.String())
}

const anthropic = `{"data":[{"starting_at":"2026-03-01T00:00:00Z","ending_at":"2026-03-02T00:00:00Z","results":[
	{"amount":"123.45","currency":"USD","cost_type":"tokens","description":"Claude Sonnet 4 Usage - Input Tokens","model":"claude-sonnet-4-20250514","context_window":"0-200k",
	 "service_tier":"standard","token_type":"uncached_input_tokens","workspace_id":null},
	{"amount":"-0.5","currency":"USD","cost_type":"web_search","description":"Credit","model":null,"token_type":null,"workspace_id":null}]}],"has_more":false,"next_page":null}`

const anthropicUsage = `{"data":[{"starting_at":"2026-03-01T00:00:00Z","ending_at":"2026-03-02T00:00:00Z","results":[
	{"uncached_input_tokens":1500,"cache_creation":{"ephemeral_1h_input_tokens":1000,"ephemeral_5m_input_tokens":500},"cache_read_input_tokens":200,"output_tokens":0,
	 "server_tool_use":{"web_search_requests":10},"model":"claude-sonnet-4-20250514","service_tier":"standard"}]}],"has_more":false,"next_page":null}`

const openAIUsage = `{"object":"page","data":[{"object":"bucket","start_time":1772323200,"end_time":1772409600,"results":[
	{"object":"organization.usage.completions.result","input_tokens":1000,"output_tokens":500,"input_cached_tokens":800,"num_model_requests":5,"model":"gpt-4o","batch":false}]}],
	"has_more":false,"next_page":null}`

const table = `provider,day,kind,model,token_type,quantity,currency,amount,description
mistral,2026-03-01,,large,input,1000,EUR,0.002,
mistral,2026-03-02,commitment,,,,EUR,10,"Minimum, March"
mistral,2026-03-03,,,,,eur,-1.10,
`

func lines(b bills.Bill) (out []string) {
	for _, l := range b.Lines {
		quantity := ""
		if l.Quantity.Valid {
			quantity = l.Quantity.Decimal.String()
		}
		out = append(out, fmt.Sprintf("%s %s %s/%s %s %s %s", l.From.Format(time.DateOnly), l.Kind, l.Model, l.TokenType, quantity, l.Currency, l.Amount))
	}
	return out
}

// Amounts are what stands there, to the last digit: OpenAI's numbers are dollars, Anthropic's texts are cents.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, provider string
		files          []string
		want           []string
	}{
		{"openai", "openai", []string{string(openAI(1, "", "0.06", "1.5e-7", "0.10000000000000000555", "-2"))}, []string{
			"2026-03-01 usage gpt-4o-2024-08-06/cache_read  USD 0.06", "2026-03-02 usage gpt-4o-2024-08-06/cache_read  USD 0.00000015",
			"2026-03-03 usage gpt-4o-2024-08-06/cache_read  USD 0.10000000000000000555", "2026-03-04 credit gpt-4o-2024-08-06/cache_read  USD -2"}},
		{"openai, nothing is grouped", "openai", []string{`{"object":"page","data":[{"object":"bucket","start_time":1730419200,"end_time":1730505600,"results":[
			{"object":"organization.costs.result","amount":{"value":0.06,"currency":"usd"},"line_item":null,"project_id":null,"api_key_id":null,"quantity":null,"quantity_unit":null}]}],
			"has_more":false,"next_page":null}`}, []string{"2024-11-01 usage /  USD 0.06"}},
		{"openai's usage", "openai", []string{openAIUsage}, []string{"2026-03-01 usage gpt-4o/cache_read 800  0", "2026-03-01 usage gpt-4o/input 200  0", "2026-03-01 usage gpt-4o/output 500  0"}},
		{"anthropic", "anthropic", []string{anthropic}, []string{"2026-03-01 credit /web_search  USD -0.005", "2026-03-01 usage claude-sonnet-4-20250514/input  USD 1.2345"}},
		{"anthropic's usage", "anthropic", []string{anthropicUsage}, []string{"2026-03-01 usage claude-sonnet-4-20250514/cache_read 200  0",
			"2026-03-01 usage claude-sonnet-4-20250514/cache_write_1h 1000  0", "2026-03-01 usage claude-sonnet-4-20250514/cache_write_5m 500  0",
			"2026-03-01 usage claude-sonnet-4-20250514/input 1500  0"}},
		{"several pages", "anthropic", []string{anthropicUsage, anthropic}, []string{"2026-03-01 credit /web_search  USD -0.005", "2026-03-01 usage claude-sonnet-4-20250514/cache_read 200  0",
			"2026-03-01 usage claude-sonnet-4-20250514/cache_write_1h 1000  0", "2026-03-01 usage claude-sonnet-4-20250514/cache_write_5m 500  0",
			"2026-03-01 usage claude-sonnet-4-20250514/input 1500  0", "2026-03-01 usage claude-sonnet-4-20250514/input  USD 1.2345"}},
		{"csv", "mistral", []string{"\ufeff" + table}, []string{"2026-03-01 usage large/input 1000 EUR 0.002", "2026-03-02 commitment /  EUR 10", "2026-03-03 credit /  EUR -1.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files [][]byte
			for _, f := range c.files {
				files = append(files, []byte(f))
			}
			b, err := bills.Parse(files, bills.Range{})
			if err != nil || b.Provider != c.provider || len(b.Incomplete) > 0 {
				t.Fatalf("%s %q, %v", b.Provider, b.Incomplete, err)
			}
			if got := lines(b); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// What is missing is said, and is never no cost.
func TestIncomplete(t *testing.T) {
	march := bills.Range{From: day(1), To: day(5)}
	for _, c := range []struct {
		name  string
		want  bills.Range
		pages [][]byte
		says  []string
	}{
		{"whole", march, [][]byte{openAI(3, "", "", "1"), openAI(1, "p2", "1", "")}, nil},
		{"a day is missing", bills.Range{}, [][]byte{openAI(1, "p2", "1"), openAI(3, "", "1")}, []string{"costs: nothing is said about 2026-03-02."}},
		{"the end is missing", march, [][]byte{openAI(1, "", "1", "1")}, []string{"costs: nothing is said about 2026-03-03 to 2026-03-04."}},
		{"the beginning is missing", march, [][]byte{openAI(4, "", "1")}, []string{"costs: nothing is said about 2026-03-01 to 2026-03-03."}},
		{"of another time", march, [][]byte{openAI(9, "", "1")}, []string{"costs: nothing is said about 2026-03-01 to 2026-03-04."}},
		{"more follow", bills.Range{}, [][]byte{openAI(1, "p2", "1", "1")}, []string{"costs: the last page says that more follow."}},
		{"more follow, and not which", bills.Range{}, [][]byte{openAI(1, "nowhere", "1"), openAI(2, "", "1")}, []string{"costs: a page says that more follow, and not which."}},
		{"a day is there twice", bills.Range{}, [][]byte{openAI(1, "", "1", "1"), openAI(2, "", "1")}, []string{"costs: 2026-03-02 is there twice."}},
		{"an empty page", bills.Range{}, [][]byte{openAI(1, "")}, []string{"costs: nothing is said about any day."}},
		{"usage ends before costs do", bills.Range{From: day(1), To: day(3)}, [][]byte{openAI(1, "", "1", "1"), []byte(openAIUsage)}, []string{"usage: nothing is said about 2026-03-02."}},
		{"a row is missing", bills.Range{}, [][]byte{[]byte(strings.Replace(table, "2026-03-02", "2026-03-01", 1))}, []string{"costs: nothing is said about 2026-03-02."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := bills.Parse(c.pages, c.want)
			if err != nil || !slices.Equal(b.Incomplete, c.says) {
				t.Errorf("%q, %v, want %q", b.Incomplete, err, c.says)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	page := string(openAI(1, "", "0.06"))
	for _, c := range []struct{ name, file, pointer string }{
		{"nothing", "", "/0"},
		{"no page", `{"error":{"message":"no"}}`, "/0"},
		{"broken off", page[:len(page)-9], "/0"},
		{"something follows", page + "{}", "/0"},
		{"no results", strings.Replace(page, `"results"`, `"result"`, 1), "/0/data/0/results"},
		{"no amount", strings.Replace(page, "0.06", "null", 1), "/0/data/0/results/0/amount/value"},
		{"amount as text", strings.Replace(page, "0.06", `"0.06"`, 1), "/0/data/0/results/0/amount/value"},
		{"amount beyond reason", strings.Replace(page, "0.06", "1e999999999", 1), "/0/data/0/results/0/amount/value"},
		{"no currency", strings.Replace(page, `"usd"`, `"dollars"`, 1), "/0/data/0/results/0"},
		{"no such currency", strings.Replace(page, `"usd"`, `"xts"`, 1), "/0/data/0/results/0"},
		{"a day that ends before it begins", strings.Replace(page, `"end_time":1772409600`, `"end_time":1772300000`, 1), "/0/data/0"},
		{"cents as a number", strings.Replace(anthropic, `"123.45"`, "123.45", 1), "/0/data/0/results/0/amount"},
		{"more cached than read", strings.Replace(openAIUsage, `"input_cached_tokens":800`, `"input_cached_tokens":1001`, 1), "/0/data/0/results/0/input_tokens"},
		{"part of a token", strings.Replace(openAIUsage, `"output_tokens":500`, `"output_tokens":0.5`, 1), "/0/data/0/results/0/output_tokens"},
		{"other usage", strings.NewReplacer("input_tokens", "x", "output_tokens", "y", "input_cached_tokens", "z").Replace(openAIUsage), "/0/data/0/results/0"},
		{"unknown column", strings.Replace(table, "description", "note", 1), "/0"},
		{"no rows", "provider,day,quantity\n", "/0"},
		{"no amounts", strings.Replace(table, "amount", "cost", 1), "/0"},
		{"a row's day", strings.Replace(table, "2026-03-02", "03/02/2026", 1), "/0/row/3/day"},
		{"a row's amount", strings.Replace(table, "0.002", "0,002", 1), "/0/row/2"},
		{"a row without an amount", strings.Replace(table, "EUR,10", "EUR,", 1), "/0/row/3/amount"},
		{"a row's kind", strings.Replace(table, "commitment", "reserve", 1), "/0/row/3/kind"},
		{"two providers", strings.Replace(table, "mistral,2026-03-03", "openai,2026-03-03", 1), "/0/row/4/provider"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := bills.Parse([][]byte{[]byte(c.file)}, bills.Range{})
			e, ok := err.(*credit.Error)
			if !ok || e.Code != credit.InvalidRequest || len(e.Issues) != 1 || e.Issues[0].Pointer != c.pointer {
				t.Errorf("%v, want a refusal at %s", err, c.pointer)
			}
		})
	}
	if _, err := bills.Parse([][]byte{[]byte(anthropic), openAI(1, "", "1")}, bills.Range{}); credit.CodeOf(err) != credit.InvalidRequest {
		t.Errorf("pages of two providers: %v", err)
	}
}

// However a bill is cut into pages and in whatever order they come, it is the same bill; without any one of its days it is not whole.
func TestPagesMakeTheBill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amounts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			if rapid.IntRange(0, 4).Draw(t, "none") == 0 {
				return ""
			}
			return decimal.New(rapid.Int64Range(-1e12, 1e12).Draw(t, "value"), int32(rapid.IntRange(-20, 2).Draw(t, "exponent"))).String()
		}), 1, 25).Draw(t, "amounts")
		want := bills.Range{From: day(1), To: day(1 + len(amounts))}
		whole, err := bills.Parse([][]byte{openAI(1, "", amounts...)}, want)
		if err != nil || len(whole.Incomplete) > 0 {
			t.Fatalf("%q, %v", whole.Incomplete, err)
		}
		var sum, stands decimal.Decimal
		for _, a := range amounts {
			if a != "" {
				stands = stands.Add(decimal.RequireFromString(a))
			}
		}
		for _, l := range whole.Lines {
			sum = sum.Add(l.Amount)
		}
		if !sum.Equal(stands) {
			t.Fatalf("the bill is %s, its pages say %s", sum, stands)
		}
		var pages [][]byte
		for i := 0; i < len(amounts); {
			n := rapid.IntRange(1, len(amounts)-i).Draw(t, "days")
			more := ""
			if i+n < len(amounts) {
				more = "next"
			}
			pages = append(pages, openAI(1+i, more, amounts[i:i+n]...))
			i += n
		}
		cut, err := bills.Parse(rapid.Permutation(pages).Draw(t, "order"), want)
		if err != nil || len(cut.Incomplete) > 0 || !slices.Equal(lines(cut), lines(whole)) {
			t.Fatalf("in %d pages: %q, %v", len(pages), cut.Incomplete, err)
		}
		lost := rapid.IntRange(0, len(pages)-1).Draw(t, "lost")
		if pages = slices.Delete(pages, lost, lost+1); len(pages) > 0 {
			if part, err := bills.Parse(pages, want); err != nil || len(part.Incomplete) == 0 {
				t.Fatalf("without page %d it is taken for whole: %v", lost, err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{string(openAI(1, "p", "0.06", "")), anthropic, anthropicUsage, openAIUsage, table, "{", "provider,day,quantity\n\"", `{"data":[{}],"has_more":true}`} {
		f.Add([]byte(s), []byte(table))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		files := [][]byte{a, b}
		one, err := bills.Parse(files, bills.Range{})
		if err != nil {
			if credit.CodeOf(err) != credit.InvalidRequest {
				t.Fatal(err)
			}
			if one, err = bills.Parse(files[:1], bills.Range{}); err != nil {
				return
			}
			files = files[:1]
		}
		if one.Provider == "" {
			t.Fatal("it is nobody's")
		}
		for _, l := range one.Lines {
			if !l.From.Before(l.To) || l.From.Before(one.From) || l.To.After(one.To) || l.Currency == "" && !l.Amount.IsZero() || l.Currency == "" && !l.Quantity.Valid ||
				l.Amount.IsNegative() && l.Kind == bills.Usage {
				t.Fatalf("%+v in %+v", l, one)
			}
		}
		slices.Reverse(files)
		if again, err := bills.Parse(files, bills.Range{}); err != nil || len(again.Lines) != len(one.Lines) || len(again.Incomplete) != len(one.Incomplete) {
			t.Fatalf("in another order: %+v, %v", again, err)
		}
	})
}
