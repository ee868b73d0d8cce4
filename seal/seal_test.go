package seal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/seal"
)

var update = flag.Bool("update", false, "write testdata anew")

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Published vectors: transparency-dev/merkle, testonly/constants.go, the trees of RFC 6962 over the same eight leaves.
func TestRoots(t *testing.T) {
	leaves := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var tree seal.Tree
	for _, l := range leaves {
		tree.Append(seal.LeafHash(fromHex(t, l)))
	}
	for size, want := range roots {
		if got, err := tree.Root(int64(size)); err != nil || got.String() != want {
			t.Errorf("root of %d leaves: %s, %v; want %s", size, got, err, want)
		}
	}
	if _, err := tree.Root(9); err == nil {
		t.Error("a tree of 8 leaves has a root of 9")
	}
}

// rootOf is the definition of RFC 6962, section 2.1, word for word.
func rootOf(leaves []seal.Hash) seal.Hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	left, right := rootOf(leaves[:k]), rootOf(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

func drawHash(t *rapid.T) seal.Hash {
	return seal.Hash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
}

func TestTreeProofs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaves := rapid.SliceOfN(rapid.Custom(drawHash), 1, 40).Draw(t, "leaves")
		var tree seal.Tree
		for _, l := range leaves {
			tree.Append(l)
		}
		size := rapid.Int64Range(1, tree.Size()).Draw(t, "size")
		root, err := tree.Root(size)
		if err != nil || root != rootOf(leaves[:size]) {
			t.Fatalf("root of %d: %s, %v", size, root, err)
		}
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		path, err := tree.Include(size, index)
		if err != nil {
			t.Fatal(err)
		}
		if float64(len(path)) > math.Ceil(math.Log2(float64(size))) {
			t.Fatalf("%d hashes for %d leaves", len(path), size)
		}
		if err := seal.CheckInclusion(root, size, index, leaves[index], path); err != nil {
			t.Fatal(err)
		}
		old := rapid.Int64Range(1, size).Draw(t, "old")
		oldRoot, _ := tree.Root(old)
		extension, err := tree.Extend(size, old)
		if err != nil {
			t.Fatal(err)
		}
		if err := seal.CheckExtension(root, size, oldRoot, old, extension); err != nil {
			t.Fatal(err)
		}
		wrong := drawHash(t)
		if wrong != leaves[index] && seal.CheckInclusion(root, size, index, wrong, path) == nil {
			t.Fatal("another leaf is proved")
		}
		if wrong != root && seal.CheckInclusion(wrong, size, index, leaves[index], path) == nil {
			t.Fatal("another root is proved")
		}
		if other := rapid.Int64Range(-1, size+1).Draw(t, "other"); other != index && (other < 0 || other >= size || leaves[other] != leaves[index]) &&
			seal.CheckInclusion(root, size, other, leaves[index], path) == nil {
			t.Fatalf("the leaf of %d is proved to be at %d", index, other)
		}
		if len(path) > 0 {
			broken := slices.Clone(path)
			at := rapid.IntRange(0, len(path)-1).Draw(t, "at")
			if broken[at] = wrong; wrong != path[at] && seal.CheckInclusion(root, size, index, leaves[index], broken) == nil {
				t.Fatal("a changed path proves")
			}
			if seal.CheckInclusion(root, size, index, leaves[index], path[1:]) == nil || seal.CheckInclusion(root, size, index, leaves[index], append(broken, wrong)) == nil {
				t.Fatal("a path of another length proves")
			}
		}
		if wrong != oldRoot && seal.CheckExtension(root, size, wrong, old, extension) == nil || wrong != root && seal.CheckExtension(wrong, size, oldRoot, old, extension) == nil {
			t.Fatal("another tree is proved to be the beginning")
		}
	})
}

func drawText(t *rapid.T) string {
	return rapid.OneOf(rapid.Just(""), rapid.StringN(0, 12, -1)).Draw(t, "text")
}

func drawID[I ~[16]byte](t *rapid.T) I {
	if rapid.Bool().Draw(t, "none") {
		return I{}
	}
	return I(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
}

func drawEntry(t *rapid.T) seal.Entry {
	e := seal.Entry{
		ID: drawID[credit.EntryID](t), Cause: drawText(t), Entity: drawText(t), Period: ledger.Period(drawText(t)), Day: ledger.Day(drawText(t)),
		PostedAt: time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "at")).UTC(), Kind: ledger.Kind(drawText(t)), Customer: drawID[credit.CustomerID](t),
		Grant: drawID[credit.GrantID](t), VerFrom: rapid.Int64().Draw(t, "from"), VerTo: rapid.Int64().Draw(t, "to"), Late: rapid.Bool().Draw(t, "late"),
		Reverses: drawID[credit.EntryID](t),
	}
	for range rapid.IntRange(0, 4).Draw(t, "postings") {
		e.Postings = append(e.Postings, seal.Posting{N: rapid.IntRange(0, 9).Draw(t, "n"), Posting: ledger.Posting{
			Account: ledger.Account(rapid.IntRange(1000, 9999).Draw(t, "account")), Side: ledger.Side(drawText(t)),
			Money:  credit.Money{Minor: rapid.Int64().Draw(t, "minor"), Currency: drawText(t)},
			Source: credit.Money{Minor: rapid.Int64().Draw(t, "source"), Currency: drawText(t)},
			Units:  credit.Amount(rapid.Int64().Draw(t, "units")), Product: drawText(t), Model: drawText(t),
		}})
	}
	return e
}

// Two entries have the same text only when they are the same, and what the text says is the entry.
func TestEntryText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, f := drawEntry(t), drawEntry(t)
		back, err := seal.ReadEntry(e.Canonical())
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("%+v is read back as %+v, %v", e, back, err)
		}
		if reflect.DeepEqual(e, f) != (e.Leaf() == f.Leaf()) {
			t.Fatalf("%+v and %+v", e, f)
		}
	})
}

// Every field of an entry and of a posting, changed alone, changes the leaf: a field that is added to them and not to the text is found here.
func TestEveryFieldCounts(t *testing.T) {
	fresh := func() seal.Entry { return golden()[1].entry }
	base := fresh()
	want := base.Leaf()
	changed := 0
	var change func(path string, v reflect.Value, leaf func() seal.Hash)
	change = func(path string, v reflect.Value, leaf func() seal.Hash) {
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			v.Set(reflect.ValueOf(v.Interface().(time.Time).Add(time.Microsecond)))
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				change(path+"."+v.Type().Field(i).Name, v.Field(i), leaf)
			}
			return
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				change(fmt.Sprintf("%s[%d]", path, i), v.Index(i), leaf)
			}
			return
		case v.Kind() == reflect.Array:
			old := v.Index(15).Uint()
			v.Index(15).SetUint(old ^ 1)
			defer v.Index(15).SetUint(old)
		case v.Kind() == reflect.String:
			old := v.String()
			v.SetString(old + "x")
			defer v.SetString(old)
		case v.CanInt():
			old := v.Int()
			v.SetInt(old + 1)
			defer v.SetInt(old)
		case v.Kind() == reflect.Bool:
			old := v.Bool()
			v.SetBool(!old)
			defer v.SetBool(old)
		default:
			t.Fatalf("%s is a %s", path, v.Type())
		}
		changed++
		if leaf() == want {
			t.Errorf("a change of %s leaves the leaf as it was", path)
		}
	}
	change("entry", reflect.ValueOf(&base).Elem(), base.Leaf)
	if fields := 13 + 10*len(base.Postings); changed != fields {
		t.Errorf("%d fields were changed, there are %d", changed, fields)
	}
	shorter := fresh()
	shorter.Postings = shorter.Postings[:1]
	swapped := fresh()
	swapped.Postings[0], swapped.Postings[1] = swapped.Postings[1], swapped.Postings[0]
	if shorter.Leaf() == want || swapped.Leaf() == want {
		t.Error("postings may be left out or change places")
	}
}

type goldenEntry struct {
	name  string
	entry seal.Entry
}

func golden() []goldenEntry {
	at := time.Date(2026, 1, 31, 23, 59, 59, 999999000, time.UTC)
	f := ledger.Fact{Cause: "grant/x/issue", Entity: "acme", Currency: "USD", Day: "2026-01-31", Period: "2026-01", Customer: credit.CustomerID{1}, Grant: credit.GrantID{2},
		VerFrom: 1, VerTo: 1}
	bought := ledger.Purchase(f, ledger.ProcessorClearing, ledger.Sum{Minor: 10000}, ledger.Sum{Minor: 800}, 1200)
	f.Cause, f.Period, f.VerFrom, f.VerTo = "grant/x/use/7/2026-01-31", "2026-02", 7, 123
	used := ledger.Recognition(f, 5833, 0, []ledger.Share{{Product: "chat", Model: "größer/1", Units: 500}, {Product: "", Model: "small", Units: 200}})
	f.Cause = "foreign"
	f.Customer, f.Grant, f.VerFrom, f.VerTo, f.Period = credit.CustomerID{}, credit.GrantID{}, 0, 0, "2026-01"
	foreign := ledger.Settlement(f, ledger.Cash, ledger.Sum{Minor: 4800, Source: credit.Money{Minor: 4000, Currency: "EUR"}})
	foreign.Reverses = credit.EntryID{3}
	return []goldenEntry{{"purchase", seal.EntryOf(&bought, at)}, {"late-use", seal.EntryOf(&used, at.Add(time.Microsecond))},
		{"foreign", seal.EntryOf(&foreign, time.Date(2026, 1, 31, 12, 0, 0, 0, time.FixedZone("", 3600)))}}
}

// The encoding never changes: a leaf that was sealed years ago is computed again.
func TestGolden(t *testing.T) {
	for _, g := range golden() {
		name := filepath.Join("testdata", g.name+".txt")
		got := g.entry.Leaf().String() + "\n" + hex.Dump(g.entry.Canonical())
		if *update {
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", g.name, err, got, want)
		}
	}
}

func FuzzReadEntry(f *testing.F) {
	for _, g := range golden() {
		f.Add(g.entry.Canonical())
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := seal.ReadEntry(b); err == nil && !bytes.Equal(e.Canonical(), b) {
			t.Errorf("%q is read as %+v", b, e)
		}
	})
}

func newSeal(t testing.TB) (*seal.Seal, *seal.Key) {
	t.Helper()
	k, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &seal.Seal{Entity: "acme", Period: "2026-01", Version: 2, Number: 5, Closed: true, Size: 3, Root: seal.LeafHash([]byte("root")), Previous: seal.LeafHash([]byte("previous")),
		TrialBalance: seal.LeafHash([]byte("trial balance")), Pack: seal.LeafHash([]byte("pack")), SealedAt: seal.Instant{Time: time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)}}
	s.Sign(k)
	return s, k
}

func TestSealSignature(t *testing.T) {
	s, k := newSeal(t)
	doc, err := s.JSON()
	if err != nil {
		t.Fatal(err)
	}
	back, err := seal.Read(doc)
	if err != nil || !reflect.DeepEqual(back, s) || back.Check(nil) != nil || back.Check([]string{"x", k.ID()}) != nil || back.Hash() != s.Hash() {
		t.Fatalf("%+v, %v", back, err)
	}
	if back.Check([]string{}) == nil || back.Check([]string{"x"}) == nil {
		t.Error("a key that is not trusted will do")
	}
	again := *s
	if again.Sign(k); !bytes.Equal(again.Signature, s.Signature) {
		t.Error("the same seal has two signatures")
	}
	other, _ := newSeal(t)
	for what, change := range map[string]func(*seal.Seal){
		"entity": func(s *seal.Seal) { s.Entity = "acm" }, "period": func(s *seal.Seal) { s.Period = "2026-02" }, "version": func(s *seal.Seal) { s.Version++ },
		"number": func(s *seal.Seal) { s.Number++ }, "closed": func(s *seal.Seal) { s.Closed = false }, "size": func(s *seal.Seal) { s.Size-- },
		"root": func(s *seal.Seal) { s.Root[0]++ }, "previous": func(s *seal.Seal) { s.Previous = seal.Hash{} }, "trial balance": func(s *seal.Seal) { s.TrialBalance[9]++ },
		"pack": func(s *seal.Seal) { s.Pack[9]++ }, "instant": func(s *seal.Seal) { s.SealedAt.Time = s.SealedAt.Add(time.Microsecond) }, "key": func(s *seal.Seal) { s.KeyID = other.KeyID },
		"both keys": func(s *seal.Seal) { s.KeyID, s.PublicKey = other.KeyID, other.PublicKey }, "signature": func(s *seal.Seal) { s.Signature[63] ^= 1 },
		"no signature": func(s *seal.Seal) { s.Signature = nil }, "no key": func(s *seal.Seal) { s.PublicKey = nil },
	} {
		broken, err := seal.Read(doc)
		if err != nil {
			t.Fatal(err)
		}
		if change(broken); broken.Check(nil) == nil {
			t.Errorf("the %s can be changed", what)
		}
	}
	for _, bad := range []string{"", "{}", "[]", string(doc) + "{}", strings.Replace(string(doc), `"size"`, `"sise"`, 1), strings.Replace(string(doc), "2026-01", "2026-13", 1),
		strings.Replace(string(doc), s.Root.String(), strings.ToUpper(s.Root.String()), 1), strings.Replace(string(doc), s.Root.String(), "", 1)} {
		if _, err := seal.Read([]byte(bad)); err == nil {
			t.Errorf("this is read: %s", bad)
		}
	}
}

func TestKeys(t *testing.T) {
	k, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	back, err := seal.ReadKey(text)
	if err != nil || back.ID() != k.ID() || len(k.ID()) != 32 {
		t.Errorf("%v, %v", back, err)
	}
	// openssl genpkey -algorithm ed25519; RFC 8410, section 10.3.
	if _, err := seal.ReadKey([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n")); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "x", strings.Replace(string(text), "PRIVATE", "PUBLIC", 2), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := seal.ReadKey([]byte(bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

func TestProof(t *testing.T) {
	entries := golden()
	var tree seal.Tree
	for _, g := range entries {
		tree.Append(g.entry.Leaf())
	}
	s, k := newSeal(t)
	s.Size = tree.Size()
	s.Root, _ = tree.Root(s.Size)
	s.Sign(k)
	for i, g := range entries {
		path, err := tree.Include(s.Size, int64(i))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := (&seal.Proof{Entry: g.entry.Canonical(), Index: int64(i), Path: path, Seal: *s}).JSON()
		if err != nil {
			t.Fatal(err)
		}
		read := func() *seal.Proof {
			p, err := seal.ReadProof(doc)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		for _, root := range []seal.Hash{s.Root, {}} {
			if e, err := read().Check(root, []string{k.ID()}); err != nil || e.Leaf() != g.entry.Leaf() {
				t.Errorf("%s: %+v, %v", g.name, e, err)
			}
			for what, change := range map[string]func(*seal.Proof){
				"entry": func(p *seal.Proof) { p.Entry = entries[(i+1)%3].entry.Canonical() }, "index": func(p *seal.Proof) { p.Index = int64(i+1) % 3 },
				"path": func(p *seal.Proof) { p.Path[0][5] ^= 1 }, "size": func(p *seal.Proof) { p.Seal.Size = 9 }, "text": func(p *seal.Proof) { p.Entry = append(p.Entry, 0) },
			} {
				p := read()
				if change(p); !fails(p.Check(root, nil)) {
					t.Errorf("%s: the %s can be changed", g.name, what)
				}
			}
		}
		if p := read(); !fails(p.Check(seal.LeafHash(nil), nil)) || !fails(p.Check(seal.Hash{}, []string{"x"})) {
			t.Error("another root or key will do")
		}
	}
}

func fails(_ seal.Entry, err error) bool { return err != nil }

func FuzzReadProof(f *testing.F) {
	f.Add([]byte(`{"entry":"AA==","index":0,"path":[""],"seal":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := seal.ReadProof(b); err == nil {
			if _, err := p.Check(seal.LeafHash(b), nil); err == nil {
				t.Errorf("%q proves", b)
			}
		}
	})
}

func TestTotals(t *testing.T) {
	a, b := seal.Totals{}, seal.Totals{}
	entries := golden()
	for i := range entries {
		a.Add(&entries[i].entry)
		b.Add(&entries[len(entries)-1-i].entry)
	}
	if a[ledger.PrepaidCredits] != (seal.AccountTotal{Debit: 5833, Credit: 10000}) || a.Hash("USD") != b.Hash("USD") || a.Hash("USD") == a.Hash("EUR") {
		t.Errorf("%v", a)
	}
	if b.Add(&entries[0].entry); a.Hash("USD") == b.Hash("USD") {
		t.Error("other totals have the same hash")
	}
}

func BenchmarkLeaf(b *testing.B) {
	e := golden()[1].entry
	for b.Loop() {
		e.Leaf()
	}
}

func BenchmarkRootOf100000(b *testing.B) {
	for b.Loop() {
		var tree seal.Tree
		for range 100_000 {
			tree.Append(seal.Hash{})
		}
		if _, err := tree.Root(tree.Size()); err != nil {
			b.Fatal(err)
		}
	}
}
