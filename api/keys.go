package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

type keyDocument struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	Role      string  `json:"role"`
	Hint      string  `json:"hint"`          // the key's last four letters
	Key       string  `json:"key,omitempty"` // only in the answer that makes it
	CreatedAt string  `json:"created_at"`
	RevokedAt *string `json:"revoked_at"`
}

func describeKey(k db.APIKeyRow) keyDocument {
	return keyDocument{ID: actorText(k.No), Name: k.Name, Role: k.Role, Hint: k.Hint, CreatedAt: instantText(k.CreatedAt), RevokedAt: instantOrNull(k.RevokedAt)}
}

// createKey is POST /v1/api_keys. The key is in the first answer and nowhere else: a repetition is answered without it.
func (s *Server) createKey(ctx context.Context, c *call) error {
	secret := newSecret()
	row := db.APIKeyRow{Hint: hint(secret)}
	if err := c.input(required("name", text(&row.Name, 200)), required("role", word(&row.Role, RoleNames...))); err != nil {
		return err
	}
	return c.change(ctx, "create_api_key", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddAPIKey(ctx, row, sha256.Sum256([]byte(secret)))
		if err != nil {
			return db.Outcome{}, err
		}
		doc := describeKey(row)
		o, err := created(doc.ID, doc, map[string]string{"name": row.Name, "role": row.Role})
		if err != nil {
			return o, err
		}
		o.Kept, doc.Key = o.Answer, secret
		o.Answer, err = json.Marshal(doc)
		return o, err
	})
}

// listKeys is GET /v1/api_keys.
func (s *Server) listKeys(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, query.numberCursor)
	if err != nil {
		return err
	}
	rows, err := s.store.APIKeyPage(ctx, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeKey, func(k db.APIKeyRow) cursor { return afterNumber(int64(k.No)) })
}

// parseKeyID reads the id of an API key.
func parseKeyID(s string) (int32, error) {
	text, ok := strings.CutPrefix(s, keyPrefix)
	n, err := strconv.ParseInt(text, 10, 32)
	if !ok || err != nil || n < 1 || actorText(int32(n)) != s {
		return 0, credit.Errorf(credit.InvalidID, "%.40q is not the id of an API key.", s)
	}
	return int32(n), nil
}

// revokeKey is POST /v1/api_keys/{api_key}/revoke. Another process refuses the key within seconds, this one at once.
func (s *Server) revokeKey(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	no, err := pathID(c, "api_key", parseKeyID)
	if err != nil {
		return err
	}
	err = c.change(ctx, "revoke_api_key", actorText(no), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.RevokeAPIKey(ctx, no)
		if err != nil {
			return db.Outcome{}, err
		}
		body, err := json.Marshal(describeKey(row))
		if err != nil {
			return db.Outcome{}, fmt.Errorf("write document: %w", err)
		}
		return db.Outcome{Status: http.StatusOK, Answer: body, Subject: actorText(no)}, nil
	})
	s.keys.keys.clear()
	return err
}
