package credit_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tallystick/tallystick/credit"
)

func TestCodeOf(t *testing.T) {
	refusal := credit.Errorf(credit.InsufficientCredits, "%d credits available, %d asked for.", 3, 5)
	if got := credit.CodeOf(fmt.Errorf("consume: %w", refusal)); got != credit.InsufficientCredits {
		t.Errorf("the wrapped refusal is %q", got)
	}
	if got := credit.CodeOf(errors.New("connection reset")); got != "" {
		t.Errorf("a fault is %q", got)
	}
	if got := credit.CodeOf(nil); got != "" {
		t.Errorf("nil is %q", got)
	}
	if got := refusal.Error(); got != "insufficient_credits: 3 credits available, 5 asked for." {
		t.Errorf("it says %q", got)
	}
}

func TestWithLeavesTheOriginal(t *testing.T) {
	a := credit.Errorf(credit.InsufficientCredits, "no")
	b := a.With("required", "5")
	c := b.With("available", "3")
	if a.Fields != nil || len(b.Fields) != 1 || len(c.Fields) != 2 || c.Fields["required"] != "5" {
		t.Errorf("%v, %v, %v", a.Fields, b.Fields, c.Fields)
	}
}

func TestInvalidPointsAtThePlace(t *testing.T) {
	err := credit.Invalid("/quantity", "must be at least %d", 1)
	if err.Code != credit.InvalidRequest || len(err.Issues) != 1 || err.Issues[0] != (credit.Issue{Pointer: "/quantity", Detail: "must be at least 1"}) {
		t.Errorf("%+v", err)
	}
}
