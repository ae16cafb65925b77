package siprec

import (
	"maps"
	"strings"
	"testing"
)

// attrsOf are the attributes that the recorder knows of the only recording.
func (w *bench) attrsOf() map[string]string {
	w.t.Helper()
	w.settle()
	w.srv.mu.Lock()
	defer w.srv.mu.Unlock()
	for _, l := range w.srv.legs {
		l.rec.mu.Lock()
		defer l.rec.mu.Unlock()
		return maps.Clone(l.rec.attrs)
	}
	w.t.Fatal("no dialog")
	return nil
}

// A document may name several sessions: those that a call came from or goes to as
// well. The attributes are of the one that the dialog's streams belong to, whatever
// the order, and telling the same again is no news.
func TestAttrsOfSeveralSessions(t *testing.T) {
	streams := []string{"s1 1 S2 p1 " + carrierAOR, "s2 2 S2 p2 " + agentAOR}
	for name, sessions := range map[string][]string{"first": {"S2", "S1"}, "last": {"S1", "S2"}, "middle": {"S1", "S2", "S3"}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(w *bench) {
				document := told(sessions, streams...)
				for _, s := range sessions {
					document = strings.Replace(document, `<session session_id="`+s+`"/>`,
						`<session session_id="`+s+`"><sipSessionID>of-`+s+`</sipSessionID><group-ref>G`+s+`</group-ref></session><group group_id="G`+s+`"/>`, 1)
				}
				c, _ := w.dial("call", dialogOf(document, "1", "2"))
				is := func(session string) {
					t.Helper()
					a := w.attrsOf()
					if a["siprec.session"] != session || a["siprec.sip_session_id"] != "of-"+session || a["siprec.group"] != "G"+session {
						t.Errorf("attributes %v, want those of %s", a, session)
					}
				}
				is("S2")
				w.want(`answered`, `stream 1 "1" external by domain sending true [`+carrierAOR+`]`, `stream 2 "2" internal by domain sending true [`+agentAOR+`]`,
					`attrs.set [siprec.group siprec.session siprec.sip_session_id]`, `agent.join 4711`)
				for range 3 {
					if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(document)); err != nil {
						t.Fatal(err)
					}
				}
				is("S2")
				w.want()

				// the streams go over to another session
				if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(strings.ReplaceAll(document, `<stream stream_id="s1" session_id="S2">`, `<stream stream_id="s1" session_id="S1">`))); err != nil {
					t.Fatal(err)
				}
				is("S1")
				if err := c.Bye(w.ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Where no stream names its session, it is the one that is associated with the
// recording session, else the first one.
func TestAttrsOfNobodysStreams(t *testing.T) {
	document := told([]string{"S1", "S2"}, "s1 1 - p1 "+carrierAOR, "s2 2 - p2 "+agentAOR)
	for _, test := range []struct{ document, want string }{
		{document, "S1"},
		{strings.Replace(document, "</recording>", `<sessionrecordingassoc session_id="S2"/></recording>`, 1), "S2"},
	} {
		inBubble(t, nil, func(w *bench) {
			c, _ := w.dial("call", dialogOf(strings.ReplaceAll(test.document, ` session_id="-"`, ""), "1", "2"))
			if a := w.attrsOf(); a["siprec.session"] != test.want {
				t.Errorf("attributes %v, want those of %s", a, test.want)
			}
			if err := c.Bye(w.ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
