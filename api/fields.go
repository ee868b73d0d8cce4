package api

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// field is one member of a request's object: how it is read, and whether it must be there.
type field struct {
	name     string
	required bool
	read     func(*reader) error
}

func required(name string, read func(*reader) error) field { return field{name, true, read} }
func optional(name string, read func(*reader) error) field { return field{name, false, read} }

// fields reads an object that has these members and no others, and names all that are missing at once.
func (r *reader) fields(fs ...field) error {
	given := make([]bool, len(fs))
	if err := r.object(func(name string) error {
		i := slices.IndexFunc(fs, func(f field) bool { return f.name == name })
		if i < 0 {
			return r.unknown()
		}
		given[i] = true
		return fs[i].read(r)
	}); err != nil {
		return err
	}
	var missing *credit.Error
	for i, f := range fs {
		if f.required && !given[i] {
			if missing == nil {
				missing = credit.Errorf(credit.InvalidRequest, "A required field is missing.")
			}
			missing.Issues = append(missing.Issues, credit.Issue{Pointer: r.pointer() + "/" + f.name, Detail: "This field is required."})
		}
	}
	if missing != nil {
		return missing
	}
	return nil
}

// readAll reads a whole body as one object.
func readAll(body string, fs ...field) error {
	var r reader
	if err := r.start(body); err != nil {
		return err
	}
	if err := r.fields(fs...); err != nil {
		return err
	}
	return r.end()
}

// text reads printable text of 1 to limit characters.
func text(into *string, limit int) func(*reader) error {
	return func(r *reader) (err error) {
		if *into, err = r.text(); err != nil {
			return err
		}
		if n := utf8.RuneCountInString(*into); n == 0 || n > limit || strings.TrimSpace(*into) == "" || !printable(*into) {
			return r.refuse("This must be 1 to %d printable characters.", limit)
		}
		return nil
	}
}

func printable(s string) bool {
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

// maxReason bounds the reason of a change.
const maxReason = 500

func boolean(into *bool) func(*reader) error {
	return func(r *reader) (err error) { *into, err = r.boolean(); return err }
}

func integer(into *int, lo, hi int64) func(*reader) error {
	return func(r *reader) error {
		n, err := r.integer(lo, hi)
		*into = int(n)
		return err
	}
}

// priority reads the place of a wallet or grant in the draw-down order.
func priority(into *int) func(*reader) error { return integer(into, 0, 1_000_000) }

func instant(into *time.Time) func(*reader) error {
	return func(r *reader) (err error) { *into, err = r.instant(); return err }
}

// orNullFor lets null stand for the zero value.
func nullable(read func(*reader) error) func(*reader) error {
	return func(r *reader) error {
		if r.null() {
			return nil
		}
		return read(r)
	}
}

// word reads one of a few words.
func word[T ~string](into *T, words ...T) func(*reader) error {
	return func(r *reader) error {
		s, err := r.text()
		if err != nil {
			return err
		}
		if !slices.Contains(words, T(s)) {
			all := make([]string, len(words))
			for i, w := range words {
				all[i] = string(w)
			}
			return r.refuse("This must be one of %s.", strings.Join(all, ", "))
		}
		*into = T(s)
		return nil
	}
}

// parsed reads a string by a function that refuses what it cannot read.
func parsed[T any](into *T, parse func(string) (T, error)) func(*reader) error {
	return func(r *reader) error {
		s, err := r.text()
		if err != nil {
			return err
		}
		*into, err = parse(s)
		return r.at(err)
	}
}

// matching reads a string of a certain form.
func matching(into *string, form func(string) bool, want string) func(*reader) error {
	return func(r *reader) (err error) {
		if *into, err = r.text(); err == nil && !form(*into) {
			return r.refuse("This must be %s.", want)
		}
		return err
	}
}

// decimalString reads a decimal number's text for later.
func decimalString(into *string) func(*reader) error {
	return func(r *reader) (err error) { *into, err = r.decimalText(); return err }
}

// rate reads a positive decimal number with up to 12 digits on either side of the point.
func rate(into *decimal.Decimal) func(*reader) error {
	return func(r *reader) error {
		s, err := r.decimalText()
		if err != nil {
			return err
		}
		if !plainDecimal(s, 12, 12) {
			return r.refuse("%.40q is not a decimal number with up to 12 digits before and 12 after the point.", s)
		}
		if *into, err = decimal.NewFromString(s); err != nil || !into.IsPositive() {
			return r.refuse("This must be a positive decimal number.")
		}
		return nil
	}
}

// plainDecimal tells whether s is digits with, perhaps, a point and more digits.
func plainDecimal(s string, before, after int) bool {
	whole, fraction, point := strings.Cut(s, ".")
	return allDigits(whole) && len(whole) <= before && (!point || allDigits(fraction) && len(fraction) <= after)
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// scope reads which dimensions credits are restricted to.
func scope(into *credit.Scope) func(*reader) error {
	return func(r *reader) error {
		s := make(credit.Scope)
		if err := r.object(func(name string) error {
			var values []string
			err := r.array(func(int) error {
				v, err := r.text()
				values = append(values, v)
				return err
			})
			s[name] = values
			return err
		}); err != nil {
			return err
		}
		*into = s
		return r.at(credit.CheckScope(s))
	}
}

// Bounds of metadata.
const (
	maxMetadata      = 50
	maxMetadataName  = 64
	maxMetadataValue = 500
)

// metadata reads the business's own notes on a thing.
func metadata(into *map[string]string) func(*reader) error {
	return func(r *reader) error {
		m := make(map[string]string)
		if err := r.words(m); err != nil {
			return err
		}
		if len(m) > maxMetadata {
			return r.refuse("There may be %d metadata entries.", maxMetadata)
		}
		for name, value := range m {
			if name == "" || len(name) > maxMetadataName || len(value) > maxMetadataValue || !printable(name) || strings.ContainsRune(value, 0) {
				return r.refuse("Metadata %.40q: a name has 1 to %d printable bytes, a value up to %d without NUL.", name, maxMetadataName, maxMetadataValue)
			}
		}
		*into = m
		return nil
	}
}
