package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/trunktap/trunktap/cmd/trunktap/picture"
	"github.com/trunktap/trunktap/recorder"
)

type lsCmd struct {
	configFlag
	kong.Plugins
	Limit  int  `help:"At most so many." default:"100"`
	Oldest bool `help:"Oldest first: --order oldest."`
	JSON   bool `help:"Print JSON." name:"json"`

	search *searchFlags
}

func newLs() lsCmd {
	s := newSearchFlags("limit")
	return lsCmd{Plugins: s.plugin(), search: s}
}

// moment is a time on the command line.
type moment struct{ time.Time }

// UnmarshalText reads RFC 3339, or a date that begins at local midnight.
func (m *moment) UnmarshalText(text []byte) (err error) {
	if m.Time, err = time.Parse(time.RFC3339Nano, string(text)); err == nil {
		return nil
	}
	if m.Time, err = time.ParseInLocation(time.DateOnly, string(text), time.Local); err == nil {
		return nil
	}
	return fmt.Errorf("%q is no time; allowed: 2026-11-22T16:36:08Z or 2026-11-22", text)
}

const pageMax = 1000 // recordings, of the API and the catalogue

// Run lists recordings, page by page up to the limit.
func (c *lsCmd) Run(e *env) (err error) {
	if c.Limit < 1 {
		return usagef("trunktap: ls: --limit %d; allowed: 1 or more", c.Limit)
	}
	q, err := c.search.query()
	if err != nil {
		return err
	}
	if c.Oldest {
		q.Order = recorder.OrderOldest
	}
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	all := listing{Recordings: []recorder.Manifest{}}
	for len(all.Recordings) < c.Limit {
		q.Limit = min(pageMax, c.Limit-len(all.Recordings))
		page, err := src.find(e.ctx, q)
		if err != nil {
			return fmt.Errorf("list recordings: %w", err)
		}
		all.add(page)
		q.Total = false // the first page has told
		if q.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(all)
	}
	return printListing(e, all)
}

// printListing prints a table. Whose recordings they are is shown when any is
// somebody's.
func printListing(e *env, l listing) error {
	owned := slices.ContainsFunc(l.Recordings, func(m recorder.Manifest) bool { return m.User != "" })
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	line := func(id, kind, user string, rest ...string) {
		cells := []string{id, kind}
		if owned {
			cells = append(cells, user)
		}
		_, _ = fmt.Fprintln(w, strings.Join(append(cells, rest...), "\t")) // errors come with Flush
	}
	line("ID", "KIND", "USER", "STARTED", "TRUNK", "DIRECTION", "FROM", "TO", "REAL", "AUDIO", "WINDOWS", "GAPS", "END")
	for _, m := range l.Recordings {
		line(clean(m.ID), clean(string(m.Kind)), dash(clean(m.User)), begun(m).Local().Format(time.DateTime), clean(m.Trunk), clean(m.Call.Direction),
			party(m.Call.From), party(m.Call.To), picture.Clock(m.RealMS, true), picture.Clock(m.AudioMS, true), reasons(m.Windows),
			strconv.Itoa(len(m.Gaps)), ending(m))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if l.Total != nil {
		e.note("%s match", atLeast(*l.Total, l.TotalMore))
	}
	if l.Next != "" {
		e.note("there are more, see --limit")
	}
	return nil
}

// ending is how a recording ended, and how it is kept.
func ending(m recorder.Manifest) string {
	switch {
	case m.Shredded != nil:
		return "shredded " + m.Shredded.At.Local().Format(time.DateOnly)
	case m.Unsealed:
		return clean(m.Call.EndCause) + ", unsealed"
	}
	return clean(m.Call.EndCause)
}

func atLeast(n int64, more bool) string {
	if more {
		return fmt.Sprintf("more than %d", n)
	}
	return strconv.FormatInt(n, 10)
}

// begun is when a recording began: at its origin, or with its call when that was
// never answered.
func begun(m recorder.Manifest) time.Time {
	if m.Origin.IsZero() {
		return m.Call.Start
	}
	return m.Origin
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// party shortens an address-of-record to what people know it by.
func party(uri string) string {
	_, rest, ok := strings.Cut(uri, ":")
	if !ok {
		rest = uri
	}
	user, _, ok := strings.Cut(rest, "@")
	if ok {
		return clean(user)
	}
	return clean(rest)
}

// reasons lists why something was suppressed, with how often.
func reasons(windows []recorder.Window) string {
	count := map[string]int{}
	var names []string
	for _, w := range windows {
		if count[w.Reason]++; count[w.Reason] == 1 {
			names = append(names, w.Reason)
		}
	}
	slices.Sort(names)
	for i, n := range names {
		if c := count[n]; c > 1 {
			names[i] = fmt.Sprintf("%s×%d", n, c)
		}
	}
	if len(names) == 0 {
		return "-"
	}
	return clean(strings.Join(names, ","))
}
