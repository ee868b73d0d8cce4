package balance

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/tallystick/tallystick/credit"
)

// TestBalancesAreWrittenAsEncodingJSONWrites holds the hand-written encoder against the library.
func TestBalancesAreWrittenAsEncodingJSONWrites(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		d := BalanceDocument{CustomerID: credit.NewID[credit.CustomerID](), Ver: random.Int64(), AgeMS: random.Int64(), Units: []UnitBalance{}}
		for range random.IntN(3) {
			u := UnitBalance{Unit: "CRD", Available: credit.Amount(random.Int64N(int64(credit.MaxAmount))).Format(6), Wallets: []WalletBalance{}}
			for range random.IntN(3) {
				u.Wallets = append(u.Wallets, WalletBalance{WalletID: credit.NewID[credit.WalletID](), Available: "1.5"})
			}
			d.Units = append(d.Units, u)
		}
		want, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		got := append(appendUnits(appendBalanceHead(nil, d.CustomerID, d.Ver, d.AgeMS), d.Units), '}')
		if string(got) != string(want) {
			t.Fatalf("%s\n%s", got, want)
		}
	}
}
