package rating

import "github.com/shopspring/decimal"

// curve is what a rate asks for a quantity, compiled: T in the README. It is 0 at 0.
type curve struct {
	model Model
	free  Quantity
	unit  unitPrice // per_unit: of one; package: of one package; cost_plus: of 1 of the compute cost
	size  Quantity  // of a package
	tiers []step128
}

// step128 is a tier, compiled.
type step128 struct {
	above Quantity // where it begins
	upTo  Quantity // where it ends, itself within; not of the last
	unit  unitPrice
	flat  number
	base  number // graduated: what is asked up to its beginning, and its own flat
}

func newCurve(r *Rate) curve {
	c := curve{model: r.Model, free: quantityOf(r.Free)}
	switch r.Model {
	case PerUnit:
		c.unit = newUnitPrice(r.Price, r.Per)
	case Package:
		c.unit, c.size = newUnitPrice(r.Price, decimal.New(1, 0)), quantityOf(r.Per)
	case CostPlus:
		c.unit = newUnitPrice(r.Percent.Add(decimal.New(100, 0)), decimal.New(100, 0))
	case Graduated, Volume:
		var above Quantity
		var base number
		for _, t := range r.Tiers {
			s := step128{above: above, unit: newUnitPrice(t.Price, t.Per), flat: numberOf(t.Flat)}
			s.base = base.plus(s.flat)
			if t.UpTo != nil {
				s.upTo = quantityOf(*t.UpTo)
				width, _ := s.upTo.minus(above)
				base = s.base.plus(width.number().times(&s.unit))
				above = s.upTo
			}
			c.tiers = append(c.tiers, s)
		}
	}
	return c
}

// of returns what is asked for x.
func (c *curve) of(x Quantity) number {
	x, ok := x.minus(c.free)
	if !ok || x.IsZero() {
		return number{}
	}
	switch c.model {
	case PerUnit:
		return x.number().times(&c.unit)
	case Package:
		return x.packages(c.size).times(&c.unit)
	}
	i := 0
	for i < len(c.tiers)-1 && c.tiers[i].upTo.less(x) {
		i++
	}
	t := &c.tiers[i]
	if c.model == Volume {
		return x.number().times(&t.unit).plus(t.flat)
	}
	x, _ = x.minus(t.above)
	return x.number().times(&t.unit).plus(t.base)
}
