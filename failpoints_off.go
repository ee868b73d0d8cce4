//go:build !failpoints

package main

// failpoints are where a test may crash the process. The program that is shipped has none.
func failpoints() map[string]func() { return nil }
