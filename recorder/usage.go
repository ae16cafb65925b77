package recorder

import (
	"context"
	"slices"
	"strings"
	"time"
)

// UsageGroups are what usage can be grouped by.
var UsageGroups = []string{"day", "trunk", "user", "kind", "store", "node"}

// UsageQuery asks what is stored. Zero fields do not restrict.
type UsageQuery struct {
	Group    []string // of UsageGroups; none: one sum
	From, To string   // days of origins in UTC, 2026-11-22, in [From, To)

	Trunk string
	User  string
	Kind  Kind
	Store string
	Node  string
}

// Check tells what is wrong with the query; errors are *QueryError.
func (q *UsageQuery) Check() error {
	for i, g := range q.Group {
		if !slices.Contains(UsageGroups, g) || slices.Contains(q.Group[:i], g) {
			return &QueryError{"group", "allowed, each once: " + strings.Join(UsageGroups, ", ")}
		}
	}
	for name, day := range map[string]string{"from": q.From, "to": q.To} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return &QueryError{name, "allowed: a day, such as 2026-11-22"}
		}
	}
	return nil
}

// Usage is what is stored of one group.
type Usage struct {
	Day   string `json:"day,omitempty"` // of the origin, in UTC
	Trunk string `json:"trunk,omitempty"`
	User  string `json:"user,omitempty"`
	Kind  Kind   `json:"kind,omitempty"`
	Store string `json:"store,omitempty"`
	Node  string `json:"node,omitempty"`

	Recordings    int64 `json:"recordings"`
	AudioMS       int64 `json:"audio_ms"`
	AudioBytes    int64 `json:"audio_bytes"` // as stored: coded and sealed
	ManifestBytes int64 `json:"manifest_bytes"`
	OtherBytes    int64 `json:"other_bytes"`
}

// Bytes is everything that is stored.
func (u *Usage) Bytes() int64 { return u.AudioBytes + u.ManifestBytes + u.OtherBytes }

// Accountant is a catalogue that keeps the account of what is stored.
type Accountant interface {
	Usage(ctx context.Context, q UsageQuery) ([]Usage, error)
}
