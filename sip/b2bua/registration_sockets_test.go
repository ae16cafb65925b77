package b2bua

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siptest"
)

// readMessage reads one message of a connection.
func readMessage(t *testing.T, c net.Conn) *sip.Message {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var data []byte
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("nothing on the phone's connection: %v", err)
		}
		if data = append(data, buf[:n]...); len(strings.TrimSpace(string(data))) == 0 {
			continue
		}
		if m, _, err := sip.Parse(data, true); err == nil {
			return m
		}
	}
}

// TestPhoneOnTCP calls a phone whose Contact leads nowhere on the connection on which
// it registered, and not when that is gone.
func TestPhoneOnTCP(t *testing.T) {
	hosts := [2]netip.Addr{media.External: netip.MustParseAddr("127.0.0.1"), media.Internal: netip.MustParseAddr("127.0.0.2")}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	w := newSockets(t, "tcp", hosts, func(cfg *Config) {
		cfg.Trunks[0].Registrations = sip.RegistrationsContact
		cfg.Trunks[0].Sides[media.Internal].NextHops = nil
	})
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: hosts[media.Internal].AsSlice()}}
	phone, err := from.DialContext(ctx, "tcp", w.ours[media.Internal].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = phone.Close() }()
	fmt.Fprintf(phone, "REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/TCP 10.9.9.9:5;branch=z9hG4bKr;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:ann@pbx.example>;tag=1\r\nTo: <sip:ann@pbx.example>\r\nCall-ID: reg\r\nCSeq: 1 REGISTER\r\n"+
		"Contact: <sip:ann@10.9.9.9:5;transport=tcp;ob>;reg-id=1\r\nSupported: outbound\r\nContent-Length: 0\r\n\r\n")
	if res := readMessage(t, phone); res.Status == 0 {
		t.Fatalf("got\n%s", res.Append(nil))
	}
	requests := w.agents[media.External].Requests()
	reg := requests[len(requests)-1]
	if !strings.HasSuffix(reg.Get("Contact"), ";reg-id=1") {
		t.Errorf("Contact %s", reg.Get("Contact"))
	}
	called := func(answer func()) int {
		t.Helper()
		done := make(chan error, 1)
		go func() {
			_, err := w.agents[media.External].Call(ctx, siptest.URI(reg.Get("Contact")), w.ours[media.External], siptest.CallOptions{})
			done <- err
		}()
		answer()
		err := <-done
		var refused *siptest.RejectedError
		if !errors.As(err, &refused) {
			t.Fatalf("the call: %v", err)
		}
		return refused.Response.Code
	}
	got := called(func() {
		m := readMessage(t, phone)
		if m.Method != sip.Invite || m.URI != "sip:ann@10.9.9.9:5;transport=tcp;ob" {
			t.Errorf("the phone gets\n%s", m.Append(nil))
		}
		res := sip.ResponseTo(m, 486, "Busy Here")
		res.Set("To", m.Get("To")+";tag=p")
		if _, err := phone.Write(res.Append(nil)); err != nil {
			t.Error(err)
		}
	})
	if got != 486 {
		t.Errorf("the call gets %d, want 486 of the phone", got)
	}
	if err := phone.Close(); err != nil {
		t.Fatal(err)
	}
	if got := called(func() {}); got != 480 {
		t.Errorf("without its connection the call gets %d", got)
	}
}
