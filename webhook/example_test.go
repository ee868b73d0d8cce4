package webhook_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/tallystick/tallystick/webhook"
)

// A receiver verifies a message before it reads it.
func ExampleVerify() {
	secret, err := webhook.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		panic(err)
	}
	receive := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil || webhook.Verify(secret, r.Header, body, time.Now()) != nil {
			http.Error(w, "not signed", http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}

	now, body := time.Now(), `{"type":"grant.depleted"}`
	r := httptest.NewRequest(http.MethodPost, "/tallystick", strings.NewReader(body))
	r.Header.Set(webhook.HeaderID, "evt_06h08gd8jnrqsd2exqa1k3fd3c")
	r.Header.Set(webhook.HeaderTimestamp, fmt.Sprint(now.Unix()))
	r.Header.Set(webhook.HeaderSignature, webhook.Sign([][]byte{secret}, "evt_06h08gd8jnrqsd2exqa1k3fd3c", now, []byte(body)))
	w := httptest.NewRecorder()
	receive(w, r)
	fmt.Println(w.Code)
	// Output: 204
}
