// Package seal is what makes the money book provable: the one canonical encoding of a journal entry and its hash, the Merkle tree over the
// entries of a period (RFC 6962), and the signed seal that names the tree's root. No I/O, no clock. README.md is its one-page description.
package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a SHA-256 hash. On the wire and in text it is 64 lower-case hexadecimal digits; the zero Hash is the empty text.
type Hash [sha256.Size]byte

// IsZero tells whether there is no hash.
func (h Hash) IsZero() bool { return h == Hash{} }

func (h Hash) String() string {
	if h.IsZero() {
		return ""
	}
	return hex.EncodeToString(h[:])
}

// ParseHash reads 64 lower-case hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != s {
		return h, fmt.Errorf("%.80q is not a hash: 64 hexadecimal digits in lower case", s)
	}
	return Hash(b), nil
}

// MarshalText and UnmarshalText make the hash travel as its text.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*h = Hash{}
		return nil
	}
	parsed, err := ParseHash(string(b))
	if err == nil {
		*h = parsed
	}
	return err
}

// LeafHash is the hash of a leaf: SHA-256 of a zero byte and the leaf. Source: RFC 6962, section 2.1.
func LeafHash(leaf []byte) Hash { return Hash(tlog.RecordHash(leaf)) }

// Tree is the Merkle tree over a growing list of leaves. The zero Tree has none. It keeps two hashes for each leaf, 64 bytes.
type Tree struct {
	size   int64
	hashes []tlog.Hash
}

// Append adds the hash of a leaf.
func (t *Tree) Append(leaf Hash) {
	more, err := tlog.StoredHashesForRecordHash(t.size, tlog.Hash(leaf), t.reader())
	if err != nil {
		panic("seal: " + err.Error()) // the reader below has every hash that is asked for
	}
	t.hashes = append(t.hashes, more...)
	t.size++
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

func (t *Tree) reader() tlog.HashReaderFunc {
	return func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			if x < 0 || x >= int64(len(t.hashes)) {
				return nil, fmt.Errorf("hash %d of %d is asked for", x, len(t.hashes))
			}
			out[i] = t.hashes[x]
		}
		return out, nil
	}
}

var errSize = errors.New("the tree has no such size")

// Root returns the root of the tree over the first size leaves; of none it is the SHA-256 of nothing.
func (t *Tree) Root(size int64) (Hash, error) {
	if size < 0 || size > t.size {
		return Hash{}, errSize
	}
	h, err := tlog.TreeHash(size, t.reader())
	return Hash(h), err
}

// Include proves that the leaf at index, counted from 0, is in the tree over the first size leaves: its audit path, from the leaf up.
func (t *Tree) Include(size, index int64) ([]Hash, error) {
	if size < 0 || size > t.size || index < 0 || index >= size {
		return nil, errSize
	}
	p, err := tlog.ProveRecord(size, index, t.reader())
	return hashesOf(p), err
}

// Extend proves that the tree over the first size leaves begins with the tree over the first old ones.
func (t *Tree) Extend(size, old int64) ([]Hash, error) {
	if size < 0 || size > t.size || old < 1 || old > size {
		return nil, errSize
	}
	p, err := tlog.ProveTree(size, old, t.reader())
	return hashesOf(p), err
}

// CheckInclusion returns an error unless the path proves that a leaf is at an index of the tree with this size and root.
func CheckInclusion(root Hash, size, index int64, leaf Hash, path []Hash) error {
	if err := tlog.CheckRecord(logHashes[tlog.RecordProof](path), size, tlog.Hash(root), index, tlog.Hash(leaf)); err != nil {
		return fmt.Errorf("the path does not lead from leaf %d to the root of %d leaves", index, size)
	}
	return nil
}

// CheckExtension returns an error unless the path proves that the tree with this size and root begins with the older one.
func CheckExtension(root Hash, size int64, oldRoot Hash, old int64, path []Hash) error {
	if err := tlog.CheckTree(logHashes[tlog.TreeProof](path), size, tlog.Hash(root), old, tlog.Hash(oldRoot)); err != nil {
		return fmt.Errorf("the path does not show that the tree of %d leaves begins with the tree of %d", size, old)
	}
	return nil
}

func hashesOf[P ~[]tlog.Hash](p P) []Hash {
	out := make([]Hash, len(p))
	for i, h := range p {
		out[i] = Hash(h)
	}
	return out
}

func logHashes[P ~[]tlog.Hash](path []Hash) P {
	out := make(P, len(path))
	for i, h := range path {
		out[i] = tlog.Hash(h)
	}
	return out
}
