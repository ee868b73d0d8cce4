package export

import (
	"bufio"
	"fmt"
	"strings"
)

// iif writes the Intuit Interchange Format of QuickBooks Desktop: tab-separated, one block of TRNS, SPL and ENDTRNS for each journal, debit
// positive, every block adding up to nothing. ASCII only: the format names no encoding.
type iif struct {
	*run
	to  *counted
	out *bufio.Writer
}

const iifNumber = 11 // characters of DOCNUM

func newIIF(x *run) (writer, error) {
	f, err := x.file()
	if err != nil {
		return nil, err
	}
	w := &iif{x, f, bufio.NewWriter(f)}
	const rest = "TRNSTYPE\tDATE\tACCNT\tCLASS\tAMOUNT\tDOCNUM\tMEMO\r\n"
	_, err = w.out.WriteString("!TRNS\tTRNSID\t" + rest + "!SPL\tSPLID\t" + rest + "!ENDTRNS\r\n")
	return w, err
}

func (w *iif) entry(e *Entry) error {
	on := day(e.Date())
	if y := on.Year(); y < 1901 {
		return w.refuse(e, "a date in an IIF file cannot be in the year %d.", y)
	}
	number := on.Format("0601") + fmt.Sprintf("-%06d", e.No)
	if len(number) > iifNumber {
		return w.refuse(e, "the document number %s has more than %d characters; choose the detail %q.", number, iifNumber, Day)
	}
	for i, p := range e.Postings {
		a, err := w.account(p.Account)
		if err != nil {
			return err
		}
		head := "SPL"
		if i == 0 {
			head = "TRNS"
		}
		w.to.rows++
		_, err = fmt.Fprintf(w.out, "%s\t\tGENERAL JOURNAL\t%s\t%s\t\t%s\t%s\t%s\r\n", head, on.Format(usDate), a.Name, w.money(signed(&p)), number, ascii(lineMemo(e, &p)))
		if err != nil {
			return err
		}
	}
	_, err := w.out.WriteString("ENDTRNS\r\n")
	return err
}

func (w *iif) end() error { return w.out.Flush() }

// ascii replaces what a cell of an IIF file cannot have.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' {
			return '-'
		}
		return r
	}, s)
}
