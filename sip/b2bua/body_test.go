package b2bua

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/sip"
)

// TestBodiesPass sends bodies in an INVITE and back in its 200: beside the addresses
// of the description not a byte may change.
func TestBodiesPass(t *testing.T) {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	isup := "Content-Type: application/isup;base=itu-t92+;version=itu-t\r\nContent-Disposition: signal;handling=optional\r\n\r\n" + string(binary)
	for name, test := range map[string]struct{ kind, before, after string }{
		"isup":   {"multipart/mixed;boundary=x", "preamble\r\n--x\r\nContent-Type: application/sdp\r\n\r\n", "\r\n--x\r\n" + isup + "\r\n--x--\r\nepilogue"},
		"gtd":    {`multipart/mixed; boundary="u:n=i"`, "--u:n=i\r\nContent-Type: application/gtd\r\n\r\nIAM,\r\nPRN,isdn*,,NET5*,\r\n--u:n=i\r\nContent-Type:application/sdp\r\n\r\n", "\r\n--u:n=i--"},
		"qsig":   {"multipart/mixed;boundary=q", "--q\r\nContent-Type: application/qsig\r\nContent-Transfer-Encoding: binary\r\n\r\n" + string(binary) + "\r\n--q\r\nContent-Type: application/sdp\r\nContent-Disposition: session;handling=required\r\n\r\n", "\r\n--q--\r\n"},
		"pidf":   {"multipart/related;boundary=p;start=x", "--p\r\nContent-ID: <x>\r\nContent-Type: application/sdp\r\n\r\n", "\r\n--p\r\nContent-Type: application/pidf+xml\r\n\r\n<presence><gp:geopriv xmlns:gp='x'>\t52.5 13.4 </gp:geopriv></presence>\r\n--p--\r\n"},
		"nested": {"multipart/mixed;boundary=o", "--o\r\n" + isup + "\r\n--o\r\nContent-Type: multipart/alternative;boundary=i\r\n\r\n--i\r\nContent-Type: application/sdp\r\n\r\n", "\r\n--i--\r\n--o--\r\n"},
		"plain":  {"application/sdp", "", ""},
	} {
		inBubble(t, nil, func(w *bench) {
			body := test.before + sdpOf(carrier.Addr(), 7000) + test.after
			a := begin(w.a, outside, name, body, "Content-Type: "+test.kind, "MIME-Version: 1.0")
			w.a.want("100")
			p := w.p.take(inside)
			want := test.before + strings.ReplaceAll(strings.Replace(sdpOf(carrier.Addr(), 7000), "c=IN IP4 192.0.2.66", "c=IN IP4 10.0.0.1", 1), "7000", "20000") + test.after
			if got := string(p.invite.Body); got != want {
				t.Errorf("%s:\n%q\nwant\n%q", name, got, want)
			}
			answer := test.before + sdpOf(pbx.Addr(), 8000) + test.after
			w.p.reply(p.invite, 200, "pbx", []string{w.p.contact(), "Content-Type: " + test.kind}, answer)
			ok := w.a.want("200")
			want = test.before + strings.NewReplacer("c=IN IP4 10.0.0.66", "c=IN IP4 192.0.2.1", "audio 8000", "audio 20000").Replace(sdpOf(pbx.Addr(), 8000)) + test.after
			if got := string(ok.Body); got != want {
				t.Errorf("%s, answer:\n%q\nwant\n%q", name, got, want)
			}
			w.acked(a, p, ok)
			w.hangUp(a)
			if got := w.obs.log(0); strings.Count(got, "stream ") != 2 {
				t.Errorf("%s: told\n%s", name, got)
			}
		})
	}
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompressedDescription(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "zip", zipped(t, sdpOf(carrier.Addr(), 7000)), "Content-Type: application/sdp", "Content-Encoding: gzip")
		w.a.want("100")
		p := w.p.take(inside)
		r, err := gzip.NewReader(bytes.NewReader(p.invite.Body))
		if err != nil || p.invite.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%v in\n%s", err, p.invite.Append(nil))
		}
		if text, err := io.ReadAll(r); err != nil || !strings.Contains(string(text), "c=IN IP4 10.0.0.1\r\n") {
			t.Errorf("%v:\n%s", err, text)
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.acked(a, p, w.a.want("200"))
		// What is no description of this session, or of an unknown coding, passes.
		for _, head := range [][]string{
			{"Content-Type: application/sdp", "Content-Encoding: exotic"},
			{"Content-Type: application/sdp", "Content-Encoding: gzip"},
			{"Content-Type: application/sdp", "Content-Disposition: early-session"},
			{"Content-Type: application/vnd.unknown"},
		} {
			a.send("UPDATE", append(head, w.a.contact()), "\x00\x01 no description \xff")
			m := w.p.want("UPDATE")
			if string(m.Body) != "\x00\x01 no description \xff" {
				t.Errorf("%v: %q", head, m.Body)
			}
			w.p.reply(m, 200, "", []string{w.p.contact()}, "")
			w.a.want("200 UPDATE")
		}
		w.hangUp(a)
	})
}

func FuzzDescription(f *testing.F) {
	f.Add("application/sdp", "gzip", "", []byte("\x1f\x8b"))
	f.Add("multipart/mixed;boundary=b", "deflate", "session", []byte("x\x9c"))
	f.Add("application/sdp", "", "early-session", []byte("v=0\r\n"))
	f.Fuzz(func(t *testing.T, kind, coding, disposition string, body []byte) {
		m := &sip.Message{Method: sip.Invite, Body: body}
		m.Add("Content-Type", kind)
		m.Add("Content-Encoding", coding)
		m.Add("Content-Disposition", disposition)
		got, replace, ok := description(m)
		if !ok {
			return
		}
		if len(got) == 0 || len(got) > max(inflatedBytesMax, len(body)) || len(replace([]byte("v=0\r\n"))) == 0 {
			t.Errorf("%d bytes of %q", len(got), body)
		}
	})
}
