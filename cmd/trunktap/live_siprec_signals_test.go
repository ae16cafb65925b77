package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// recordingSession is the row of TestLiveSIPRECMetadata in the table of scenarios.
func recordingSession() scenario {
	const talk1, back, third, end = 1500, 3000, 4500, 6000
	both := func(tone hz, more ...span) []span {
		return append([]span{{0, talk1, []hz{tone}}}, more...)
	}
	return scenario{
		number: "19", name: "recording session (`siprec`) whose metadata tells of hold, and of an agent who hands over",
		want: []wantRecording{trunkOf(end, both(customer, span{back, end, []hz{customer}}), both(agent1, span{back, end, []hz{agent1}}), window("hold", talk1, back)).
			by(cast{from: 0, to: third}, cast{from: third, to: end})},
	}
}

// Metadata alone as a source of signals: a hold that no description shows, an agent
// who leaves and another who comes in INFO and UPDATE.
func TestLiveSIPRECMetadata(t *testing.T) {
	var dialect siptest.Dialect
	for _, d := range siptest.Dialects() {
		if d.Name == "Webex" {
			dialect = d
		}
	}
	listen := freeUDP(t, liveHost)
	d := newLiveDaemon(t, siprecConfig(t, listen, []siptest.Dialect{dialect}))
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), siprecLimit)
	defer cancel()
	c := must(siptest.NewSRC(siptest.SRCConfig{Addr: netip.AddrPortFrom(dialectAddr(0), 0), Remote: listen}))(t)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	one := dialect.Dialogs[0]
	call := must(c.NewDialog("metadata", "", 2))(t)
	must(call.Invite(ctx, one.ContentType, []byte(call.Expand(one.Body)), nil, one.Headers...))(t)
	if err := call.Play(one.Tones...); err != nil {
		t.Fatal(err)
	}
	const agent, flow, customer = "cGFydGljaXBhbnQtdHdvLQ==", "c3RyZWFtLW51bWJlci10dw==", "c3RyZWFtLW51bWJlci1vbg=="
	for _, step := range []struct{ method, text string }{
		{"INFO", `<participantstreamassoc participant_id="` + agent + `"><recv>` + customer + `</recv></participantstreamassoc>`},
		{"UPDATE", `<participantstreamassoc participant_id="` + agent + `"><send>` + flow + `</send></participantstreamassoc>`},
		{"UPDATE", `<participantsessionassoc participant_id="` + agent + `" session_id="c2Vzc2lvbi1vZi10aGUtcw=="><disassociate-time>2026-03-01T12:00:09Z</disassociate-time></participantsessionassoc>` +
			`<participant participant_id="third"><nameID aor="sip:4712@pbx.example"/></participant><participantstreamassoc participant_id="third"><send>` + flow + `</send></participantstreamassoc>`},
	} {
		time.Sleep(siprecTalk)
		body := fmt.Sprintf(`<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>partial</datamode>%s</recording>`, step.text)
		must(call.Do(ctx, step.method, "application/rs-metadata+xml", []byte(body)))(t)
	}
	time.Sleep(siprecTalk)
	if err := call.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	var m recorder.Manifest
	if err := d.get("/v1/recordings/"+d.recordings(1)["metadata"].ID, &m); err != nil {
		t.Fatal(err)
	}
	want := recordingSession().want[0]
	if hold := want.windows[0]; len(m.Windows) != 1 || m.Windows[0].Reason != hold.reason || m.Windows[0].RealMS < int64(hold.from)-100 || // a machine that stands still makes it later
		m.Windows[0].EndRealMS-m.Windows[0].RealMS < int64(hold.to-hold.from)-100 || m.RealMS < int64(want.to)-100 || m.Kind != want.kind {
		t.Errorf("windows %+v of %d ms, a %s", m.Windows, m.RealMS, m.Kind)
	}
	pcm := d.export(m.ID)
	checkTone(t, pcm[0], siptest.ExternalTone, siptest.InternalTone)
	checkTone(t, pcm[1], siptest.InternalTone, siptest.ExternalTone)
	var told []string
	for _, s := range m.Signals {
		if s.Event != suppress.AttrsSet {
			told = append(told, strings.TrimSpace(fmt.Sprintf("%s %s%s", s.Event, s.User, s.Party)))
		}
	}
	if want := []string{"agent.join 4711", "hold.start internal", "hold.end internal", "agent.join 4712", "agent.leave 4711"}; !slices.Equal(told, want) {
		t.Errorf("signals %q, want %q", told, want)
	}
	var parties []string
	for _, s := range m.Segments {
		parties = append(parties, strings.Join(s.Parties, "+"))
	}
	if parties[0] != "4711" || parties[len(parties)-1] != "4712" {
		t.Errorf("parties of segments %q", parties)
	}
	if m.Attrs["siprec.session"] == "" {
		t.Errorf("attributes %v", m.Attrs)
	}
	d.stop()
}
