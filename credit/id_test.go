package credit_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

var anyGrantID = rapid.Custom(func(t *rapid.T) credit.GrantID {
	return credit.GrantID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
})

func TestIDTextRoundTripsAndSorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyGrantID.Draw(t, "a"), anyGrantID.Draw(t, "b")
		text := a.String()
		if len(text) != 30 || !strings.HasPrefix(text, "grt_") {
			t.Fatalf("the text is %q", text)
		}
		if back, err := credit.ParseID[credit.GrantID](text); err != nil || back != a {
			t.Fatalf("%q comes back as %v, %v", text, back, err)
		}
		if got := string(a.Append([]byte("x"))); got != "x"+text {
			t.Fatalf("Append wrote %q", got)
		}
		if strings.Compare(text, b.String()) != slices.Compare(a[:], b[:]) {
			t.Fatalf("%s and %s sort otherwise as text", text, b)
		}
	})
}

var refusedIDs = []string{
	"", "grt", "grt_", "GRT_00000000000000000000000000", "cus_00000000000000000000000000", "grt_0000000000000000000000000", "grt_000000000000000000000000000",
	"grt_0000000000000000000000000z", // the last letter carries two bits that no id has
	"grt_0000000000000000000000000A", "grt_000000000000000000000000\r\n", "grt_\n0000000000000000000000000", "grt_i0000000000000000000000000",
	" grt_00000000000000000000000000", "grt_00000000000000000000000000 ", "grt_0000000000000000000000000é", "00000000-0000-0000-0000-000000000000",
	strings.Repeat("grt_", 1000),
}

func TestParseIDRefuses(t *testing.T) {
	for _, s := range refusedIDs {
		id, err := credit.ParseID[credit.GrantID](s)
		if credit.CodeOf(err) != credit.InvalidID || !id.IsZero() {
			t.Errorf("ParseID(%.60q) = %v, %v, want invalid_id", s, id, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range refusedIDs {
		f.Add(s)
	}
	f.Add("grt_00000000000000000000000000")
	f.Add(credit.DerivedID[credit.GrantID]("seed").String())
	f.Fuzz(func(t *testing.T, s string) {
		id, err := credit.ParseID[credit.GrantID](s)
		if err == nil && id.String() != s {
			t.Fatalf("%q is read as %s", s, id)
		}
		if err != nil && (credit.CodeOf(err) != credit.InvalidID || !id.IsZero()) {
			t.Fatalf("%q gives %v, %v", s, id, err)
		}
		if _, err := credit.ParseID[credit.WalletID](s); err == nil && !strings.HasPrefix(s, "wal_") {
			t.Fatalf("%q is read as a wallet's", s)
		}
	})
}

func TestNewIDSortsByTime(t *testing.T) {
	last := ""
	for range 1000 {
		id := credit.NewID[credit.CustomerID]().String()
		if id <= last {
			t.Fatalf("%s comes after %s", id, last)
		}
		last = id
	}
}

func TestDerivedIDDependsOnCauseAndKind(t *testing.T) {
	a, again, b := credit.DerivedID[credit.EntryID]("grant/1/expire"), credit.DerivedID[credit.EntryID]("grant/1/expire"), credit.DerivedID[credit.EntryID]("grant/2/expire")
	if a != again || a == b || [16]byte(a) == [16]byte(credit.DerivedID[credit.RequestID]("grant/1/expire")) {
		t.Fatalf("%s, %s, %s", a, again, b)
	}
}

// Derived ids are in the books: this one must not change.
func TestDerivedIDIsFixed(t *testing.T) {
	if got := credit.DerivedID[credit.EntryID]("grant/1/expire").String(); got != "jrn_dnycbq2jyxdxb5rvfxrexrqz9w" {
		t.Fatalf("got %s", got)
	}
}

func TestIDPrefixes(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range []string{
		credit.CustomerID{}.String(), credit.MemberID{}.String(), credit.WalletID{}.String(), credit.GrantID{}.String(),
		credit.RefundID{}.String(), credit.RateCardID{}.String(), credit.EntryID{}.String(), credit.RequestID{}.String(),
	} {
		prefix, rest, ok := strings.Cut(s, "_")
		if !ok || len(prefix) != 3 || rest != strings.Repeat("0", 26) || seen[prefix] {
			t.Errorf("the zero id is %q", s)
		}
		seen[prefix] = true
	}
}

func TestIDTravelsInJSON(t *testing.T) {
	type document struct {
		Grant credit.GrantID
		None  credit.MemberID
	}
	in := document{Grant: credit.DerivedID[credit.GrantID]("x")}
	text, err := json.Marshal(in)
	if err != nil || string(text) != `{"Grant":"`+in.Grant.String()+`","None":""}` {
		t.Fatalf("%s, %v", text, err)
	}
	out := document{None: credit.MemberID{1}}
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Fatalf("%+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"Grant":"`+credit.DerivedID[credit.WalletID]("x").String()+`"}`), &out); credit.CodeOf(err) != credit.InvalidID || out != in {
		t.Fatalf("a wallet's id as a grant's gives %v and %+v", err, out)
	}
}
