package export

import (
	"time"

	"github.com/tallystick/tallystick/credit/ledger"
)

// Manifest says how an export was made and what it must come to: evidence for who relies on its files. Written as JSON.
type Manifest struct {
	Parameters   Parameters       `json:"parameters"`
	Currency     string           `json:"currency"`
	PeriodStatus string           `json:"period_status"`
	Version      int              `json:"period_version"`
	ExportedAt   time.Time        `json:"exported_at"` // by the database's clock: what was committed until then is in it
	Watermark    Watermark        `json:"watermark"`
	Totals       ControlTotals    `json:"control_totals"` // summed by the database, not by what wrote the files
	Systems      []ManifestSystem `json:"systems"`
}

// Parameters are what was asked for.
type Parameters struct {
	LegalEntity string        `json:"legal_entity"`
	Period      ledger.Period `json:"period"`
	Systems     []System      `json:"systems"`
	Detail      Detail        `json:"detail,omitempty"` // "": the usual one of each system
}

// Watermark is the newest of the data.
type Watermark struct {
	EntryNo  int64      `json:"entry_no"`  // the order of posting; 0: nothing was booked
	PostedAt *time.Time `json:"posted_at"` // nil: nothing was booked
	Entries  int64      `json:"entries"`
}

// ControlTotals is the trial balance of the period, amounts in major units.
type ControlTotals struct {
	Debit    string         `json:"debit"`
	Credit   string         `json:"credit"`
	Accounts []AccountTotal `json:"accounts"`
}

// AccountTotal is one account of [ControlTotals].
type AccountTotal struct {
	Account ledger.Account `json:"account"`
	Name    string         `json:"name"`
	Debit   string         `json:"debit"`
	Credit  string         `json:"credit"`
	Balance string         `json:"balance"` // debit less credit
}

// ManifestSystem is what was written for one system.
type ManifestSystem struct {
	System  System `json:"system"`
	Detail  Detail `json:"detail"`
	Mapping int    `json:"mapping_version,omitempty"`
	Entries int64  `json:"entries"` // of the export: fewer than of the journal when some were put together
	Debit   string `json:"debit"`
	Credit  string `json:"credit"`
	Files   []File `json:"files"`
}
