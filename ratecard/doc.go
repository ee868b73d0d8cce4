// Package ratecard is rate cards as people write them: files with places, what is wrong with them and where, what has changed between two, and
// what usage would cost. It treats a document as JSON that credit/rating judges, and knows none of its fields. README.md has more.
package ratecard
