package provider

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// clause is a condition on a text: on the name of a model, a provider, or a field of a response.
type clause struct {
	op    clauseOp
	text  string         // of equals to contains
	regex *regexp.Regexp // of matches
	of    []clause       // of anyOf and allOf
}

type clauseOp uint8

const (
	equals clauseOp = iota
	startsWith
	endsWith
	contains
	matches
	anyOf
	allOf
)

var clauseOps = map[string]clauseOp{
	"equals": equals, "starts_with": startsWith, "ends_with": endsWith, "contains": contains, "regex": matches, "or": anyOf, "and": allOf,
}

const maxClauseDepth = 16

// match tells whether the clause holds for s, which must be in lower case if the clause was read to ignore case.
func (c *clause) match(s string) bool {
	switch c.op {
	case equals:
		return s == c.text
	case startsWith:
		return strings.HasPrefix(s, c.text)
	case endsWith:
		return strings.HasSuffix(s, c.text)
	case contains:
		return strings.Contains(s, c.text)
	case matches:
		return c.regex.MatchString(s)
	case anyOf:
		for i := range c.of {
			if c.of[i].match(s) {
				return true
			}
		}
		return false
	}
	for i := range c.of {
		if !c.of[i].match(s) {
			return false
		}
	}
	return true
}

// readClause reads a clause such as {"or": [{"equals": "o3"}, {"starts_with": "o3-2025"}]}. fold: it ignores case.
func readClause(d doc, at int, fold bool, p pointer, f *faults) (c clause, ok bool) {
	return readClauseAt(d, at, fold, p, f, 0)
}

func readClauseAt(d doc, at int, fold bool, p pointer, f *faults, depth int) (c clause, ok bool) {
	if d[at].kind != '{' || d[at].next == at+1 || d[at+1].next != d[at].next {
		f.add(p, "A clause is an object of one member, such as {\"equals\": \"name\"}.")
		return c, false
	}
	name := string(d[at+1].name)
	p = p.field(name)
	if c.op, ok = clauseOps[name]; !ok {
		f.add(p, "%.40q is not a clause that is known here.", name)
		return c, false
	}
	if depth > maxClauseDepth {
		f.add(p, "Clauses are nested at most %d deep.", maxClauseDepth)
		return c, false
	}
	switch c.op {
	case anyOf, allOf:
		if d[at+1].kind != '[' {
			f.add(p, "This must be a list of clauses.")
			return c, false
		}
		i := 0
		d.each(at+1, func(member int) {
			sub, fine := readClauseAt(d, member, fold, p.index(i), f, depth+1)
			ok = ok && fine
			c.of = append(c.of, sub)
			i++
		})
		if i == 0 {
			f.add(p, "This must not be empty.")
			return c, false
		}
		return c, ok
	}
	text, isText := d.text(at + 1)
	if !isText || text == "" && c.op != equals {
		f.add(p, "This must be a string that is not empty.")
		return c, false
	}
	if c.op == matches {
		if fold {
			text = "(?i)" + text
		}
		var err error
		if c.regex, err = regexp.Compile(text); err != nil {
			f.add(p, "This is not a regular expression that is known here: %v.", err)
			return c, false
		}
		return c, true
	}
	if fold {
		text = strings.ToLower(text)
	}
	c.text = text
	return c, true
}

// matcher finds the first of many clauses that holds for a text: alternatives by equality, beginning and end are looked up, and
// only those that look inside the text are tried one after another.
type matcher struct {
	equal    map[string]int
	prefixes affixes
	suffixes affixes
	others   []numbered
}

// affixes are beginnings or ends of texts, with the lowest number that each stands for.
type affixes struct {
	lengths []int // of the keys, different
	first   map[string]int
}

type numbered struct {
	number int
	clause *clause
}

const none = int(^uint(0) >> 1) // no clause

// add adds a clause under a number; numbers must not fall.
func (m *matcher) add(number int, c *clause) {
	if m.equal == nil {
		m.equal, m.prefixes.first, m.suffixes.first = map[string]int{}, map[string]int{}, map[string]int{}
	}
	switch c.op {
	case equals:
		if _, ok := m.equal[c.text]; !ok {
			m.equal[c.text] = number
		}
	case startsWith:
		m.prefixes.add(c.text, number)
	case endsWith:
		m.suffixes.add(c.text, number)
	case anyOf:
		for i := range c.of {
			m.add(number, &c.of[i])
		}
	default:
		m.others = append(m.others, numbered{number, c})
	}
}

func (a *affixes) add(s string, number int) {
	if _, ok := a.first[s]; ok {
		return
	}
	a.first[s] = number
	if !slices.Contains(a.lengths, len(s)) {
		a.lengths = append(a.lengths, len(s))
	}
}

// find returns the lowest number of a clause that holds for s; none when none does.
func (m *matcher) find(s string) int {
	best := none
	if n, ok := m.equal[s]; ok {
		best = n
	}
	for _, l := range m.prefixes.lengths {
		if l <= len(s) {
			if n, ok := m.prefixes.first[s[:l]]; ok {
				best = min(best, n)
			}
		}
	}
	for _, l := range m.suffixes.lengths {
		if l <= len(s) {
			if n, ok := m.suffixes.first[s[len(s)-l:]]; ok {
				best = min(best, n)
			}
		}
	}
	for _, o := range m.others {
		if o.number >= best {
			break
		}
		if o.clause.match(s) {
			return o.number
		}
	}
	return best
}

// String writes the clause for a reader.
func (c clause) String() string {
	switch c.op {
	case matches:
		return fmt.Sprintf("regex %q", c.regex)
	case anyOf, allOf:
		word := " or "
		if c.op == allOf {
			word = " and "
		}
		parts := make([]string, len(c.of))
		for i := range c.of {
			parts[i] = c.of[i].String()
		}
		return "(" + strings.Join(parts, word) + ")"
	}
	for name, op := range clauseOps {
		if op == c.op {
			return fmt.Sprintf("%s %q", name, c.text)
		}
	}
	return ""
}
