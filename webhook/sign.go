// Package webhook sends events to other people's servers: the messages and their signatures (Standard Webhooks), the addresses that may be
// dialled, the attempts and the time between them.
package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers of a message.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

const (
	secretPrefix  = "whsec_"
	secretLen     = 32 // bytes
	minSecret     = 24
	maxSecret     = 64
	version       = "v1,"
	maxSignatures = 20 // that are looked at
)

// NewSecret makes a secret.
func NewSecret() []byte {
	b := make([]byte, secretLen)
	_, _ = rand.Read(b) // never returns an error, by its documentation
	return b
}

// FormatSecret writes a secret as people handle it: "whsec_" and base64.
func FormatSecret(secret []byte) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(secret)
}

// ParseSecret reads what FormatSecret wrote, 24 to 64 bytes; the prefix may be missing.
func ParseSecret(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(s, secretPrefix))
	if err != nil || len(b) < minSecret || len(b) > maxSecret {
		return nil, errors.New("a webhook secret is whsec_ and 24 to 64 bytes in base64")
	}
	return b, nil
}

// Sign signs a message: HMAC-SHA256 of its id, the attempt's Unix time in seconds and its body, with points between them. One signature for each
// secret, with blanks between them, is the header's value.
// Source: Standard Webhooks 1.0.0, "Signature scheme".
func Sign(secrets [][]byte, id string, at time.Time, body []byte) string {
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		signatures[i] = version + base64.StdEncoding.EncodeToString(sum(secret, id, strconv.FormatInt(at.Unix(), 10), body))
	}
	return strings.Join(signatures, " ")
}

func sum(secret []byte, id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return h.Sum(nil)
}

// Tolerance is how far the timestamp of a message may be from the receiver's clock.
const Tolerance = 5 * time.Minute

// Verify tells whether a message that was received at an instant was signed with the secret; nil says so. It is for receivers: body must be
// the bytes as they came.
func Verify(secret []byte, h http.Header, body []byte, now time.Time) error {
	id, timestamp := h.Get(HeaderID), h.Get(HeaderTimestamp)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if id == "" || err != nil {
		return errors.New("the message has no webhook-id or no webhook-timestamp")
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > Tolerance || age < -Tolerance {
		return fmt.Errorf("the message's timestamp is %s off", age.Round(time.Second))
	}
	want := sum(secret, id, timestamp, body)
	for i, s := range strings.Fields(h.Get(HeaderSignature)) {
		text, ok := strings.CutPrefix(s, version)
		if i == maxSignatures {
			break
		}
		if got, err := base64.StdEncoding.DecodeString(text); ok && err == nil && subtle.ConstantTimeCompare(got, want) == 1 {
			return nil
		}
	}
	return errors.New("no signature of the message is by this secret")
}
