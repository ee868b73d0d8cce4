package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// story is what happened to a grant, the oldest first.
type story struct {
	Lines   []storyLine `json:"lines,omitempty"`
	Dropped int         `json:"dropped,omitempty"` // lines before these
}

type storyLine struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

const storyLines = 40 // the details of a workflow are bounded

func (s *story) add(at time.Time, text string) {
	if len(s.Lines) == storyLines {
		s.Lines = slices.Delete(s.Lines, 0, 1)
		s.Dropped++
	}
	s.Lines = append(s.Lines, storyLine{At: at.UTC().Truncate(time.Second), Text: text})
}

// begin tells how a grant came to be.
func (s *story) begin(f activities.GrantFacts) {
	switch {
	case f.IssuedAt.IsZero():
		s.add(f.CreatedAt, "Created; its payment is awaited.")
	case f.IssuedAt.Equal(f.CreatedAt):
		s.add(f.CreatedAt, "Created and issued.")
	default:
		s.add(f.CreatedAt, "Created.")
		s.add(f.IssuedAt, "Paid: its credits are issued.")
	}
}

func (s *story) texts() []string {
	texts := make([]string, len(s.Lines))
	for i, l := range s.Lines {
		texts[i] = timeText(l.At) + ": " + l.Text
	}
	return texts
}

// list is the story as a list in markdown.
func (s *story) list() string {
	list := ""
	for _, text := range s.texts() {
		list += "- " + text + "\n"
	}
	return list
}

// show keeps the search attributes and the details in the web UI as the grant stands.
func (l *lifecycle) show(ctx workflow.Context, next moment) error {
	now := workflow.Now(ctx)
	f := &l.facts
	details := fmt.Sprintf("**%s**: %s. Expires: %s.\n\n", f.State(now), grantText(f), expiryText(f.ExpiresAt))
	if !f.Over() {
		details += "**Next**: " + l.nextText(next, now) + "\n\n"
	}
	if l.story.Dropped > 0 {
		details += fmt.Sprintf("- (%d earlier lines)\n", l.story.Dropped)
	}
	workflow.SetCurrentDetails(ctx, details+l.story.list())

	want := standing{state: f.State(now), expiresAt: f.ExpiresAt}
	if want.state == l.shown.state && want.expiresAt.Equal(l.shown.expiresAt) {
		return nil
	}
	l.shown = want
	return workflow.UpsertTypedSearchAttributes(ctx, GrantState.ValueSet(string(want.state)), expiresAttribute(want.expiresAt))
}

// nextText says what the workflow waits for.
func (l *lifecycle) nextText(next moment, now time.Time) string {
	f := &l.facts
	switch {
	case f.Over():
		return "nothing more."
	case f.Frozen:
		return "nothing before it is unfrozen; meanwhile it does not expire."
	case f.Status == credit.StatusPending && !f.ExpiresAt.IsZero() && !now.Before(f.ExpiresAt):
		return "its expiry came before its payment: it can only be voided."
	case f.Status == credit.StatusPending:
		return "its payment."
	case next.what == nothing:
		return "nothing before it is used up or changed: it never expires."
	}
	return timeText(next.at) + ", " + next.text() + "."
}

// text names the moment, for its timer and for the story.
func (m moment) text() string {
	switch m.what {
	case effect:
		return "its credits become active"
	case reminder:
		return "reminder: " + daysText(m.days) + " to the expiry"
	case expiry:
		return "its expiry"
	}
	return ""
}

func daysText(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}

// grantText says what the grant is: "1000 CRD, purchased for 100.00 USD".
func grantText(f *activities.GrantFacts) string {
	text := f.Credits + ", " + string(f.Type)
	if f.Price != "" {
		text += " for " + f.Price
	}
	return text
}

func expiryText(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return timeText(t)
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func actorText(actor int32) string {
	if actor == 0 {
		return "by an operator"
	}
	return fmt.Sprintf("by API key %d", actor)
}

// oneLine makes free text fit into a line of markdown.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}

// GrantSummary is the one line that names a grant's workflow in lists.
func GrantSummary(f *activities.GrantFacts) string {
	return grantText(f) + ", expires " + expiryText(f.ExpiresAt)
}

// GrantDetails says what does not change about a grant.
func GrantDetails(f *activities.GrantFacts) string {
	return fmt.Sprintf("%s.\n\n- grant `%s`\n- wallet `%s`\n- customer `%s`\n- created %s\n",
		grantText(f), f.GrantID, f.WalletID, f.CustomerID, timeText(f.CreatedAt))
}

// Grants' workflows are found by these search attributes.
var (
	GrantCustomer  = temporal.NewSearchAttributeKeyKeyword("GrantCustomer")
	GrantWallet    = temporal.NewSearchAttributeKeyKeyword("GrantWallet")
	GrantType      = temporal.NewSearchAttributeKeyKeyword("GrantType")
	GrantState     = temporal.NewSearchAttributeKeyKeyword("GrantState")
	GrantExpiresAt = temporal.NewSearchAttributeKeyTime("GrantExpiresAt") // unset: never
)

// GrantAttributes are the search attributes of a grant's workflow at its start.
func GrantAttributes(f *activities.GrantFacts) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(GrantCustomer.ValueSet(f.CustomerID.String()), GrantWallet.ValueSet(f.WalletID.String()),
		GrantType.ValueSet(string(f.Type)), GrantState.ValueSet(string(f.State(f.ReadAt))), expiresAttribute(f.ExpiresAt))
}

func expiresAttribute(t time.Time) temporal.SearchAttributeUpdate {
	if t.IsZero() {
		return GrantExpiresAt.ValueUnset()
	}
	return GrantExpiresAt.ValueSet(t)
}
