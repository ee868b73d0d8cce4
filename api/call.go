package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// call is one request on its way through a handler. It is reused: nothing may keep it.
type call struct {
	*Server
	w       http.ResponseWriter
	r       *http.Request
	route   *route
	path    echo.Context // for the parameters of the path
	id      credit.RequestID
	caller  caller
	started time.Time
	asked   string // the body, in the form that tells requests apart
	status  int    // answered; 0: not yet
}

// handler answers a call, or returns why it cannot.
type handler func(ctx context.Context, c *call) error

// Bounds of request bodies, in bytes.
const (
	maxBody     = 64 << 10
	maxBatch    = 2 << 20
	maxRateCard = 8<<20 + 4<<10
)

// body reads the request's JSON document.
func (c *call) body() (string, error) { return c.text(typeJSON) }

// text reads the request's body of a media type. A body that says that it is too large is not read at all, one that turns out to be no
// further than the bound.
func (c *call) text(media []string) (string, error) {
	h := c.r.Header
	if t := h["Content-Type"]; len(t) != 1 || t[0] != media[0] && !isType(t[0], media[0]) {
		return "", credit.Errorf(credit.UnsupportedMedia, "The Content-Type must be %s, in UTF-8.", media[0])
	}
	return c.whole()
}

// uncompressed refuses a body that is compressed.
func (c *call) uncompressed() error {
	if e := c.r.Header["Content-Encoding"]; len(e) > 0 && e[0] != "" && e[0] != "identity" {
		return credit.Errorf(credit.UnsupportedMedia, "A compressed body is not accepted.")
	}
	return nil
}

// whole reads the request's body, of whatever type.
func (c *call) whole() (string, error) {
	if err := c.uncompressed(); err != nil {
		return "", err
	}
	limit := c.route.limit
	if c.r.ContentLength > limit {
		return "", tooLarge(limit)
	}
	buf := buffers.get()
	defer buffers.put(buf)
	if err := readUpTo(buf, c.r.Body, limit+1); err != nil {
		return "", credit.Errorf(credit.InvalidRequest, "The body could not be read to its end.")
	}
	if int64(len(*buf)) > limit {
		return "", tooLarge(limit)
	}
	return string(*buf), nil
}

// readUpTo appends at most limit bytes to buf.
func readUpTo(buf *[]byte, from io.Reader, limit int64) error {
	b := *buf
	defer func() { *buf = b }()
	for int64(len(b)) < limit {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := from.Read(b[len(b):min(int64(cap(b)), limit)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read body: %w", err)
		}
	}
	return nil
}

func tooLarge(limit int64) error {
	return credit.Errorf(credit.TooLarge, "The body is larger than %d bytes.", limit).With("limit", limit)
}

func isType(t, want string) bool {
	media, params, err := mime.ParseMediaType(t)
	charset := params["charset"]
	return err == nil && media == want && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// input reads the request's body as an object of these fields. Where none is required, there need not be a body.
func (c *call) input(fs ...field) error {
	body, err := "{}", error(nil)
	if c.r.ContentLength != 0 || slices.ContainsFunc(fs, func(f field) bool { return f.required }) {
		if body, err = c.body(); err != nil {
			return err
		}
	}
	if err := readAll(body, fs...); err != nil {
		return err
	}
	c.asked, err = canonical(body)
	return err
}

// canonical writes a JSON document that has been read so that the same content is the same text.
func canonical(body string) (string, error) {
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", fmt.Errorf("read body again: %w", err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write canonical body: %w", err)
	}
	return string(b), nil
}

// key returns the Idempotency-Key, which everything that changes something must have.
func (c *call) key() (string, error) {
	keys := c.r.Header["Idempotency-Key"]
	if len(keys) != 1 || !validKey(keys[0]) {
		return "", credit.Invalid("Idempotency-Key", "An Idempotency-Key header of 1 to 255 printable ASCII characters is required, once.")
	}
	return keys[0], nil
}

func validKey(key string) bool {
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return false
		}
	}
	return key != "" && len(key) <= 255
}

// pathText returns a parameter of the path.
func (c *call) pathText(name string) (string, error) {
	text := c.path.Param(name)
	if strings.IndexByte(text, '%') >= 0 && c.r.URL.RawPath != "" { // otherwise the path came unescaped
		var err error
		if text, err = url.PathUnescape(text); err != nil {
			return "", credit.Invalid(name, "The path is not escaped properly.")
		}
	}
	if !clean(text) {
		return "", credit.Invalid(name, "The path is not valid UTF-8.")
	}
	return text, nil
}

// clean tells whether Postgres could hold a text.
func clean(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// pathID returns an identifier in the path.
func pathID[I any](c *call, name string, parse func(string) (I, error)) (I, error) {
	text, err := c.pathText(name)
	if err != nil {
		var zero I
		return zero, err
	}
	id, err := parse(text)
	return id, in(name, err)
}

// pathCustomer returns the customer named in the path, by its id or its external id.
func (c *call) pathCustomer(ctx context.Context) (credit.CustomerID, error) {
	text, err := c.pathText("customer")
	if err != nil {
		return credit.CustomerID{}, err
	}
	id, err := c.customerID(ctx, text)
	return id, in("customer", err)
}

// in says in which part of a request a refusal's fault lies, if it does not say so itself.
func in(pointer string, err error) error {
	e, ok := err.(*credit.Error)
	if !ok || len(e.Issues) > 0 || e.Code != credit.InvalidID && e.Code != credit.InvalidAmount && e.Code != credit.InvalidRequest {
		return err
	}
	named := *e
	named.Issues = []credit.Issue{{Pointer: pointer, Detail: e.Detail}}
	return &named
}

// digest tells requests with the same key apart: by route, by what the path names, and by the body.
func (c *call) digest(subject string) [16]byte {
	return balance.RequestDigest(c.route.Method, c.route.Path, subject, c.asked)
}

// operation begins an operation of a customer; subject is what the path names.
func (c *call) operation(customer credit.CustomerID, subject string) (balance.Header, error) {
	key, err := c.key()
	return balance.Header{Customer: customer, Key: balance.ClientKey(key), Request: c.digest(customer.String() + " " + subject), Actor: c.caller.no, RequestID: c.id}, err
}

// do carries out an operation and answers with its receipt.
func (c *call) do(ctx context.Context, status int, op balance.Operation) error {
	a, err := c.service.Do(ctx, op)
	if a.Replayed {
		c.w.Header()["Idempotent-Replayed"] = replayed
	}
	if err != nil {
		return err
	}
	if a.Quarantined {
		status = http.StatusAccepted
	}
	c.write(status, a.Body)
	return nil
}

// changeTimeout is after how long a change that is no operation ends without an outcome, as one that is an operation does.
const changeTimeout = 5 * time.Second

// change makes a change that is no operation of a customer, and answers with its document; subject is what the path names.
func (c *call) change(ctx context.Context, action, subject string, do func(context.Context, *db.Catalog) (db.Outcome, error)) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	o, again, err := c.store.Change(ctx, db.Audited{Key: balance.ClientKey(key), Request: c.digest(subject), Actor: c.caller.no, RequestID: c.id, Action: action}, do)
	if err != nil {
		return err
	}
	if again {
		c.w.Header()["Idempotent-Replayed"] = replayed
	}
	c.write(o.Status, o.Answer)
	return nil
}

var replayed = []string{"true"}

// write answers with a JSON document.
func (c *call) write(status int, body []byte) {
	h := c.w.Header()
	h["Content-Type"] = typeJSON
	if len(body) > 2<<10 { // net/http counts what is shorter itself
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	c.status = status
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // a client that has gone does not need the answer
}

// writeAs answers 200 with a document that is not of the API's own.
func (c *call) writeAs(contentType string, body []byte) {
	c.w.Header().Set("Content-Type", contentType)
	c.status = http.StatusOK
	_, _ = c.w.Write(body)
}

// document answers 200 with the JSON of v.
func (c *call) document(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	c.write(http.StatusOK, body)
	return nil
}

// created is the outcome of a change that made something.
func created(subject string, v, detail any) (db.Outcome, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return db.Outcome{}, fmt.Errorf("write document: %w", err)
	}
	return db.Outcome{Status: http.StatusCreated, Answer: body, Subject: subject, Detail: detail}, nil
}
