package rating

import (
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// cell is a price of a matrix, or the cells under one value.
type cell struct {
	value   string
	pointer string
	price   decimal.Decimal
	under   []cell // nil: a price
}

// matrix reads a table of prices by the values of dimensions, and returns a rate for each:
//
//	{"id": "images", "meter": "images", "dimensions": ["resolution", "quality"], "per": "1",
//	 "prices": {"1024x1024": {"standard": "4", "hd": "8"}}}
//
// "per" (then 1), "match" (what else the usage has) and "currency" may be left out.
func (p *parser) matrix() ([]Rate, []pointer) {
	r := Rate{Model: PerUnit, Per: decimal.New(1, 0), Over: Event}
	var (
		dims   []string
		cells  []cell
		prices string // where they are
	)
	before := p.faults
	p.object([]string{"id", "meter", "dimensions", "prices", "per", "match", "currency"}, 4, func(name string) {
		switch name {
		case "dimensions":
			dims = p.matrixDimensions()
		case "prices":
			prices = p.pointer()
			if p.cursor.next() != '{' {
				p.wrongType("an object that lists prices by value")
				return
			}
			cells = p.cells(0)
		case "per":
			r.Per = p.per()
		case "match":
			r.Match, _ = p.match()
		default:
			if s, ok := p.text(); ok {
				p.rateWord(&r, name, s)
			}
		}
	})
	if p.faults > before {
		return nil, nil
	}
	for _, d := range dims {
		if _, ok := r.Match[d]; ok {
			p.faultAt(p.pointer()+"/match", "The dimension %.40q is also one of the matrix.", d)
			return nil, nil
		}
	}
	e := expansion{p: p, dims: dims, base: r}
	e.expand(cells, prices, r.ID, nil)
	return e.rates, e.pointers
}

func (p *parser) matrixDimensions() []string {
	var dims []string
	isList := p.array(maxMatrixDepth, func(int) {
		s, ok := p.text()
		if !ok {
			return
		}
		if err := credit.CheckScope(credit.Scope{s: {"x"}}); err != nil {
			p.fault("%.40q is not the name of a dimension.", s)
			return
		}
		for _, d := range dims {
			if d == s {
				p.fault("The dimension is listed twice.")
				return
			}
		}
		dims = append(dims, s)
	})
	if isList && len(dims) == 0 {
		p.fault("A matrix has dimensions.")
	}
	return dims
}

// cells reads prices by value, nested as deep as they are.
func (p *parser) cells(depth int) []cell {
	cells := []cell{}
	seen := map[string]bool{}
	p.each(func(name string) {
		c := cell{value: name, pointer: p.pointer()}
		switch {
		case seen[name]:
			p.cursor.skip()
			p.fault("The value is listed twice.")
			return
		case p.cursor.next() != '{':
			c.price, _ = p.decimal()
		case depth == maxMatrixDepth:
			p.cursor.skip()
			p.fault("Prices are nested at most %d deep.", maxMatrixDepth)
			return
		default:
			c.under = p.cells(depth + 1)
		}
		seen[name] = true
		cells = append(cells, c)
	})
	return cells
}

// expansion is the rates of a matrix.
type expansion struct {
	p        *parser
	dims     []string
	base     Rate
	rates    []Rate
	pointers []pointer
}

func (e *expansion) expand(cells []cell, at, id string, values []string) {
	if len(cells) == 0 {
		e.p.faultAt(at, "There are no prices.")
	}
	for i := range cells {
		c := &cells[i]
		path := append(values[:len(values):len(values)], c.value)
		id := id + "/" + c.value
		switch {
		case (c.under != nil) != (len(path) < len(e.dims)):
			e.p.faultAt(c.pointer, "Prices are by %s: they are %d deep.", strings.Join(e.dims, ", "), len(e.dims))
		case c.under != nil:
			e.expand(c.under, c.pointer, id, path)
		case !isRateID(id):
			e.p.faultAt(c.pointer, "The rate's id would be %.200q; one has at most %d letters, digits and any of \"._:/@+-\".", id, maxRateID)
		case len(e.rates) > maxRates:
			return // refused anyway
		default:
			r := e.base
			r.ID, r.Price, r.Match = id, c.price, make(credit.Scope, len(e.base.Match)+len(path))
			for name, listed := range e.base.Match {
				r.Match[name] = listed
			}
			for n, v := range path {
				r.Match[e.dims[n]] = []string{v}
			}
			if err := credit.CheckScope(r.Match); err != nil {
				e.p.faultAt(c.pointer, "%s", detailOf(err))
				continue
			}
			e.p.countValues(len(path))
			e.rates, e.pointers = append(e.rates, r), append(e.pointers, pointer{text: c.pointer})
		}
	}
}

func (p *parser) countValues(n int) {
	if p.values += n; p.values > maxMatchValues && p.values-n <= maxMatchValues {
		p.fault("The matches of a rate card list at most %d values together.", maxMatchValues)
	}
}
