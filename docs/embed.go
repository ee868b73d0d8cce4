// Package docs embeds the documents that the program serves.
package docs

import _ "embed"

// RateCardSchema is the JSON Schema of a rate card document, for editors: rate-card.schema.json. What it accepts may still be refused, for it says
// nothing of what fields mean together; what it refuses is refused.
//
//go:embed rate-card.schema.json
var RateCardSchema []byte
