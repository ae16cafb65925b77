package retention

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

const day = 24 * time.Hour

var end = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func recorded(trunk, user string, kind recorder.Kind, attrs map[string]string) *recorder.Manifest {
	return &recorder.Manifest{
		Trunk: trunk, User: user, Kind: kind, Attrs: attrs, Origin: end.Add(-time.Minute), RealMS: 60_000,
		Call: recorder.Call{Start: end.Add(-2 * time.Minute), End: end},
	}
}

// TestFirstRuleCounts: of several rules the first, and of none for ever.
func TestFirstRuleCounts(t *testing.T) {
	p := Policy{
		{Attr: "case=open"},
		{Trunk: "a", Kind: recorder.KindConsult, DeleteAfter: 10 * day},
		{Trunk: "a", DeleteAfter: 90 * day, GiveWayAfter: 30 * day},
		{User: "ann", DeleteAfter: 20 * day},
		{Store: new("eu"), DeleteAfter: 50 * day},
		{Attr: "short", DeleteAfter: 1 * day},
	}
	for _, c := range []struct {
		name  string
		m     *recorder.Manifest
		store string
		low   bool
		days  int // 0: for ever
	}{
		{"no rule", recorded("b", "", recorder.KindTrunk, nil), "", false, 0},
		{"rule of its trunk", recorded("a", "", recorder.KindTrunk, nil), "", false, 90},
		{"while room is wanted", recorded("a", "", recorder.KindTrunk, nil), "", true, 30},
		{"trunk and kind", recorded("a", "", recorder.KindConsult, nil), "", false, 10},
		{"no time for giving way", recorded("a", "", recorder.KindConsult, nil), "", true, 10},
		{"a rule before that keeps", recorded("a", "", recorder.KindTrunk, map[string]string{"case": "open"}), "", true, 0},
		{"another value", recorded("a", "", recorder.KindTrunk, map[string]string{"case": "closed"}), "", false, 90},
		{"any value", recorded("b", "", recorder.KindTrunk, map[string]string{"short": ""}), "", false, 1},
		{"user", recorded("b", "ann", recorder.KindStation, nil), "", false, 20},
		{"store", recorded("b", "", recorder.KindTrunk, nil), "eu", false, 50},
	} {
		got, ok := p.Keep(c.m, c.store, c.low)
		if want := time.Duration(c.days) * day; got != want || ok != (want > 0) {
			t.Errorf("%s: %s, %v", c.name, got, ok)
		}
	}
}

// TestDue: to the nanosecond from the end of the call, whatever else the account says.
func TestDue(t *testing.T) {
	p := Policy{{DeleteAfter: 30 * day}}
	m := recorded("a", "", recorder.KindTrunk, nil)
	at := end.Add(30 * day)
	if due, ok := p.Due(m, "", false, at.Add(-1)); ok || !due.Equal(at) {
		t.Errorf("a nanosecond before: %s, %v", due, ok)
	}
	if _, ok := p.Due(m, "", false, at); !ok {
		t.Error("not due when it is")
	}
	m.Call.End = time.Time{} // a crash cut it off
	m.RealMS = 120_000
	if _, ok := p.Due(m, "", false, at); ok {
		t.Error("due before the end of its audio")
	}
	if _, ok := p.Due(&recorder.Manifest{}, "", false, at); ok {
		t.Error("one whose time nobody knows is due")
	}
}

// TestShredded: what is left of a shredded recording stays as long as it might have
// stayed by any rule that might have been its own.
func TestShredded(t *testing.T) {
	gone := recorded("", "", recorder.KindTrunk, nil)
	gone.Shredded = &recorder.Shredded{At: end}
	for _, c := range []struct {
		p    Policy
		days int
	}{
		{Policy{{DeleteAfter: 5 * day}}, 5},
		{Policy{{Trunk: "a", DeleteAfter: 90 * day}, {DeleteAfter: 5 * day}}, 90},
		{Policy{{Trunk: "a", DeleteAfter: 90 * day}}, 0},
		{Policy{{Attr: "hold"}, {DeleteAfter: 5 * day}}, 0},
		{Policy{{Kind: recorder.KindConsult, DeleteAfter: 90 * day}, {DeleteAfter: 5 * day}, {Trunk: "a", DeleteAfter: 99 * day}}, 5},
	} {
		if got, ok := c.p.Keep(gone, "", false); got != time.Duration(c.days)*day || ok != (c.days > 0) {
			t.Errorf("%+v: %s, %v", c.p, got, ok)
		}
	}
	if _, ok := (Policy{{DeleteAfter: day}}).Due(gone, "", false, end.Add(2*day)); ok {
		t.Error("due though it may have begun at the end of its day, and gone on")
	}
}

// TestLeast: nothing is due that is younger than the least of the policy, and room that
// is wanted never keeps anything longer.
func TestLeast(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	for range 20_000 {
		var p Policy
		for range r.IntN(5) {
			rule := Rule{Trunk: pick("", "", "a", "b"), User: pick("", "", "ann"), Attr: pick("", "", "k", "k=v")}
			if r.IntN(3) == 0 {
				rule.Store = new(pick("", "eu"))
			}
			rule.DeleteAfter = time.Duration(r.IntN(5)) * day
			if rule.DeleteAfter > 0 {
				rule.GiveWayAfter = time.Duration(r.Int64N(int64(rule.DeleteAfter) + 1))
			} else {
				rule.GiveWayAfter = time.Duration(r.IntN(3)) * day
			}
			p = append(p, rule)
		}
		m := recorded(pick("a", "b", "c"), pick("", "ann"), recorder.KindTrunk, map[string]string{pick("k", "x"): pick("v", "w")})
		if r.IntN(4) == 0 {
			m.Shredded = &recorder.Shredded{At: end}
		}
		store := pick("", "eu")
		keep, ok := p.Keep(m, store, false)
		room, gives := p.Keep(m, store, true)
		if ok && (!gives || room > keep) {
			t.Fatalf("%+v, %+v: kept %s, and %s while room is wanted", p, m, keep, room)
		}
		for _, low := range []bool{false, true} {
			least, any := p.Least(low)
			if d, ok := p.Keep(m, store, low); ok && (!any || d < least) {
				t.Fatalf("%+v, %+v: kept %s, the least is %s", p, m, d, least)
			}
		}
	}
}
