package credit_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

// Few words, so that scopes and usages meet; some with what a separator or an encoding could trip over.
var (
	anyName  = rapid.SampledFrom([]string{"model", "product", "region", "m", "mo", "a=b", "λ"})
	anyValue = rapid.SampledFrom([]string{"gpt-4o", "gpt-4", "eu", "us", "a,b", "a", "b", "é", "a b"})
	anyScope = rapid.MapOfN(anyName, rapid.SliceOfN(anyValue, 1, 4), 0, 4)
	anyDims  = rapid.MapOfN(anyName, anyValue, 0, 5)
)

func matchesNaively(s credit.Scope, d credit.Dimensions) bool {
	missing := slices.DeleteFunc(slices.Collect(maps.Keys(s)), func(name string) bool {
		v, ok := d[name]
		return ok && slices.Contains(s[name], v)
	})
	return len(missing) == 0
}

func TestScopeMatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, d := credit.Scope(anyScope.Draw(t, "scope")), credit.Dimensions(anyDims.Draw(t, "dims"))
		if got, want := s.Matches(d), matchesNaively(s, d); got != want {
			t.Fatalf("%v matches %v: %v, want %v", s, d, got, want)
		}
		if s.General() != (len(s) == 0) {
			t.Fatalf("%v is general: %v", s, s.General())
		}
	})
	for _, c := range []struct {
		s    credit.Scope
		d    credit.Dimensions
		want bool
	}{
		{nil, nil, true}, {nil, credit.Dimensions{"model": "x"}, true}, {credit.Scope{}, nil, true},
		{credit.Scope{"model": {"x"}}, nil, false}, {credit.Scope{"model": {"x", "y"}}, credit.Dimensions{"model": "y", "region": "eu"}, true},
		{credit.Scope{"model": {"x"}, "region": {"eu"}}, credit.Dimensions{"model": "x"}, false}, {credit.Scope{"model": nil}, credit.Dimensions{"model": ""}, false},
		{credit.Scope{"model": {"x"}}, credit.Dimensions{"model": "X"}, false},
	} {
		if got := c.s.Matches(c.d); got != c.want {
			t.Errorf("%v matches %v: %v", c.s, c.d, got)
		}
	}
}

func equalAsSets(a, b credit.Scope) bool {
	return maps.EqualFunc(a, b, func(a, b []string) bool {
		return !slices.ContainsFunc(a, func(v string) bool { return !slices.Contains(b, v) }) &&
			!slices.ContainsFunc(b, func(v string) bool { return !slices.Contains(a, v) })
	})
}

func TestCanonicalIsEqualIfAndOnlyIfTheScopesAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := credit.Scope(anyScope.Draw(t, "a")), credit.Scope(anyScope.Draw(t, "b"))
		if got, want := a.Canonical() == b.Canonical(), equalAsSets(a, b); got != want {
			t.Fatalf("%v is %q, %v is %q", a, a.Canonical(), b, b.Canonical())
		}
		again := credit.Scope{}
		for name, values := range a { // other order, everything twice
			reversed := slices.Clone(values)
			slices.Reverse(reversed)
			again[name] = append(reversed, values...)
		}
		before := maps.Clone(again)
		if a.Canonical() != again.Canonical() || !equalAsSets(before, again) {
			t.Fatalf("%v is %q, %v is %q", a, a.Canonical(), again, again.Canonical())
		}
	})
	s := credit.Scope{"region": {"us", "eu"}, "model": {"m"}}
	if got, want := s.Canonical(), "\x1emodel\x1fm\x1f\x1eregion\x1feu\x1fus\x1f"; got != want {
		t.Errorf("%v is %q, want %q", s, got, want)
	}
	if s["region"][0] != "us" {
		t.Errorf("writing it sorted the scope itself: %v", s)
	}
	if got := (credit.Scope{}).Canonical(); got != "" {
		t.Errorf("the general scope is %q", got)
	}
}

func TestCheckDimensionsAndScope(t *testing.T) {
	many := func(n int) credit.Dimensions {
		d := credit.Dimensions{}
		for i := range n {
			d["d"+strings.Repeat("x", i)] = "v"
		}
		return d
	}
	values := func(n int) []string {
		var v []string
		for i := range n {
			v = append(v, strings.Repeat("v", i+1))
		}
		return v
	}
	long := strings.Repeat("x", 128)
	for _, d := range []credit.Dimensions{nil, {}, {"model": "gpt-4o"}, {long: long}, {"é": "日本"}, many(32)} {
		if err := credit.CheckDimensions(d); err != nil {
			t.Errorf("%.80v: %v", d, err)
		}
		scope := credit.Scope{}
		for name, v := range d {
			scope[name] = []string{v}
		}
		if err := credit.CheckScope(scope); err != nil {
			t.Errorf("%.80v: %v", scope, err)
		}
	}
	bad := []string{"", long + "x", "a\x1fb", "a\x1eb", "a\x00", "\n", "\xff", "a\u200b", "\u202e"}
	for _, w := range bad {
		for _, d := range []credit.Dimensions{{w: "v"}, {"n": w}} {
			if err := credit.CheckDimensions(d); credit.CodeOf(err) != credit.InvalidRequest {
				t.Errorf("%q: %v", d, err)
			}
		}
		for _, s := range []credit.Scope{{w: {"v"}}, {"n": {w}}, {"n": {"v", w}}} {
			if err := credit.CheckScope(s); credit.CodeOf(err) != credit.InvalidRequest {
				t.Errorf("%q: %v", s, err)
			}
		}
	}
	if err := credit.CheckDimensions(many(33)); credit.CodeOf(err) != credit.InvalidRequest {
		t.Errorf("33 dimensions: %v", err)
	}
	if err := credit.CheckScope(credit.Scope{"n": values(64)}); err != nil {
		t.Errorf("64 values: %v", err)
	}
	for _, s := range []credit.Scope{{"n": values(65)}, {"n": nil}, {"n": {}}} {
		if err := credit.CheckScope(s); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%.40v: %v", s, err)
		}
	}
}
