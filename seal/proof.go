package seal

import (
	"encoding/json"
	"fmt"
)

// Proof shows, to whoever has the root of a seal and nothing else, that an entry is among the sealed ones as it stands here.
type Proof struct {
	Entry []byte `json:"entry"` // its canonical text, base64 in JSON
	Index int64  `json:"index"` // in the tree, from 0: one less than its number
	Path  []Hash `json:"path"`  // from the leaf up
	Seal  Seal   `json:"seal"`
}

// Check returns the entry that is proved to be in the tree with the given root. A zero root stands for that of the proof's own seal, whose signature
// must then be by one of the trusted keys (nil: any).
func (p *Proof) Check(root Hash, trusted []string) (Entry, error) {
	if root.IsZero() {
		if err := p.Seal.Check(trusted); err != nil {
			return Entry{}, err
		}
		root = p.Seal.Root
	}
	e, err := ReadEntry(p.Entry)
	if err != nil {
		return Entry{}, err
	}
	if err := CheckInclusion(root, p.Seal.Size, p.Index, LeafHash(p.Entry), p.Path); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// JSON is the proof as a document.
func (p *Proof) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write proof: %w", err)
	}
	return append(b, '\n'), nil
}

// ReadProof reads the document of a proof, strictly. It proves nothing yet.
func ReadProof(b []byte) (*Proof, error) {
	var p Proof
	if err := strictly(b, &p); err != nil {
		return nil, fmt.Errorf("read proof: %w", err)
	}
	return &p, nil
}
