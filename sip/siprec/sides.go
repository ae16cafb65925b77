package siprec

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/trunktap/trunktap/media"
)

// Why a stream was put on a side; Stream.SideBy of package media, the manifest's
// side_by.
const (
	ByRule    = "rule"    // a configured rule
	ByHalf    = "half"    // the client's header fields name the half of the call (near end, far end)
	ByDomain  = "domain"  // the domain of the party's address is one of the internal ones, or is not
	ByCaller  = "caller"  // the client says who called, and the configuration where calls come from
	ByNumber  = "number"  // one party has an extension, the other a full number
	ByOther   = "other"   // the other stream's side is known
	ByUnknown = "unknown" // nobody could tell: the first stream is external, the others are internal
)

// pairedByOrder is added where nothing associates participants with streams: the
// n-th sends the n-th.
const pairedByOrder = ", paired by order"

// SideRule puts what matches on a side. Patterns are globs, in which * is any text;
// an empty one matches all. At least one must be given.
type SideRule struct {
	AOR   string // of the participant's addresses; its scheme may be left out
	Name  string
	Label string
	Value string // "name=pattern" of an element of the participant's extensions
	Side  media.Side

	aor, name, label, value *regexp.Regexp
	valueName               string
}

// compile makes the patterns ready.
func (r *SideRule) compile() error {
	if r.AOR+r.Name+r.Label+r.Value == "" {
		return fmt.Errorf("a rule about sides must name aor, name, label or value")
	}
	r.aor, r.name, r.label = glob(r.AOR), glob(r.Name), glob(r.Label)
	if r.Value != "" {
		name, pattern, ok := strings.Cut(r.Value, "=")
		if !ok || name == "" {
			return fmt.Errorf("value %q of a rule about sides: write name=pattern", r.Value)
		}
		r.valueName, r.value = name, glob(pattern)
	}
	return nil
}

func glob(pattern string) *regexp.Regexp {
	if pattern == "" {
		return nil
	}
	return regexp.MustCompile("(?is)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
}

func (r *SideRule) matches(label string, p *Participant) bool {
	if r.label != nil && !r.label.MatchString(label) {
		return false
	}
	if r.aor == nil && r.name == nil && r.value == nil {
		return true
	}
	if p == nil {
		return false
	}
	if r.value != nil {
		if v, ok := p.Value(r.valueName); !ok || !r.value.MatchString(v) {
			return false
		}
	}
	return r.named(p)
}

func (r *SideRule) named(p *Participant) bool {
	if r.aor == nil && r.name == nil {
		return true
	}
	for _, n := range p.Names {
		_, bare, _ := strings.Cut(n.AOR, ":")
		if (r.aor == nil || r.aor.MatchString(n.AOR) || r.aor.MatchString(bare)) && (r.name == nil || r.name.MatchString(n.Name)) {
			return true
		}
	}
	return false
}

// place is where a stream of the recording session belongs.
type place struct {
	known   bool
	side    media.Side
	by      string
	mixed   bool
	parties []Participant // who contribute to it
	stream  string        // its id in the metadata, if it has one
}

// half is what a client says of a dialog of its own: that it carries the near or
// the far end of the call.
type half uint8

const (
	wholeCall half = iota
	nearEnd
	farEnd
)

// track is what sides are decided by: one m= line of one dialog.
type track struct {
	label string
	half  half
	aor   string // of that half's party, as far as header fields tell

	stream string // what the label stands for, when the dialog has said so; empty: for several
	bound  bool   // it has said so
	was    place  // what was found before, for a stream that nobody sends at the moment
}

// arrange decides the sides of all streams of a recording. It depends on its
// arguments alone, so that a replay decides the same.
func (s *Source) arrange(m *Metadata, tracks []track) []place {
	out := make([]place, len(tracks))
	byOrder := s.contributors(m, tracks, out)
	for i, t := range tracks {
		if out[i].known {
			continue
		}
		s.direct(&out[i], t)
		if p := &out[i]; !p.known && len(p.parties) == 0 && t.was.known {
			p.know(t.was.side, t.was.by)
		}
	}
	discriminate(out, s.byDomain)
	discriminate(out, s.byCaller)
	discriminate(out, byNumber)
	accompany(out)
	exclude(out)
	guess(out, tracks)
	for i := range out {
		if byOrder && len(out[i].parties) > 0 && out[i].by != ByUnknown {
			out[i].by += pairedByOrder
		}
	}
	return out
}

// contributors fills in who is heard in each stream: by the associations of the
// metadata, else in the order of the document.
func (s *Source) contributors(m *Metadata, tracks []track, out []place) (byOrder bool) {
	flows := len(m.Flows) > 0
	claimed := claims(tracks)
	for i, t := range tracks {
		st, ok := m.of(t, claimed)
		if !ok && t.label == "" && i < len(m.Streams) && len(tracks) == len(m.Streams) {
			st, ok = m.Streams[i], true // a client that labels nothing
		}
		if !ok && t.stream != "" { // the latest document is another dialog's, and tells nothing of it
			out[i] = t.was
			out[i].stream, out[i].by = t.stream, strings.TrimSuffix(t.was.by, pairedByOrder)
			if !t.was.known {
				out[i].side, out[i].by = 0, ""
			}
			continue
		}
		out[i].stream = st.ID
		out[i].mixed = ok && st.Mixed
		switch {
		case t.half != wholeCall && t.aor != "":
			out[i].parties = []Participant{{Names: []NameID{{AOR: t.aor}}}}
		case ok && flows:
			out[i].parties = m.Senders(st.ID)
		}
		out[i].mixed = out[i].mixed || len(out[i].parties) > 1
	}
	if flows || len(m.Participants) == 0 {
		return false
	}
	switch {
	case len(tracks) == 1 && len(m.Participants) > 1 && tracks[0].half == wholeCall:
		out[0].parties, out[0].mixed = m.Participants, true
	case len(tracks) == len(m.Participants):
		for i := range tracks {
			if out[i].parties == nil {
				out[i].parties, byOrder = m.Participants[i:i+1], true
			}
		}
	}
	return byOrder
}

// claims are the streams that lines of dialogs stand for by their own documents.
func claims(tracks []track) map[string]bool {
	out := map[string]bool{}
	for _, t := range tracks {
		if t.stream != "" {
			out[idKey(t.stream)] = true
		}
	}
	return out
}

// of returns the stream of a line. A label that its dialog has not told of is not that
// of another one's line.
func (m *Metadata) of(t track, claimed map[string]bool) (Stream, bool) {
	if t.bound {
		if t.stream == "" {
			return Stream{}, false
		}
		return m.Stream(t.stream)
	}
	st, ok := m.Labelled(t.label)
	if ok && claimed[idKey(st.ID)] {
		return Stream{}, false
	}
	return st, ok
}

// bind takes over what a document of the dialog says its labels stand for; all: it says
// everything.
func (l *leg) bind(m *Metadata, all bool) {
	if all || l.streams == nil {
		l.streams = map[string]string{}
	}
	seen := map[string]bool{}
	for _, s := range m.Streams {
		was, has := l.streams[s.Label]
		switch {
		case s.Label == "" || !has && len(l.streams) >= metadataItemsMax:
			continue
		case seen[s.Label] && !SameID(was, s.ID):
			l.streams[s.Label] = ""
		default:
			l.streams[s.Label] = s.ID
		}
		seen[s.Label] = true
	}
}

// direct applies what tells the side of a stream by itself.
func (s *Source) direct(p *place, t track) {
	if side, ok := s.ruled(t.label, p.parties); ok {
		p.know(side, ByRule)
		return
	}
	switch {
	case p.mixed:
		p.know(s.Mixed, ByRule)
	case t.half == nearEnd:
		p.know(media.Internal, ByHalf)
	case t.half == farEnd:
		p.know(media.External, ByHalf)
	}
}

// ruled returns the side that rules put a stream on: of each party the first rule counts.
// Rules that put parties of one stream on both sides say nothing of it.
func (s *Source) ruled(label string, parties []Participant) (side media.Side, ok bool) {
	if len(parties) == 0 {
		return s.rule(label, nil)
	}
	for k := range parties {
		is, has := s.rule(label, &parties[k])
		if has && ok && is != side {
			return 0, false
		}
		if has {
			side, ok = is, true
		}
	}
	return side, ok
}

// rule returns the side of the first rule that matches.
func (s *Source) rule(label string, p *Participant) (media.Side, bool) {
	for i := range s.Sides {
		if r := &s.Sides[i]; r.matches(label, p) {
			return r.Side, true
		}
	}
	return 0, false
}

func (p *place) know(side media.Side, by string) { p.known, p.side, p.by = true, side, by }

// discriminate applies a criterion to the streams that are not decided, when it
// does not put all of several on one side.
func discriminate(list []place, of func(Participant) (media.Side, string, bool)) {
	var seen [2]bool
	open, told := 0, make([]place, len(list))
	for i := range list {
		told[i] = list[i]
		if list[i].known {
			seen[list[i].side] = true
			continue
		}
		open++
		if len(list[i].parties) != 1 {
			continue
		}
		if side, by, ok := of(list[i].parties[0]); ok {
			told[i].know(side, by)
			seen[side] = true
		}
	}
	if open > 0 && (len(list) == 1 || seen[0] && seen[1] || anyOpen(told)) {
		copy(list, told)
	}
}

func anyOpen(list []place) bool {
	for i := range list {
		if !list[i].known {
			return true
		}
	}
	return false
}

func taken(list []place, side media.Side) bool {
	for i := range list {
		if list[i].known && list[i].side == side {
			return true
		}
	}
	return false
}

func (s *Source) byDomain(p Participant) (media.Side, string, bool) {
	_, host := userHost(p.AOR())
	if len(s.InternalDomains) == 0 || host == "" {
		return 0, "", false
	}
	for _, d := range s.InternalDomains {
		if strings.EqualFold(host, d) || strings.HasSuffix(strings.ToLower(host), "."+strings.ToLower(d)) {
			return media.Internal, ByDomain, true
		}
	}
	return media.External, ByDomain, true
}

// byCaller uses what the client says of who called.
func (s *Source) byCaller(p Participant) (media.Side, string, bool) {
	caller, ok := callerOf(p)
	if !ok || s.Caller == nil {
		return 0, "", false
	}
	if caller {
		return *s.Caller, ByCaller, true
	}
	return s.Caller.Other(), ByCaller, true
}

// callerOf reads who called out of the extensions that clients write.
func callerOf(p Participant) (caller, ok bool) {
	if v, has := p.Value("callingParty"); has {
		return strings.EqualFold(v, "true"), true
	}
	for _, name := range []string{"role", "direction", "party", "participantType"} {
		switch v, _ := p.Value(name); strings.ToLower(v) {
		case "caller", "calling", "originator", "a":
			return true, true
		case "callee", "called", "terminator", "b":
			return false, true
		}
	}
	return false, false
}

// Lengths of numbers, in digits: of an extension at most, of a full number at least.
const (
	extensionDigitsMax = 6
	numberDigitsMin    = 8
)

func byNumber(p Participant) (media.Side, string, bool) {
	user, _ := userHost(p.AOR())
	digits := strings.TrimPrefix(user, "+")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, "", false
	}
	switch {
	case len(digits) <= extensionDigitsMax && user == digits:
		return media.Internal, ByNumber, true
	case len(digits) >= numberDigitsMin:
		return media.External, ByNumber, true
	}
	return 0, "", false
}

// userHost takes an address apart: sip:user@host;x, sips:, tel:, or without scheme.
func userHost(aor string) (user, host string) {
	_, rest, ok := strings.Cut(aor, ":")
	if !ok || strings.ContainsAny(aor[:len(aor)-len(rest)], "@.") {
		rest = aor
	}
	if i := strings.IndexAny(rest, ";?>"); i >= 0 {
		rest = rest[:i]
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return rest, ""
	}
	user, _, _ = strings.Cut(rest[:at], ":")
	host = rest[at+1:]
	if strings.HasPrefix(host, "[") {
		host, _, _ = strings.Cut(host[1:], "]")
		return user, host
	}
	host, _, _ = strings.Cut(host, ":")
	return user, host
}
