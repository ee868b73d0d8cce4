package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

type (
	// UnitRow is one kind of credit.
	UnitRow struct {
		credit.Unit
		CreatedAt time.Time
	}
	// EntityRow is a legal entity.
	EntityRow struct {
		Code, Name, Currency, TimeZone string
		CreatedAt                      time.Time
	}
	// RateCardRow is a rate card.
	RateCardRow struct {
		ID         credit.RateCardID
		Code, Unit string
		Default    bool
		Latest     int // newest version; 0: none is published
		CreatedAt  time.Time
	}
	// RateCardVersionRow is a published version of a rate card. Document is JSON.
	RateCardVersionRow struct {
		Version                  int
		EffectiveAt, PublishedAt time.Time
		Document                 []byte
		PublishedBy              string
		WithdrawnAt              time.Time // zero: it was not withdrawn, and the two below are empty
		WithdrawnBy, Reason      string
	}
	// CustomerRow is a customer and where its history stands.
	CustomerRow struct {
		ID                       credit.CustomerID
		Entity, ExternalID, Name string
		RateCard                 credit.RateCardID // zero: the default card
		Metadata                 map[string]string
		CreatedAt                time.Time
		Ver                      int64
		Frozen                   bool
	}
	// MemberRow is a member of a customer.
	MemberRow struct {
		ID               credit.MemberID
		Customer         credit.CustomerID
		ExternalID, Name string
		CreatedAt        time.Time
		MemberTerms
	}
	// WalletRow is a wallet.
	WalletRow struct {
		credit.Wallet
		Customer  credit.CustomerID
		Overage   credit.GrantID // zero: hard cap
		Scale     int            // of its unit
		CreatedAt time.Time
	}
	// GrantView is a grant with what its description needs beside it.
	GrantView struct {
		credit.Grant
		Scale    int    // of its unit
		Currency string // of its customer's entity
		Metadata map[string]string
		ReadAt   time.Time // by the clock of Postgres
	}
	// RefundView is a refund with what its description needs beside it.
	RefundView struct {
		RefundRow
		Scale            int           // of its grant's unit
		Left             credit.Amount // available in the grant now
		SettlementMethod string
		SettlementRef    string
		SettledAt        time.Time // zero: not settled
	}
	// GrantFilter chooses grants; what is zero lets everything through.
	GrantFilter struct {
		Customer credit.CustomerID
		Wallet   credit.WalletID
		State    credit.State
	}
	// RefundFilter chooses refunds; what is zero lets everything through.
	RefundFilter struct {
		Customer credit.CustomerID
		Grant    credit.GrantID
		Status   string
	}
)

// below turns the last identifier of a page into the bound of the next; the zero one bounds nothing.
func below[I ~[16]byte](id I) pgtype.UUID {
	if id == (I{}) {
		for i := range id {
			id[i] = 0xff
		}
	}
	return pgtype.UUID{Bytes: id, Valid: true}
}

func belowNumber(n int64) int64 {
	if n == 0 {
		return math.MaxInt64
	}
	return n
}

// found returns the refusal when a row is missing, and says what was being read of any other error.
func found(err error, refusal *credit.Error, doing string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return refusal
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func unitRow(u sqlc.Unit) UnitRow {
	return UnitRow{Unit: credit.Unit{Code: u.Code, Scale: int(u.Scale), Name: u.Name}, CreatedAt: fromTime(u.CreatedAt)}
}

// UnitPage returns up to n units whose codes come after one.
func (s *Store) UnitPage(ctx context.Context, after string, n int) ([]UnitRow, error) {
	rows, err := s.q.PageUnits(ctx, after, int32(n))
	return page(rows, err, "read units", unitRow)
}

// EntityPage returns up to n legal entities whose codes come after one.
func (s *Store) EntityPage(ctx context.Context, after string, n int) ([]EntityRow, error) {
	rows, err := s.q.PageEntities(ctx, after, int32(n))
	return page(rows, err, "read legal entities", entityRow)
}

func entityRow(e sqlc.LegalEntity) EntityRow {
	return EntityRow{Code: e.Code, Name: e.Name, Currency: e.Currency, TimeZone: e.TimeZone, CreatedAt: fromTime(e.CreatedAt)}
}

// page converts the rows of a query.
func page[R, T any](rows []R, err error, doing string, convert func(R) T) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = convert(r)
	}
	return out, nil
}

// pageOf is page with a conversion that may fail.
func pageOf[R, T any](rows []R, err error, doing string, convert func(R) (T, error)) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		if out[i], err = convert(r); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
	}
	return out, nil
}

// RateCard returns a rate card by its id or, when that is zero, by its code. There may be none: an Error coded rate_card_not_found.
func (s *Store) RateCard(ctx context.Context, id credit.RateCardID, code string) (RateCardRow, error) {
	c, err := s.q.FindRateCard(ctx, uuidOf(id), code)
	return rateCardRow(c), found(err, credit.Errorf(credit.RateCardNotFound, "There is no such rate card."), "read rate card")
}

func rateCardRow(c sqlc.FindRateCardRow) RateCardRow {
	return RateCardRow{ID: c.ID.Bytes, Code: c.Code, Unit: c.Unit, Default: c.IsDefault, Latest: int(c.Latest), CreatedAt: fromTime(c.CreatedAt)}
}

// RateCardPage returns up to n rate cards below an id, newest first; a zero id bounds nothing, here and below.
func (s *Store) RateCardPage(ctx context.Context, before credit.RateCardID, n int) ([]RateCardRow, error) {
	rows, err := s.q.PageRateCards(ctx, below(before), int32(n))
	return page(rows, err, "read rate cards", func(c sqlc.PageRateCardsRow) RateCardRow { return rateCardRow(sqlc.FindRateCardRow(c)) })
}

// RateCardVersion returns a published version, or an Error coded rate_card_not_found.
func (s *Store) RateCardVersion(ctx context.Context, card credit.RateCardID, version int) (RateCardVersionRow, error) {
	v, err := s.q.FindRateCardVersion(ctx, uuidOf(card), int32(version))
	return rateCardVersionRow(v), found(err, credit.Errorf(credit.RateCardNotFound, "The rate card has no version %d.", version), "read rate card version")
}

func rateCardVersionRow(v sqlc.FindRateCardVersionRow) RateCardVersionRow {
	return RateCardVersionRow{Version: int(v.Version), EffectiveAt: fromTime(v.EffectiveAt), PublishedAt: fromTime(v.PublishedAt),
		Document: v.Document, PublishedBy: v.PublishedBy, WithdrawnAt: fromTime(v.WithdrawnAt), WithdrawnBy: v.WithdrawnBy.String, Reason: v.WithdrawnBecause.String}
}

// RateCardVersionPage returns up to n versions of a card below a number, newest first.
func (s *Store) RateCardVersionPage(ctx context.Context, card credit.RateCardID, before int64, n int) ([]RateCardVersionRow, error) {
	rows, err := s.q.PageRateCardVersions(ctx, uuidOf(card), int32(min(belowNumber(before), math.MaxInt32)), int32(n))
	return page(rows, err, "read rate card versions", func(v sqlc.PageRateCardVersionsRow) RateCardVersionRow {
		return rateCardVersionRow(sqlc.FindRateCardVersionRow(v))
	})
}

// Customer returns a customer, or an Error coded customer_not_found.
func (s *Store) Customer(ctx context.Context, id credit.CustomerID) (CustomerRow, error) {
	c, err := s.q.FindCustomer(ctx, uuidOf(id))
	if err != nil {
		return CustomerRow{}, found(err, noCustomer(id.String()), "read customer")
	}
	return customerRow(c)
}

func noCustomer(name string) *credit.Error {
	return credit.Errorf(credit.CustomerNotFound, "There is no customer %.80q.", name)
}

func customerRow(r sqlc.FindCustomerRow) (CustomerRow, error) {
	c := r.Customer
	out := CustomerRow{ID: c.ID.Bytes, Entity: c.Entity, ExternalID: c.ExternalID.String, Name: c.Name, RateCard: c.RateCardID.Bytes,
		CreatedAt: fromTime(c.CreatedAt), Ver: r.Ver, Frozen: r.Frozen}
	var err error
	out.Metadata, err = readMetadata(c.Metadata)
	return out, err
}

func readMetadata(b []byte) (map[string]string, error) {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	return m, nil
}

// CustomerID finds a customer by the business's own id, or returns an Error coded customer_not_found.
func (s *Store) CustomerID(ctx context.Context, externalID string) (credit.CustomerID, error) {
	id, err := s.q.FindCustomerID(ctx, textOf(externalID))
	return id.Bytes, found(err, noCustomer(externalID), "find customer")
}

// CustomerPage returns up to n customers below an id, newest first.
func (s *Store) CustomerPage(ctx context.Context, before credit.CustomerID, n int) ([]CustomerRow, error) {
	rows, err := s.q.PageCustomers(ctx, below(before), int32(n))
	return pageOf(rows, err, "read customers", func(c sqlc.PageCustomersRow) (CustomerRow, error) { return customerRow(sqlc.FindCustomerRow(c)) })
}

// MemberID finds a customer's member by its id or, when that is zero, by the business's own id. An Error coded member_not_found
// says that the customer has no such member.
func (s *Store) MemberID(ctx context.Context, customer credit.CustomerID, id credit.MemberID, externalID string) (credit.MemberID, error) {
	m, err := s.q.FindMember(ctx, uuidOf(customer), uuidOf(id), externalID)
	return m.Bytes, found(err, credit.Errorf(credit.MemberNotFound, "The customer has no such member."), "find member")
}

// Member returns a customer's member, or an Error coded member_not_found.
func (s *Store) Member(ctx context.Context, customer credit.CustomerID, id credit.MemberID) (MemberRow, error) {
	m, err := s.q.ReadMember(ctx, uuidOf(id), uuidOf(customer))
	if err != nil {
		return MemberRow{}, found(err, credit.Errorf(credit.MemberNotFound, "The customer has no such member."), "read member")
	}
	return memberRow(m)
}

// MemberPage returns up to n members of a customer below an id, newest first.
func (s *Store) MemberPage(ctx context.Context, customer credit.CustomerID, before credit.MemberID, n int) ([]MemberRow, error) {
	rows, err := s.q.PageMembers(ctx, uuidOf(customer), below(before), int32(n))
	return pageOf(rows, err, "read members", memberRow)
}

// Wallet returns a wallet, or an Error coded wallet_not_found.
func (s *Store) Wallet(ctx context.Context, id credit.WalletID) (WalletRow, error) {
	w, err := s.q.FindWallet(ctx, uuidOf(id))
	if err != nil {
		return WalletRow{}, found(err, credit.Errorf(credit.WalletNotFound, "There is no wallet %s.", id), "read wallet")
	}
	return walletRow(w)
}

func walletRow(r sqlc.FindWalletRow) (WalletRow, error) {
	w, err := walletOf(r.Wallet)
	return WalletRow{Wallet: w, Customer: r.Wallet.CustomerID.Bytes, Overage: r.OverageID.Bytes, Scale: int(r.Scale), CreatedAt: fromTime(r.Wallet.CreatedAt)}, err
}

func walletOf(w sqlc.Wallet) (credit.Wallet, error) {
	scope, err := readScope(w.Scope)
	return credit.Wallet{ID: w.ID.Bytes, Unit: w.Unit, Name: w.Name, Priority: int(w.Priority), Scope: scope, SoftCap: w.Cap == "soft", Member: w.MemberID.Bytes}, err
}

// WalletPage returns up to n wallets below an id, newest first, of one customer or, when that is zero, of all.
func (s *Store) WalletPage(ctx context.Context, customer credit.CustomerID, before credit.WalletID, n int) ([]WalletRow, error) {
	rows, err := s.q.PageWallets(ctx, uuidOf(customer), below(before), int32(n))
	return pageOf(rows, err, "read wallets", func(w sqlc.PageWalletsRow) (WalletRow, error) { return walletRow(sqlc.FindWalletRow(w)) })
}

// Grant returns a grant, or an Error coded grant_not_found.
func (s *Store) Grant(ctx context.Context, id credit.GrantID) (GrantView, error) {
	g, err := s.q.FindGrant(ctx, uuidOf(id))
	if err != nil {
		return GrantView{}, found(err, credit.Errorf(credit.GrantNotFound, "There is no grant %s.", id), "read grant")
	}
	return grantView(g)
}

// Refunded reads what has been paid back for a grant, or is to be.
func (s *Store) Refunded(ctx context.Context, grant credit.GrantID) (Refunded, error) {
	r, err := s.q.ReadRefunded(ctx, uuidOf(grant))
	return Refunded{Money: r.Money, Tax: r.Tax}, wrap(err, "read refunds of a grant")
}

func grantView(r sqlc.FindGrantRow) (GrantView, error) {
	w, err := walletOf(r.Wallet)
	if err != nil {
		return GrantView{}, err
	}
	g := r.Grant
	scope, err := readScope(g.Scope)
	if err != nil {
		return GrantView{}, err
	}
	metadata, err := readMetadata(g.Metadata)
	return GrantView{Scale: int(r.Scale), Currency: r.Currency, Metadata: metadata, ReadAt: fromTime(r.ReadAt), Grant: credit.Grant{
		ID: g.ID.Bytes, CustomerID: g.CustomerID.Bytes, Wallet: &w, Type: credit.GrantType(g.Type), Status: credit.Status(g.Status), Frozen: g.Frozen,
		Priority: int(g.Priority), Scope: scope, MemberID: g.MemberID.Bytes, EffectiveAt: fromTime(g.EffectiveAt), ExpiresAt: fromTime(g.ExpiresAt),
		Price: credit.Money{Minor: g.PriceMinor, Currency: g.PriceCurrency.String}, Tax: g.TaxMinor, FXRate: g.FxRate.Decimal,
		Basis: g.BasisMinor, TaxBasis: g.TaxBasisMinor, PaymentRef: g.PaymentRef.String, RatePolicy: credit.RatePolicy(g.RatePolicy),
		RateVersion: int(g.RateVersion.Int32), RateCard: g.RateCardID.Bytes, BonusOf: g.BonusOf.Bytes, CreatedAt: fromTime(g.CreatedAt), IssuedAt: fromTime(g.IssuedAt), Amount: credit.Amount(g.Amount),
		Granted: credit.Amount(g.Granted), Available: credit.Amount(g.Avail), Held: credit.Amount(g.Held), Consumed: credit.Amount(g.Consumed),
		Expired: credit.Amount(g.Expired), Refunded: credit.Amount(g.Refunded), Voided: credit.Amount(g.Voided), Transferred: credit.Amount(g.Transferred),
		From: g.FromGrant.Bytes, FromVer: g.FromVer.Int64,
	}}, err
}

// GrantPage returns up to n grants below an id, newest first.
func (s *Store) GrantPage(ctx context.Context, f GrantFilter, before credit.GrantID, n int) ([]GrantView, error) {
	rows, err := s.q.PageGrants(ctx, sqlc.PageGrantsParams{CustomerID: uuidOf(f.Customer), WalletID: uuidOf(f.Wallet), State: textOf(string(f.State)),
		Before: below(before), PageSize: int32(n)})
	return pageOf(rows, err, "read grants", func(g sqlc.PageGrantsRow) (GrantView, error) { return grantView(sqlc.FindGrantRow(g)) })
}

// Refund returns a refund, or an Error coded refund_not_found.
func (s *Store) Refund(ctx context.Context, id credit.RefundID) (RefundView, error) {
	r, err := s.q.FindRefund(ctx, uuidOf(id))
	return refundView(r), found(err, credit.Errorf(credit.RefundNotFound, "There is no refund %s.", id), "read refund")
}

func refundView(v sqlc.FindRefundRow) RefundView {
	r := v.Refund
	return RefundView{Scale: int(v.Scale), Left: credit.Amount(v.Avail), SettlementMethod: r.SettlementMethod.String, SettlementRef: r.SettlementRef.String,
		SettledAt: fromTime(r.SettledAt), RefundRow: RefundRow{ID: r.ID.Bytes, Customer: r.CustomerID.Bytes, Grant: r.GrantID.Bytes, Ver: r.Ver,
			Units: credit.Amount(r.Units), Money: r.MoneyMinor, Tax: r.TaxMinor, Currency: r.Currency.String, Basis: r.BasisMinor,
			TaxBasis: r.TaxBasisMinor, Reason: r.Reason, Status: r.Status, At: fromTime(r.CreatedAt)}}
}

// RefundPage returns up to n refunds below an id, newest first.
func (s *Store) RefundPage(ctx context.Context, f RefundFilter, before credit.RefundID, n int) ([]RefundView, error) {
	rows, err := s.q.PageRefunds(ctx, sqlc.PageRefundsParams{CustomerID: uuidOf(f.Customer), GrantID: uuidOf(f.Grant), Status: textOf(f.Status),
		Before: below(before), PageSize: int32(n)})
	return page(rows, err, "read refunds", func(r sqlc.PageRefundsRow) RefundView { return refundView(sqlc.FindRefundRow(r)) })
}
