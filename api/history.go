package api

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// historyLine is one operation as a grant, a wallet or a customer saw it.
type historyLine struct {
	Operation  string             `json:"operation"` // "<customer id>/<ver>": GET /v1/operations/… has its receipt
	CustomerID credit.CustomerID  `json:"customer_id"`
	Ver        int64              `json:"ver"`
	Kind       string             `json:"kind"`
	At         string             `json:"at"`
	ServiceAt  string             `json:"service_at"`
	Actor      string             `json:"actor"`
	RequestID  credit.RequestID   `json:"request_id"`
	Key        string             `json:"key"`
	MemberID   *credit.MemberID   `json:"member_id"`
	Reason     *string            `json:"reason"`
	Unit       *string            `json:"unit"`
	Amount     *string            `json:"amount"` // credits moved, in all of the customer's grants
	Before     *string            `json:"before"` // available, of what the history is of; of a customer, in the unit
	After      *string            `json:"after"`
	Movements  []movementDocument `json:"movements"`
}

// movementDocument is one movement of one grant's credits.
type movementDocument struct {
	GrantID  credit.GrantID  `json:"grant_id"`
	WalletID credit.WalletID `json:"wallet_id"`
	Debit    string          `json:"debit"`
	Credit   string          `json:"credit"`
	Amount   string          `json:"amount"`
	Before   string          `json:"before"` // available in the grant
	After    string          `json:"after"`
}

func describeLine(l db.HistoryLine) historyLine {
	d := historyLine{
		Operation: l.Customer.String() + "/" + strconv.FormatInt(l.Ver, 10), CustomerID: l.Customer, Ver: l.Ver, Kind: l.Kind, At: instantText(l.At),
		ServiceAt: instantText(l.ServiceAt), Actor: actorText(l.Actor), RequestID: l.RequestID, Key: l.Key, Reason: reasonOf(l.Receipt),
		Movements: []movementDocument{},
	}
	if !l.Member.IsZero() {
		d.MemberID = &l.Member
	}
	if l.Unit != "" {
		amount, before, after := l.Amount.Format(l.Scale), l.Before.Format(l.Scale), l.After.Format(l.Scale)
		d.Unit, d.Amount, d.Before, d.After = &l.Unit, &amount, &before, &after
	}
	for _, m := range l.Movements {
		d.Movements = append(d.Movements, movementDocument{m.Grant, m.Wallet, m.Debit, m.Credit, m.Amount.Format(l.Scale), m.Before.Format(l.Scale), m.After.Format(l.Scale)})
	}
	return d
}

// reasonOf is the reason that a receipt gives, if it gives one.
func reasonOf(receipt []byte) *string {
	var r struct {
		Reason *string `json:"reason"`
	}
	if json.Unmarshal(receipt, &r) != nil {
		return nil
	}
	return r.Reason
}

func (s *Server) customerHistory(ctx context.Context, c *call) error {
	return s.history(ctx, c, s.customerScope)
}

func (s *Server) walletHistory(ctx context.Context, c *call) error {
	return s.history(ctx, c, s.walletScope)
}

func (s *Server) grantHistory(ctx context.Context, c *call) error {
	return s.history(ctx, c, s.grantScope)
}

// history is GET …/history: how a balance became what it is, one operation after the other, the newest first.
func (s *Server) history(ctx context.Context, c *call, scopeOf func(context.Context, *call) (db.Scope, error)) error {
	_, limit, before, err := listing(c, query.numberCursor)
	if err != nil {
		return err
	}
	sc, err := scopeOf(ctx, c)
	if err != nil {
		return err
	}
	if sc.Wallet.IsZero() && sc.Grant.IsZero() {
		if _, err := s.store.Customer(ctx, sc.Customer); err != nil { // an empty history is a customer's that exists
			return err
		}
	}
	lines, err := s.store.HistoryPage(ctx, sc, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, lines, limit, describeLine, func(l db.HistoryLine) cursor { return afterNumber(l.Ver) })
}

// operationDocument is an operation with the receipt that was answered.
type operationDocument struct {
	historyLine
	Receipt json.RawMessage `json:"receipt"`
}

// operation is GET /v1/operations/{customer}/{ver}.
func (s *Server) operation(ctx context.Context, c *call) error {
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	ver, err := c.pathVersion()
	if err != nil {
		return err
	}
	l, err := s.store.Operation(ctx, customer, ver)
	if err != nil {
		return err
	}
	return c.document(operationDocument{describeLine(l), l.Receipt})
}
