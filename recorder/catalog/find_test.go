package catalog

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
)

// TestFind compares every query with a naive selection, in all orders and over
// pages of several sizes.
func TestFind(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) { testFind(t, open()) })
}

func testFind(t *testing.T, c *Catalog) {
	rows := fill(t, c, 120)
	far := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) // farther than nanoseconds reach
	near := time.Date(1, 2, 1, 0, 0, 0, 0, time.UTC)
	for _, q := range []recorder.Query{
		{},
		{Trunk: "trunk-1"},
		{Kind: recorder.KindConsult},
		{Conversation: "conv3"},
		{User: "Agent 1'"},
		{User: "agent 1'"}, // names are exact
		{User: "Agent 2'", Kind: recorder.KindConsult, Conversation: "conv1"},
		{User: "Agent 2'", Kind: recorder.KindTrunk},
		{SIPCallID: "call4@example.net"},
		{Number: "+49300011"},
		{Number: "agent_1%"},
		{Number: "NT_"},
		{Number: `\\\`},
		{Number: "' OR 1=1"},
		{From: epoch.Add(10 * time.Second)},
		{To: epoch.Add(10 * time.Second)},
		{From: epoch.Add(5 * time.Second), To: epoch.Add(9 * time.Second)},
		{Trunk: "trunk-0", Kind: recorder.KindTrunk, Number: "agent_2", From: epoch.Add(3 * time.Second)},
		{Trunk: "none"},
		{From: far},
		{To: far},
		{From: near},
		{To: near},
	} {
		for _, limit := range []int{0, 7, 1000} {
			for _, order := range []string{"", recorder.OrderOldest, recorder.OrderLongest, recorder.OrderShortest} {
				q.Limit, q.Order, q.Cursor = limit, order, ""
				got := pages(t, c, q)
				if d := gocmp.Diff(sorted(naive(rows, q)), sorted(got)); d != "" {
					t.Errorf("%+v (-want +got):\n%s", q, d)
				}
				checkOrder(t, rows, q, got)
			}
		}
	}
}

func sorted(ids []string) []string { return slices.Sorted(slices.Values(ids)) }

// checkOrder holds that ids come in the order asked for. Of one origin any may come first.
func checkOrder(t *testing.T, rows []recorder.Row, q recorder.Query, ids []string) {
	t.Helper()
	byID := map[string]recorder.Row{}
	for _, r := range rows {
		byID[r.Manifest.ID] = r
	}
	for i := 1; i < len(ids); i++ {
		a, b := byID[ids[i-1]], byID[ids[i]]
		if q.Order == "" || q.Order == recorder.OrderLongest {
			a, b = b, a
		}
		bad := originOf(a).After(originOf(b))
		if q.Order == recorder.OrderLongest || q.Order == recorder.OrderShortest {
			bad = a.Manifest.RealMS > b.Manifest.RealMS
		}
		if bad {
			t.Fatalf("%+v: %s before %s", q, ids[i-1], ids[i])
		}
	}
}

func naive(rows []recorder.Row, q recorder.Query) []string {
	ids := []string{}
	inOrder := slices.SortedFunc(slices.Values(rows), func(a, b recorder.Row) int {
		return cmp.Or(originOf(a).Compare(originOf(b)), cmp.Compare(a.Manifest.ID, b.Manifest.ID))
	})
	if q.Order == "" {
		slices.Reverse(inOrder)
	}
	for _, r := range inOrder {
		if naiveMatch(&r, &q) {
			ids = append(ids, r.Manifest.ID)
		}
	}
	return ids
}

// pages walks through all pages of a query.
func pages(t testing.TB, c *Catalog, q recorder.Query) []string {
	t.Helper()
	ids := []string{}
	for range 10_000 {
		p, err := c.Find(context.Background(), q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		for _, r := range p.Rows {
			ids = append(ids, r.Manifest.ID)
		}
		if q.Limit > 0 && q.Limit <= pageMax && len(p.Rows) > q.Limit || len(p.Rows) > pageMax {
			t.Fatalf("page of %d rows, limit %d", len(p.Rows), q.Limit)
		}
		if p.Next == "" {
			return ids
		}
		if !p.Partial && len(p.Rows) == 0 {
			t.Fatalf("%+v: an empty page is not the last", q)
		}
		q.Cursor = p.Next
	}
	t.Fatal("no end")
	return nil
}

func TestCursorRefused(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) { testCursorRefused(t, open()) })
}

func testCursorRefused(t *testing.T, c *Catalog) {
	fill(t, c, 5)
	p, err := c.Find(context.Background(), recorder.Query{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []recorder.Query{
		{Cursor: "!"},
		{Cursor: "AAAA"},
		{Cursor: strings.Repeat("A", 1000)},
		{Cursor: p.Next, Order: recorder.OrderOldest},
		{Cursor: p.Next[1:]},
		{Cursor: p.Next, Trunk: "trunk-1"},
		{Cursor: p.Next + "AA"},
		{Cursor: "MWQxNzAwLHg"}, // the last one is of the first version
	} {
		if _, err := c.Find(context.Background(), q); !errors.Is(err, ErrCursor) {
			t.Errorf("%q: %v, want ErrCursor", q.Cursor, err)
		}
	}
	if _, err := c.Find(context.Background(), recorder.Query{Cursor: p.Next, Limit: 100, Order: recorder.OrderNewest}); err != nil {
		t.Errorf("another limit, and the default order by its name: %v", err)
	}
}

func FuzzCursor(f *testing.F) {
	s := &search{hash: [hashLen]byte{1, 2, 3}}
	f.Add(s.cursor(0, 1))
	f.Add(s.cursor(-5, 1<<62))
	f.Add("")
	f.Add("MWQx")
	f.Fuzz(func(t *testing.T, text string) {
		a := &search{hash: s.hash}
		if a.resume(text) != nil {
			return
		}
		b := &search{hash: s.hash}
		if err := b.resume(a.cursor(a.realMS, a.key)); err != nil || *b.pos() != *a.pos() {
			t.Errorf("%v became %v, %v", a.pos(), b.pos(), err)
		}
	})
}

func (s *search) pos() *hit { return &hit{s.key, s.realMS} }
