package src

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/journal"
)

// Ports are those that a client listens at, and sends media from. Zero: the system chooses.
type Ports struct{ UDP, TCP, Media uint16 }

const (
	journalVersion = 1
	saveEvery      = 5 * time.Second // while packets are sent: their numbers
	numbersSkipped = 64              // packets that were sent after the state was kept
	silenceMax     = 3 * time.Second // after a restart, in which silence is what nobody has heard
)

// journalled is what is kept of a recording session that a server has taken.
type journalled struct {
	V       int
	ID      uint64 // of the fork, in its description
	Wide    bool   `json:",omitempty"`
	Listed  string // the server of the list, or the one that it led to
	Server  string
	Hop     sip.NextHop
	CallID  string
	Tag     string
	To      string
	Theirs  string
	Target  string
	Routes  []string `json:",omitempty"`
	Network string
	Remote  netip.AddrPort
	Seq     uint32
	Version uint64
	Since   time.Time
	Known   time.Time // since when parties are said to be there
	Parties []string  `json:",omitempty"`
	Paused  bool      `json:",omitempty"`
	Codec   *uint8    `json:",omitempty"` // payload type
	RTP     [2]netip.AddrPort
	RTCP    [2]netip.AddrPort
	SSRC    [2]uint32
	Stamp   uint32    // of 0 ms
	Base    time.Time `json:",omitzero"` // when 0 ms was due
	Ports   Ports

	Numbers [2]uint16 // of the next packets,
	At      time.Time // at that time
}

var (
	// errJournal says that an entry is of no use.
	errJournal = errors.New("the entry of a copy in the journal cannot be used")
	errNoRoom  = errors.New("there are too many copies of calls, or this one is there already")
)

func read(state []byte) (*journalled, error) {
	j := &journalled{}
	if err := json.Unmarshal(state, j); err != nil {
		return nil, fmt.Errorf("%w: %w", errJournal, err)
	}
	if j.V != journalVersion {
		return nil, fmt.Errorf("%w: it is of version %d, this one is %d", errJournal, j.V, journalVersion)
	}
	if err := j.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errJournal, err)
	}
	return j, nil
}

// check tells what no daemon can have written: it would go out in requests.
func (j *journalled) check() error {
	ways := []string{"udp", "tcp", "tls", "ws", "wss"}
	texts := append([]string{j.Listed, j.Server, j.CallID, j.Tag, j.To, j.Theirs, j.Target}, slices.Concat(j.Routes, j.Parties)...)
	switch {
	case j.ID == 0 || j.CallID == "" || j.Tag == "":
		return errors.New("it names no session")
	case !j.Remote.IsValid() || !slices.Contains(ways, j.Network):
		return fmt.Errorf("its server is at %s by %q", j.Remote, j.Network)
	case slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsAny(s, "\r\n\x00") }):
		return errors.New("a field of its requests is none")
	}
	return nil
}

// PortsOf returns the ports of the client that has written an entry.
func PortsOf(state []byte) Ports {
	j, err := read(state)
	if err != nil {
		return Ports{}
	}
	return j.Ports
}

// Ports returns those of the client once it has started.
func (c *Client) Ports() (p Ports) {
	p.Media = c.port
	for i, a := range c.agent.Addrs() { // those of UDP first
		if i == 0 {
			p.UDP = a.Port()
		} else if p.TCP == 0 {
			p.TCP = a.Port()
		}
	}
	return p
}

// chronicle is what the owner of a fork knows of its entry.
type chronicle struct {
	written []byte // without Numbers and At
	numbers [2]uint16
	at      time.Time // when it was written
}

// journal brings the entry up to date: that of a session that a server has taken.
func (l *leg) journal(now time.Time) {
	f, c := l.f, &l.chronicle
	j := f.c.cfg.Journal
	if j == nil || f.key == "" {
		return
	}
	if !l.up || l.over {
		if c.written != nil || f.resumed != nil {
			j.Drop(f.key)
			c.written, f.resumed = nil, nil
		}
		return
	}
	entry := l.save()
	state, err := json.Marshal(entry)
	f.mu.Lock()
	entry.Numbers, entry.At = f.out.seq, journal.Wall(now)
	f.mu.Unlock()
	if err != nil || bytes.Equal(state, c.written) && (entry.Numbers == c.numbers || now.Sub(c.at) < saveEvery) {
		return
	}
	whole, err := json.Marshal(entry)
	if err == nil && j.Put(f.key, whole) {
		c.written, c.numbers, c.at = state, entry.Numbers, now
	}
}

func (l *leg) save() *journalled {
	f := l.f
	j := &journalled{
		V: journalVersion, ID: f.id, Wide: f.wide, Listed: l.listed, Server: l.server.URI, Hop: l.server.Hop,
		CallID: l.callID, Tag: l.tag, To: l.to, Theirs: l.theirs, Target: l.end.Target, Routes: l.end.Routes,
		Network: l.end.Flow.Network, Remote: l.end.Flow.Remote, Seq: l.seq, Version: l.version,
		Since: journal.Wall(l.since), Known: journal.Wall(l.metaSince), Parties: l.told.parties, Paused: l.told.paused, Ports: f.c.Ports(),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &f.out
	j.SSRC, j.Stamp, j.Base = o.ssrc, o.stamp, journal.Wall(o.base)
	if o.base.IsZero() {
		j.Base = journal.Wall(o.was) // no packet since the restart before
	}
	if o.codec != nil {
		j.Codec = &o.codec.payloadType
	}
	for i, to := range o.to {
		j.RTP[i], j.RTCP[i] = to.rtp, to.rtcp
	}
	return j
}

// Resume goes on with a fork of a process before, by what its journal has under key:
// audio goes where it went, and the server is told of the call as it is, by a
// re-INVITE. When the server has none of it any more, the servers are tried from the
// first. An error says that the entry is of no use for these servers.
func (c *Client) Resume(key string, s media.Session, servers []Server, state []byte) (*Fork, error) {
	j, err := read(state)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(servers, func(x Server) bool { return x.URI == j.Listed }) {
		return nil, fmt.Errorf("%w: the call is copied to %s no more", errJournal, j.Listed)
	}
	f := newFork(c, s, servers, j.Wide)
	f.key, f.id, f.resumed = key, j.ID, j
	f.parties, f.paused = slices.Clone(j.Parties), j.Paused
	f.out.resume(j, time.Now())
	if !c.enter(f) {
		return nil, errNoRoom
	}
	c.counters.Resumed.Add(1)
	return f, nil
}

// Dismiss ends a recording session of a process before whose call does not go on here.
func (c *Client) Dismiss(key string, state []byte) error {
	j, err := read(state)
	if err != nil {
		return err
	}
	f := newFork(c, media.Session{}, []Server{{URI: j.Server, Hop: j.Hop}}, j.Wide)
	f.key, f.id, f.resumed, f.ended = key, j.ID, j, true
	if !c.enter(f) {
		return errNoRoom
	}
	c.counters.Dismissed.Add(1)
	return nil
}

// resume makes packets go on as those of the process before: from the same sources,
// with numbers that it has not used, and time stamps of the same clock.
func (o *outlet) resume(j *journalled, now time.Time) {
	o.ssrc, o.stamp, o.was = j.SSRC, j.Stamp, j.Base
	o.silentUntil = now.Add(silenceMax)
	sent := max(0, now.Sub(j.At)/(packetMS*time.Millisecond))
	for i, n := range j.Numbers {
		o.seq[i] = n + uint16(sent) + numbersSkipped
	}
}

// begun notes when 0 ms is due. After a restart the clock of time stamps goes on.
func (o *outlet) begun(base time.Time) {
	o.base = base
	if !o.was.IsZero() {
		o.stamp += uint32(max(0, base.Sub(o.was)).Milliseconds() * int64(o.codec.clock) / 1000)
		o.was = time.Time{}
	}
}

// trimmed takes the silence away that stands for the time in which the daemon was not
// there: it would hold up what follows.
func (o *outlet) trimmed(realMS int64, rate int, ch [2][]int16) (int64, [2][]int16) {
	if o.silentUntil.IsZero() {
		return realMS, ch
	}
	if time.Now().After(o.silentUntil) {
		o.silentUntil = time.Time{}
		return realMS, ch
	}
	silent := min(leadingZeros(ch[0]), leadingZeros(ch[1]))
	if silent < len(ch[0]) {
		o.silentUntil = time.Time{}
	}
	ms := silent * 1000 / rate
	n := ms * rate / 1000
	if silent == len(ch[0]) {
		n = silent
	}
	return realMS + int64(ms), [2][]int16{ch[0][n:], ch[1][n:]}
}

func leadingZeros(pcm []int16) int {
	if i := slices.IndexFunc(pcm, func(x int16) bool { return x != 0 }); i >= 0 {
		return i
	}
	return len(pcm)
}

// goOn takes up the recording session of the process before.
func (l *leg) goOn(j *journalled, now time.Time) {
	f := l.f
	l.server, l.listed = Server{URI: j.Server, Hop: j.Hop}, j.Listed
	for _, s := range f.servers {
		if s.URI == j.Listed && strings.EqualFold(s.Hop.Host, j.Hop.Host) {
			l.server.Auth = s.Auth
		}
	}
	l.callID, l.tag, l.to, l.theirs = j.CallID, j.Tag, j.To, j.Theirs
	l.seq, l.version = j.Seq+numbersSkipped, j.Version+1
	l.since, l.metaSince, l.told = j.Since, j.Known, told{j.Parties, j.Paused}
	l.end = dialog.End{Target: j.Target, Routes: j.Routes, Flow: sip.Flow{Network: j.Network, Remote: j.Remote}}
	l.up, l.ping = true, now.Add(pingEvery)
	f.c.rename(f, "", l.callID)
	l.meet(j.Remote.Addr())
	if _, _, ended := f.state(); ended {
		return
	}
	if i := slices.IndexFunc(wires, func(w wire) bool { return j.Codec != nil && w.payloadType == *j.Codec }); i >= 0 {
		w := wires[i]
		l.connect(&w, [2]remote{{j.RTP[0], j.RTCP[0]}, {j.RTP[1], j.RTCP[1]}})
	}
	l.tell(now)
	l.giveUp = now.Add(inviteWait)
	if l.changing == nil {
		l.failed(errors.New("it cannot be reached"), now)
	}
}
