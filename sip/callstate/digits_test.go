package callstate

import (
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

func TestDigitOf(t *testing.T) {
	const relay, plain = "Content-Type: application/dtmf-relay", "c: Application/DTMF;x=y"
	for _, tt := range []struct {
		name, method, kind, body string
		want                     byte
		down                     time.Duration
	}{
		{"relay", "INFO", relay, "Signal=5\r\nDuration=160\r\n", '5', 160 * time.Millisecond},
		{"blanks and other cases", "INFO", relay, " SIGNAL = * \r\nduration= 250 \n", '*', 250 * time.Millisecond},
		{"the other order, no end of line", "INFO", relay, "Duration=100\nSignal=#", '#', 100 * time.Millisecond},
		{"a letter", "INFO", relay, "Signal=b\r\n", 'B', 0},
		{"number of an event", "INFO", relay, "Signal=11\r\n", '#', 0},
		{"the last event", "INFO", relay, "Signal=15\r\n", 'D', 0},
		{"hook flash", "INFO", relay, "Signal=16\r\n", 0, 0},
		{"no digit", "INFO", relay, "Signal=x\r\nDuration=1", 0, 0},
		{"two digits", "INFO", relay, "Signal=55\r\n", 0, 0},
		{"a sign of another script", "INFO", relay, "Signal=ı\r\n", 0, 0},
		{"no signal", "INFO", relay, "Duration=160\r\n", 0, 0},
		{"duration no number", "INFO", relay, "Signal=5\r\nDuration=-1", '5', 0},
		{"duration beyond all", "INFO", relay, "Signal=5\r\nDuration=99999999999999999999", '5', downMax},
		{"empty", "INFO", relay, "", 0, 0},
		{"too long", "INFO", relay, "Signal=5\r\n" + strings.Repeat("\r\n", digitBytesMax), 0, 0},
		{"bare", "INFO", plain, "7\r\n", '7', 0},
		{"bare star", "INFO", plain, "*", '*', 0},
		{"bare, as lines", "INFO", plain, "Signal=9\r\nDuration=80", '9', 80 * time.Millisecond},
		{"bare, empty", "INFO", plain, "\r\n", 0, 0},
		{"another type", "INFO", "Content-Type: application/dtmf-relays", "Signal=5", 0, 0},
		{"compressed", "INFO", relay + "\r\nContent-Encoding: gzip", "Signal=5", 0, 0},
		{"another method", "MESSAGE", relay, "Signal=5", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := request(t, tt.method, tt.body, tt.kind)
			got, ok := DigitOf(m)
			if ok != (tt.want != 0) || got.Digit != tt.want || ok && got.Down != tt.down {
				t.Errorf("%q for %v, %v; want %q for %v", got.Digit, got.Down, ok, tt.want, tt.down)
			}
			signals, refused := mustNew(t, Config{InfoSignals: true, InfoFrom: FromAny}).Dialog("t", m, media.External).Request(m, media.External, t0)
			if len(signals)+refused > 0 {
				t.Errorf("it is %d signals, %d refused", len(signals), refused)
			}
		})
	}
}

// FuzzDigitOf: what is taken for a digit is one, and lasts no longer than believed.
func FuzzDigitOf(f *testing.F) {
	f.Add(typeRelay, []byte("Signal=5\r\nDuration=160\r\n"))
	f.Add(typeRelay, []byte("Signal= 11\nSignal=2\nDuration=9999999999999"))
	f.Add(typeDTMF, []byte("*"))
	f.Add(typeDTMF, []byte("\xff=\x00\r"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		m := &sip.Message{Method: methodInfo, Body: body, Headers: []sip.Header{{Name: "Content-Type", Value: kind}}}
		d, ok := DigitOf(m)
		if ok != strings.Contains("0123456789*#ABCD", string(rune(d.Digit))) || d.Down < 0 || d.Down > downMax {
			t.Fatalf("%q of %q: %+v, %v", body, kind, d, ok)
		}
	})
}
