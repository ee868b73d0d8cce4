package api

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/export"
)

// reportHead is a report's JSON document up to its rows.
type reportHead struct {
	Report       string              `json:"report"`
	QueryVersion int                 `json:"query_version"`
	Parameters   db.ReportParameters `json:"parameters"`
	Currency     string              `json:"currency"`
	MadeAt       string              `json:"made_at"`
	Watermark    export.Watermark    `json:"watermark"`
	Columns      []string            `json:"columns"`
}

// reportEnd is what follows the rows. SHA256 is that of the same report as CSV.
type reportEnd struct {
	RowCount      int64             `json:"row_count"`
	ControlTotals map[string]string `json:"control_totals"`
	SHA256        string            `json:"sha256"`
}

// report is GET /v1/finance/reports/{report}, as JSON or as CSV. It is whole before its first byte is sent.
func (s *Server) report(ctx context.Context, c *call) error {
	name, err := c.pathText("report")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(db.Reports, func(r db.ReportSpec) bool { return r.Name == name })
	if i < 0 {
		return credit.Errorf(credit.NotFound, "There is no report %.40q.", name)
	}
	q, err := c.query("legal_entity", "from", "to", "format")
	if err != nil {
		return err
	}
	p := db.ReportParameters{}
	if p.LegalEntity, err = q.entity(); err != nil {
		return err
	}
	span, err := q.span()
	if err != nil {
		return err
	}
	for _, required := range []struct {
		name  string
		value ledger.Period
	}{{"from", span.From}, {"to", span.To}} {
		if required.value == "" {
			return credit.Invalid(required.name, "This query parameter is required.")
		}
	}
	p.From, p.To = span.From, span.To
	format, err := q.oneOf("format", "json", "csv")
	if err != nil {
		return err
	}
	file, err := newSpool()
	if err != nil {
		return err
	}
	defer file.close()
	w := newReportWriter(&db.Reports[i], file, format == "csv")
	totals, err := s.store.Report(ctx, &db.Reports[i], p, w.head, w.row)
	if err != nil {
		return err
	}
	end, err := w.end(totals)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Tallystick-Rows", strconv.FormatInt(end.RowCount, 10))
	h.Set("Tallystick-Query-Version", strconv.Itoa(w.spec.Version))
	h.Set("Tallystick-Watermark", strconv.FormatInt(w.watermark, 10))
	for name, sum := range end.ControlTotals {
		h.Add("Tallystick-Total", name+"="+sum)
	}
	slices.Sort(h["Tallystick-Total"])
	base := p.LegalEntity + "-" + string(p.From) + "-" + string(p.To) + "-" + name
	if format == "csv" {
		return file.answer(c, "text/csv", base+".csv")
	}
	return file.answer(c, "application/json", base+".json")
}

// reportWriter writes a report as CSV, which is hashed in any case, and unless only that was asked for as JSON.
type reportWriter struct {
	spec      *db.ReportSpec
	to        io.Writer
	json      bool
	hash      hash.Hash
	csv       *csv.Writer
	currency  string
	watermark int64
	names     [][]byte // of the columns, as JSON
	line      []byte
	cells     []string
	rows      int64
}

func newReportWriter(spec *db.ReportSpec, to io.Writer, asCSV bool) *reportWriter {
	w := &reportWriter{spec: spec, to: to, json: !asCSV, hash: sha256.New(), cells: make([]string, len(spec.Columns))}
	w.csv = csv.NewWriter(w.hash)
	if asCSV {
		w.csv = csv.NewWriter(io.MultiWriter(to, w.hash))
	}
	w.csv.UseCRLF = true
	for _, c := range spec.Columns {
		w.names = append(w.names, appendString(nil, c.Name))
	}
	return w
}

func (w *reportWriter) head(h db.ReportHead) error {
	w.currency, w.watermark = h.Currency, h.Watermark.EntryNo
	d := reportHead{Report: w.spec.Name, QueryVersion: w.spec.Version, Parameters: h.Parameters, Currency: h.Currency, MadeAt: instantText(h.MadeAt), Watermark: h.Watermark}
	for _, c := range w.spec.Columns {
		d.Columns = append(d.Columns, c.Name)
	}
	if err := w.csv.Write(d.Columns); err != nil || !w.json {
		return err
	}
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err = w.to.Write(append(b[:len(b)-1], `,"rows":[`...))
	return err
}

func (w *reportWriter) row(cells []*string) error {
	for i, cell := range cells {
		w.cells[i] = ""
		if cell != nil {
			w.cells[i] = *cell
		}
	}
	if err := w.csv.Write(w.cells); err != nil || !w.json {
		return err
	}
	b := w.line[:0]
	if w.rows++; w.rows > 1 {
		b = append(b, ',')
	}
	b = append(b, '{')
	for i, cell := range cells {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, w.names[i]...), ':')
		switch kind := w.spec.Columns[i].Kind; {
		case cell == nil:
			b = append(b, "null"...)
		case kind == db.ColumnInteger || kind == db.ColumnBoolean:
			b = append(b, *cell...)
		default:
			b = appendString(b, *cell)
		}
	}
	w.line = append(b, '}')
	_, err := w.to.Write(w.line)
	return err
}

func (w *reportWriter) end(t db.ReportTotals) (reportEnd, error) {
	w.csv.Flush()
	if err := w.csv.Error(); err != nil {
		return reportEnd{}, fmt.Errorf("write report: %w", err)
	}
	end := reportEnd{RowCount: t.Rows, ControlTotals: map[string]string{}, SHA256: hex.EncodeToString(w.hash.Sum(nil))}
	for i, sum := range t.Sums {
		end.ControlTotals[w.spec.Columns[i].Name] = moneyText(sum, w.currency)
	}
	if !w.json {
		return end, nil
	}
	b, err := json.Marshal(end)
	if err == nil {
		b[0] = ','
		_, err = w.to.Write(append([]byte{']'}, b...))
	}
	return end, err
}
