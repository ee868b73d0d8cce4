package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The example of the Standard Webhooks specification and its libraries.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestTheSpecificationsVector(t *testing.T) {
	secret, err := ParseSecret(vectorSecret)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(vectorTime, 0)
	if got := Sign([][]byte{secret}, vectorID, at, []byte(vectorBody)); got != vectorSignature {
		t.Errorf("the signature is %s, not %s", got, vectorSignature)
	}
	other := NewSecret()
	both := Sign([][]byte{other, secret}, vectorID, at, []byte(vectorBody))
	if first, second, ok := strings.Cut(both, " "); !ok || second != vectorSignature || first == second {
		t.Errorf("two signatures are %s", both)
	}
	if FormatSecret(secret) != vectorSecret {
		t.Errorf("the secret is written %s", FormatSecret(secret))
	}
	header := func(id, at, signature string) http.Header {
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", at)
		h.Set("webhook-signature", signature)
		return h
	}
	const stamp = "1614265330"
	for name, c := range map[string]struct {
		h    http.Header
		body string
		now  time.Time
		ok   bool
	}{
		"as it is":            {header(vectorID, stamp, vectorSignature), vectorBody, at, true},
		"among others":        {header(vectorID, stamp, "v1a,AAAA "+both+" v2,x"), vectorBody, at, true},
		"late":                {header(vectorID, stamp, vectorSignature), vectorBody, at.Add(Tolerance), true},
		"too late":            {header(vectorID, stamp, vectorSignature), vectorBody, at.Add(Tolerance + time.Second), false},
		"from the future":     {header(vectorID, stamp, vectorSignature), vectorBody, at.Add(-Tolerance - time.Second), false},
		"another body":        {header(vectorID, stamp, vectorSignature), vectorBody + " ", at, false},
		"another id":          {header(vectorID+"x", stamp, vectorSignature), vectorBody, at, false},
		"another time":        {header(vectorID, "1614265331", vectorSignature), vectorBody, at, false},
		"no id":               {header("", stamp, vectorSignature), vectorBody, at, false},
		"no time":             {header(vectorID, "", vectorSignature), vectorBody, at, false},
		"no signature":        {header(vectorID, stamp, ""), vectorBody, at, false},
		"another version":     {header(vectorID, stamp, "v2"+vectorSignature[2:]), vectorBody, at, false},
		"a cut signature":     {header(vectorID, stamp, vectorSignature[:30]), vectorBody, at, false},
		"another's signature": {header(vectorID, stamp, Sign([][]byte{other}, vectorID, at, []byte(vectorBody))), vectorBody, at, false},
	} {
		if err := Verify(secret, c.h, []byte(c.body), c.now); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is signed is verified, and changed in any byte it is not.
func TestSignaturesHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), minSecret, maxSecret).Draw(t, "secret")
		if back, err := ParseSecret(FormatSecret(secret)); err != nil || string(back) != string(secret) {
			t.Fatalf("%v %v", back, err)
		}
		body := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "body")
		id := rapid.StringMatching(`evt_[0-9a-z]{26}`).Draw(t, "id")
		at := time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "at"), 0)
		h := http.Header{}
		h.Set(HeaderID, id)
		h.Set(HeaderTimestamp, fmt.Sprint(at.Unix()))
		h.Set(HeaderSignature, Sign([][]byte{secret}, id, at, body))
		if err := Verify(secret, h, body, at); err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); h.Get(HeaderSignature) != want {
			t.Fatalf("%s, want %s", h.Get(HeaderSignature), want)
		}
		body[rapid.IntRange(0, len(body)-1).Draw(t, "where")] ^= byte(rapid.IntRange(1, 255).Draw(t, "how"))
		if Verify(secret, h, body, at) == nil {
			t.Fatal("another body is verified")
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	for _, s := range []string{vectorSecret, "whsec_", "", "whsec_AAAA", strings.TrimPrefix(vectorSecret, "whsec_")} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		secret, err := ParseSecret(s)
		if err != nil {
			return
		}
		if len(secret) < minSecret || len(secret) > maxSecret {
			t.Errorf("%q has %d bytes", s, len(secret))
		}
		if again, err := ParseSecret(FormatSecret(secret)); err != nil || string(again) != string(secret) {
			t.Errorf("%q is written %q", s, FormatSecret(secret))
		}
	})
}
