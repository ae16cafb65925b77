package siprec

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// Clients get receiver reports whose figures are true, plain and protected, on one port
// and on two, and a farewell.
func TestReports(t *testing.T) {
	for _, c := range []struct{ mux, secure bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("mux %v, SRTP %v", c.mux, c.secure), func(t *testing.T) {
			inBubble(t, func(cfg *Config) {
				if c.secure {
					s := &srtp.Config{}
					s.Sides[media.External].Policy = srtp.Required
					cfg.Sources[0].SRTP = s
				}
			}, func(w *bench) { speakReported(w, c.mux, c.secure) })
		})
	}
}

func speakReported(w *bench, mux, secure bool) {
	t := w.t
	peer, err := siptest.NewReported(func(a netip.AddrPort) (siptest.Conn, error) { return w.net.Listen(a) }, clientAddr.Addr(), mux, secure)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := peer.Close(); err != nil {
			t.Error(err)
		}
	}()
	call, err := w.src.NewDialog("reported", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	offer := "v=0\r\no=- 1 1 IN IP4 10.0.0.66\r\ns=-\r\nc=IN IP4 10.0.0.66\r\nt=0 0\r\n" + peer.Line()
	if _, err := call.Invite(w.ctx, "application/sdp", []byte(offer), nil); err != nil {
		t.Fatal(err)
	}
	if err := peer.Answered(call.Answer(), 0); err != nil {
		t.Fatal(err)
	}
	for i := range 1500 { // 30 s
		if i%250 == 100 {
			if err := peer.SenderReport(); err != nil {
				t.Fatal(err)
			}
		}
		if err := peer.Send(i%20 == 7); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	list, bye, err := peer.Receipts()
	if err != nil || bye || len(list) < 5 || len(list) > 13 {
		t.Fatalf("%d reports, farewell %v: %v", len(list), bye, err)
	}
	last := list[len(list)-1]
	if b := last.Block; b.LastSenderReport == 0 || b.FractionLost < 9 || b.FractionLost > 16 || b.Jitter > 8 || last.CNAME != list[0].CNAME || last.SSRC != list[0].SSRC {
		t.Errorf("the last of them: %+v", last)
	}
	time.Sleep(30 * time.Second) // silence: reports go on, and are empty
	quiet, _, err := peer.Receipts()
	if n := len(quiet) - len(list); err != nil || n < 3 || quiet[len(quiet)-1].Block.SSRC != 0 {
		t.Errorf("%d reports in silence, %v, the last %+v", n, err, quiet[len(quiet)-1])
	}
	if err := call.Bye(w.ctx); err != nil {
		t.Error(err)
	}
	w.settle()
	if _, bye, err := peer.Receipts(); !bye || err != nil {
		t.Errorf("a farewell: %v, %v", bye, err)
	}
}
