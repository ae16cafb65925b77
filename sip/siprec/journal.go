package siprec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal"
)

// journalVersion is that of journalled. What has another one is not restored.
const journalVersion = 1

// journalled is what is kept of a recording with an answered dialog.
type journalled struct {
	SIPREC   int           // the version, and the mark of such an entry
	Session  media.Session // of the observer
	Restarts int           `json:",omitempty"`
	Source   string
	Answered time.Time

	Streams media.StreamID // given out
	Known   json.RawMessage
	Partly  bool `json:",omitempty"` // Known is not all of it: a snapshot is to be asked for
	Holding [2]bool
	Agents  []string          `json:",omitempty"`
	Attrs   map[string]string `json:",omitempty"`
	Links   []string          `json:",omitempty"`
	Kept    []string          `json:",omitempty"` // sums of documents
	Lasting []string          `json:",omitempty"` // by what others join, see joinKeys
	Passing []string          `json:",omitempty"`

	Legs []*savedLeg
}

// savedLeg is a dialog.
type savedLeg struct {
	ID, Branches   uint64 // in our branches
	Tag            string // ours
	SDPID, Version uint64
	CNAME          string
	Half           half   `json:",omitempty"`
	HalfAOR        string `json:",omitempty"`
	From, To       string
	Allows         string    `json:",omitempty"`
	Started, Asked time.Time `json:",omitzero"`
	Target         string
	Routes         []string `json:",omitempty"`
	Flow           journal.Flow
	Seq, LocalSeq  uint32
	Invite         string // the latest, without its body
	InviteFlow     journal.Flow
	Answer         string            `json:",omitempty"` // its 2xx, while the ACK is missing
	Offering       bool              `json:",omitempty"`
	Interval       time.Duration     `json:",omitempty"`
	Refreshes      bool              `json:",omitempty"` // we do
	Refresh        time.Time         `json:",omitzero"`
	Until          time.Time         `json:",omitzero"` // when it expires, where we refresh
	Lines          []savedLine       `json:",omitempty"`
	Labels         map[string]string `json:",omitempty"`
	Over           time.Time         `json:",omitzero"` // it has ended: only repetitions are waited for
	Bye            string            `json:",omitempty"`
	ByeFlow        journal.Flow      `json:",omitzero"`
}

// savedLine is a line; without a port it was refused.
type savedLine struct {
	Port         netip.AddrPort `json:",omitzero"` // at the relay
	Addr         netip.AddrPort `json:",omitzero"` // as advertised
	Kind, Proto  string
	Label        string         `json:",omitempty"`
	Formats      []media.Format `json:",omitempty"`
	Direction    string         `json:",omitempty"`
	Zero, Mux    bool           `json:",omitempty"`
	Remote, RTCP netip.AddrPort `json:",omitzero"`
	Ptime        time.Duration  `json:",omitempty"`
	ID           media.StreamID
	Side         media.Side
	SideBy       string        `json:",omitempty"`
	SideKnown    bool          `json:",omitempty"`
	Mixed        bool          `json:",omitempty"`
	Senders      []string      `json:",omitempty"`
	Parties      []Participant `json:",omitempty"` // for when the snapshot does not tell of them any more

	Sec *savedProtection `json:",omitempty"`
}

// Journalled says whether an entry of a journal is one of a recording session.
func Journalled(state []byte) bool {
	var mark struct{ SIPREC int }
	return json.Unmarshal(state, &mark) == nil && mark.SIPREC > 0
}

// chronicle is what a recording knows of its entry. Guarded by the recording's mu.
type chronicle struct {
	session  media.Session
	at       time.Time // the answer
	restarts int
	past     []*leg // ended; their transactions live
	written  []byte // as it stands in the journal
	refused  bool   // it cannot be restored; counted
	partly   bool   // the snapshot came from a journal that had not all of it

	of   *Metadata // that known was made of
	text []byte
}

// journal brings the entry up to date after a turn of the dialog, so that whoever was
// answered finds the daemon as it was when it answered.
func (l *leg) journal() {
	if l.srv.cfg.Journal == nil || l.rec == nil || !l.confirmed {
		return
	}
	l.rec.mu.Lock()
	defer l.rec.mu.Unlock()
	l.saved = l.save()
	l.rec.journal()
}

// unjournal takes a dialog out of which nothing is left.
func (l *leg) unjournal() {
	if l.srv.cfg.Journal == nil || l.rec == nil {
		return
	}
	r := l.rec
	r.mu.Lock()
	defer r.mu.Unlock()
	r.chronicle.past = slices.DeleteFunc(r.chronicle.past, func(p *leg) bool { return p == l })
	r.journal()
}

// journal writes the entry. r.mu is held.
func (r *recording) journal() {
	c, j := &r.chronicle, r.srv.cfg.Journal
	if len(r.legs)+len(c.past) == 0 || r.secures() && !r.srv.cfg.JournalSealed {
		if c.written != nil {
			j.Drop(r.id)
			c.written = nil
		}
		if len(r.legs) > 0 {
			r.unjournalled()
		}
		return
	}
	if r.id == "" || !r.answered {
		return
	}
	entry := r.save()
	state, err := json.Marshal(entry)
	if err != nil || bytes.Equal(state, c.written) {
		return
	}
	ok := j.Put(r.id, state)
	if !ok { // extensions are most of what is long
		entry.Known, entry.Partly = r.known.bare(), true
		state, err = json.Marshal(entry)
		ok = err == nil && j.Put(r.id, state)
	}
	if !ok {
		r.unjournalled() // the next turn tries again
		return
	}
	c.written = state
}

// secures says whether keys are known here, which go into a sealed journal alone.
func (r *recording) secures() bool {
	return slices.ContainsFunc(r.legs, func(l *leg) bool {
		return slices.ContainsFunc(l.lines, func(n *line) bool { return n.sec != nil })
	})
}

// unjournalled counts a recording that would not survive a restart, or not as it is.
func (r *recording) unjournalled() {
	if !r.chronicle.refused {
		r.chronicle.refused = true
		r.srv.counters.Unjournalled.Add(1)
	}
}

// bare is the snapshot without what is only kept as it came.
func (m *Metadata) bare() []byte {
	b := m.clone()
	b.Extensions, b.Faults, b.Prefixes = nil, nil, nil
	for i := range b.Groups {
		b.Groups[i].Extensions = nil
	}
	for i := range b.Sessions {
		b.Sessions[i].Extensions = nil
	}
	for i := range b.Streams {
		b.Streams[i].Extensions = nil
	}
	for i := range b.Recordings {
		b.Recordings[i].Extensions = nil
	}
	for i := range b.Memberships {
		b.Memberships[i].Extensions = nil
	}
	for i := range b.Flows {
		b.Flows[i].Extensions = nil
	}
	for i, p := range b.Participants { // sides are told by their values
		b.Participants[i].Extensions = slices.Clone(p.Extensions)
		for k := range p.Extensions {
			b.Participants[i].Extensions[k].XML = ""
		}
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil
	}
	return text
}

// save returns the state. r.mu is held.
func (r *recording) save() *journalled {
	c := &r.chronicle
	if c.of != r.known {
		text, err := json.Marshal(r.known)
		if err != nil {
			text = r.known.bare()
		}
		c.of, c.text = r.known, text
	}
	j := &journalled{
		SIPREC: journalVersion, Session: c.session, Restarts: c.restarts, Source: r.source.Name, Answered: journal.Wall(c.at),
		Streams: r.nextID, Known: c.text, Partly: c.partly, Holding: r.holding, Attrs: r.attrs, Links: r.links,
		Agents: slices.Sorted(maps.Keys(r.agents)), Lasting: keyTexts(r.lasting), Passing: keyTexts(r.passing),
	}
	j.Session.Start = journal.Wall(j.Session.Start)
	for sum := range r.kept {
		j.Kept = append(j.Kept, hex.EncodeToString(sum[:]))
	}
	slices.Sort(j.Kept)
	for _, l := range slices.Concat(r.legs, c.past) {
		if l.saved != nil {
			j.Legs = append(j.Legs, l.saved)
		}
	}
	if j.secured() {
		j.SIPREC = secureVersion
	}
	return j
}

func keyTexts(keys []joinKey) (out []string) {
	for _, k := range keys {
		out = append(out, k.key)
	}
	return out
}

// save returns the state of a dialog. The recording's mu is held.
func (l *leg) save() *savedLeg {
	head := l.invite.Req.Clone()
	head.Body = nil
	s := &savedLeg{
		ID: l.id, Branches: l.branches, Tag: l.tag, SDPID: l.sdpID, Version: l.sdpVersion, CNAME: l.cname, Half: l.half, HalfAOR: l.halfAOR,
		From: l.from, To: l.to, Allows: l.allows, Started: journal.Wall(l.started), Asked: journal.Wall(l.asked),
		Target: l.end.Target, Routes: l.end.Routes, Flow: journal.FlowOf(l.end.Flow), Seq: l.end.Seq, LocalSeq: l.localSeq,
		Invite: string(head.Append(nil)), InviteFlow: journal.FlowOf(head.Flow), Offering: l.offering,
		Interval: l.timer.interval, Refreshes: l.timer.ours, Refresh: journal.Wall(l.timer.at), Until: journal.Wall(l.timer.until),
	}
	if last := l.invite.Last(); last != nil && l.invite.Final() >= 200 && l.invite.Final() < 300 {
		s.Answer = string(last.Append(nil))
	}
	if l.ended {
		s.Over = journal.Wall(l.endedAt)
		if l.bye != nil {
			s.Bye, s.ByeFlow = string(l.bye.Append(nil)), journal.FlowOf(l.bye.Flow)
		}
		return s
	}
	s.Labels = maps.Clone(l.streams)
	for _, n := range l.lines {
		s.Lines = append(s.Lines, n.save())
	}
	return s
}

func (n *line) save() savedLine {
	s := savedLine{
		Addr: n.addr, Kind: n.kind, Proto: n.proto, Label: n.label, Formats: n.formats, Direction: n.direction, Zero: n.zero, Mux: n.mux,
		Remote: n.remote, RTCP: n.rtcp, Ptime: n.ptime, ID: n.id,
		Side: n.place.side, SideBy: n.place.by, SideKnown: n.place.known, Mixed: n.place.mixed, Senders: slices.Clone(n.senders),
	}
	for _, p := range n.place.parties {
		p.Extensions = nil
		s.Parties = append(s.Parties, p)
	}
	if n.stream != nil {
		s.Port, s.Sec = n.stream.Local(relaySide), n.saveProtection()
	}
	return s
}

// deliver sends an answer. Whoever has a 2xx goes on from there, and does not ask again:
// a process after this one must know of it, so it waits for the journal.
func (l *leg) deliver(res *sip.Message, flow sip.Flow) {
	j := l.srv.cfg.Journal
	if j == nil || l.rec == nil || !l.confirmed || res.Status < 200 || res.Status >= 300 {
		l.send(res, flow)
		return
	}
	l.journal()
	j.After(func() { l.send(res, flow) })
}
