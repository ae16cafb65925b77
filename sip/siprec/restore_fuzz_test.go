package siprec

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/sip/journal/journaltest"
)

// FuzzRestore damages the entry of one recording session in the journal: with patch in
// place of cut bytes from at on, or in place of all of it. The other session goes on, and
// the damaged one goes on, is lost and told so, or is over.
func FuzzRestore(f *testing.F) {
	f.Add(uint16(0), uint16(0), []byte(nil), false)
	f.Add(uint16(900), uint16(1), []byte("7"), true)
	for _, text := range []string{
		``, `{`, `null`, `[]`, `{"SIPREC":1}`, `{"SIPREC":1,"Source":"sbc","Known":null,"Legs":[null]}`, `{"SIPREC":2,"Source":"sbc","Known":{},"Legs":[{"Lines":[{"Sec":{}}]}]}`,
		`{"SIPREC":1,"Source":"sbc","Known":{},"Legs":[{"ID":18446744073709551615,"Invite":"INVITE sip:x SIP/2.0\r\n\r\n"}]}`,
	} {
		f.Add(uint16(0), uint16(65535), []byte(text), false)
	}
	for at := uint16(0); at < 4000; at += 97 {
		for _, patch := range []string{`9999999999`, `null`, `"`, `-1`, "\x00", `\r\n`} {
			f.Add(at, uint16(3), []byte(patch), at%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, at, cut uint16, patch []byte, secure bool) {
		damagedRestore(t, secure, func(state []byte) []byte {
			from := min(int(at), len(state))
			return slices.Concat(state[:from], patch, state[min(from+int(cut), len(state)):])
		})
	})
}

// damagedRestore lets two sessions begin, damages the entry of the second one, and goes on.
func damagedRestore(t *testing.T, secure bool, damage func([]byte) []byte) {
	j := &journaltest.Mem{}
	edit := journalling(j)
	d := plainDialog()
	if secure {
		edit, d = securing(j, 0, true), sdesDialog()
	}
	inBubble(t, edit, func(w *bench) {
		good, _ := w.dial("the-good-one", d)
		w.settle()
		before := w.obs.sessions[0].ID
		bad := d
		bad.Body = strings.ReplaceAll(bad.Body, idSession, "b3RoZXItc2Vzc2lvbi0tLQ==")
		w.dial("the-bad-one", bad)
		w.settle()
		name := w.obs.sessions[1].ID
		var made []byte
		_, restored := w.killed(j, func(c *Config, states map[string][]byte) {
			if secure {
				securing(j, 1, true)(c)
			}
			made = damage(states[name])
			states[name] = made
		})
		goesOn := slices.Contains(restored.Sessions, name)
		switch {
		case !slices.Contains(restored.Sessions, before):
			if !bytes.Contains(made, []byte(":20000")) && !bytes.Contains(made, []byte("the-good-one")) { // it claims what is of the other
				t.Errorf("a damaged entry cost another session: %+v", restored)
			}
		case goesOn && restored.Lost > 0, len(restored.Sessions)+restored.Lost > 2:
			t.Errorf("restored %+v", restored)
		default:
			if err := good.Bye(w.ctx); err != nil {
				t.Error(err)
			}
		}
		if _, there := j.States()[name]; there && !goesOn && restored.Lost > 0 && len(restored.Sessions) > 0 {
			t.Error("an entry that is of no use stays")
		}
	})
}
