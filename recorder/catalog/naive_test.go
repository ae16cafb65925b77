package catalog

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/trunktap/trunktap/recorder"
)

// naiveMatch tells whether a recording is one that a query asks for, by its
// manifest alone.
func naiveMatch(r *recorder.Row, q *recorder.Query) bool {
	m, o := &r.Manifest, originOf(*r)
	is := func(want, have string) bool { return want == "" || want == have }
	return (q.From.IsZero() || !o.Before(q.From)) && (q.To.IsZero() || o.Before(q.To)) &&
		is(q.Trunk, m.Trunk) && is(string(q.Kind), string(m.Kind)) && is(q.User, m.User) && is(q.Direction, m.Call.Direction) &&
		is(q.EndCause, m.Call.EndCause) && is(q.Format, m.Format) && is(q.Consent, m.Consent) && is(q.Node, r.Node) &&
		is(q.Store, r.Store) && is(q.Conversation, m.Conversation) &&
		(q.SIPCallID == "" || q.SIPCallID == m.Call.SIPCallID || q.SIPCallID == m.Call.OtherSIPCallID) &&
		naiveNumbers(m, q) && naivePeople(m, q) && naiveMeasures(m, q) && naiveWindows(m, q) && naiveText(m, q) && naiveAttrs(m, q)
}

func naiveUser(address string) string {
	s := strings.ToLower(address)
	s = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(s, "sip:"), "sips:"), "tel:")
	s, _, _ = strings.Cut(s, "@")
	return s
}

func naiveDigits(s string) string {
	bare := strings.NewReplacer("-", "", ".", "", "(", "", ")", "", " ", "", "/", "").Replace(strings.ToLower(s))
	digits := strings.TrimPrefix(bare, "+")
	if digits == "" || strings.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '9' }) {
		return strings.ToLower(s)
	}
	return digits
}

// naiveNumbers: the numbers of the tests are international, or names.
func naiveNumbers(m *recorder.Manifest, q *recorder.Query) bool {
	either := func(f func(n, part string) bool, part string) bool {
		return part == "" || f(naiveDigits(naiveUser(m.Call.From)), naiveDigits(part)) || f(naiveDigits(naiveUser(m.Call.To)), naiveDigits(part))
	}
	same := func(a, b string) bool { return a == b }
	international := func(s string) string { return strings.TrimPrefix(naiveDigits(s), "00") }
	return either(strings.Contains, q.Number) && either(strings.HasPrefix, international(q.NumberPrefix)) && either(strings.HasSuffix, q.NumberSuffix) && either(same, international(q.NumberIs))
}

func naiveParties(m *recorder.Manifest) []string {
	all := []string{m.Call.From, m.Call.To, m.User, m.Other}
	for _, c := range m.Channels {
		all = append(all, c.Party)
	}
	for _, s := range m.Segments {
		all = append(all, s.Parties...)
	}
	for _, s := range m.Signals {
		all = append(all, s.Party, s.User, s.Other)
	}
	return all
}

func naivePeople(m *recorder.Manifest, q *recorder.Query) bool {
	agents := []string{m.User, m.Other}
	var queues, flows, codecs []string
	for _, s := range m.Signals {
		if s.Event == "agent.join" {
			agents = append(agents, s.User)
		}
		queues, flows = append(queues, s.Queue), append(flows, s.Flow)
	}
	for _, s := range m.Streams {
		codecs = append(codecs, strings.ToLower(s.Codec))
	}
	party := q.Party == "" || slices.ContainsFunc(naiveParties(m), func(p string) bool {
		full := strings.TrimPrefix(strings.ToLower(p), "sip:")
		want := strings.TrimPrefix(strings.ToLower(q.Party), "sip:")
		return full == want || naiveUser(p) == want
	})
	has := func(want string, have []string) bool { return want == "" || slices.Contains(have, want) }
	return party && has(q.Agent, agents) && has(q.Queue, queues) && has(q.Flow, flows) && has(strings.ToLower(q.Codec), codecs)
}

func naiveMeasures(m *recorder.Manifest, q *recorder.Query) bool {
	var gaps time.Duration
	for _, g := range m.Gaps {
		gaps += time.Duration(g.DurationMS) * time.Millisecond
	}
	mos, loss := 9.0, 0.0
	for _, s := range m.Streams {
		if s.Quality != nil {
			loss = max(loss, s.Quality.LossPct)
			if s.Quality.MOS > 0 {
				mos = min(mos, s.Quality.MOS)
			}
		}
	}
	real := time.Duration(m.RealMS) * time.Millisecond
	yes := func(word string, have bool) bool { return word == "" || (word == "yes") == have }
	return real >= q.DurationMin && (q.DurationMax == 0 || real <= q.DurationMax) && gaps >= q.GapsMin &&
		yes(q.Gaps, len(m.Gaps) > 0) && yes(q.Recorded, m.AudioMS > 0) &&
		(q.MOSBelow == 0 || mos < q.MOSBelow) && (q.LossAbove == 0 || loss > q.LossAbove)
}

func naiveWindows(m *recorder.Manifest, q *recorder.Query) bool {
	var sum time.Duration
	present, absent := false, true
	for _, w := range m.Windows {
		if q.Window == "" || w.Reason == q.Window {
			sum += time.Duration(w.EndRealMS-w.RealMS) * time.Millisecond
			present = true
		}
		if w.Reason == q.NoWindow {
			absent = false
		}
	}
	return (q.Window == "" || present) && (q.NoWindow == "" || absent) && sum >= q.WindowMin && (q.WindowMax == 0 || sum <= q.WindowMax)
}

func naiveText(m *recorder.Manifest, q *recorder.Query) bool {
	all := naiveParties(m)
	for _, s := range m.Signals {
		all = append(all, s.Queue, s.Flow)
	}
	for k, v := range m.Attrs {
		all = append(all, k, v)
	}
	split := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	have := strings.FieldsFunc(strings.ToLower(strings.Join(all, " ")), split)
	for _, w := range strings.Fields(strings.ToLower(q.Text)) {
		stem, prefix := strings.CutSuffix(w, "*")
		words := strings.FieldsFunc(stem, split)
		for i, x := range words {
			if !slices.ContainsFunc(have, func(h string) bool { return h == x || prefix && i == len(words)-1 && strings.HasPrefix(h, x) }) {
				return false
			}
		}
	}
	return true
}

func naiveAttrs(m *recorder.Manifest, q *recorder.Query) bool {
	for _, a := range q.Attrs {
		k, v, pair := strings.Cut(a, "=")
		have, ok := m.Attrs[k]
		if !ok || pair && have != v {
			return false
		}
	}
	return true
}
