package b2bua

import (
	"context"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip/siptest"
)

// known is the name of a dialog as the agent that has this end of it knows it, with
// its own tag as to-tag.
func known(c *siptest.Call) string {
	id, tags, _ := strings.Cut(c.Dialog(), ";to-tag=")
	remote, local, _ := strings.Cut(tags, ";from-tag=")
	return id + ";to-tag=" + local + ";from-tag=" + remote
}

// TestTransferOnSockets joins two calls of agents by REFER, and takes one over by an
// INVITE with Replaces, in both modes.
func TestTransferOnSockets(t *testing.T) {
	hosts := [2]netip.Addr{media.External: netip.MustParseAddr("127.0.0.1"), media.Internal: netip.MustParseAddr("127.0.0.2")}
	for name, edit := range map[string]func(*Config){"transparent": nil, "hidden": hiding} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			w := newSockets(t, "udp", hosts, edit)
			e1, i1 := w.call(ctx, media.External, siptest.CallOptions{})
			i2, e2 := w.call(ctx, media.Internal, siptest.CallOptions{})
			target := "sip:agent@" + w.ours[media.Internal].String() // the Contact of e2 as i2 sees it
			if err := i1.Refer(ctx, target+"?Replaces="+url.QueryEscape(i2.Dialog())); err != nil {
				t.Fatal(err)
			}
			refer := last(t, ctx, e1, "REFER")
			uri, query, _ := strings.Cut(siptest.URI(refer.Get("Refer-To")), "?Replaces=")
			replaces, err := url.PathUnescape(query)
			if err != nil || uri != w.agents[media.External].URI() || replaces != known(e2) {
				t.Errorf("Refer-To %s\nwant %s?Replaces= %s", refer.Get("Refer-To"), w.agents[media.External].URI(), known(e2))
			}
			if err := e1.Notify(ctx, "SIP/2.0 200 OK"); err != nil {
				t.Error(err)
			}
			if m := last(t, ctx, i1, "NOTIFY"); string(m.Body) != "SIP/2.0 200 OK\r\n" {
				t.Errorf("NOTIFY %q", m.Body)
			}
			e3, i3 := w.call(ctx, media.External, siptest.CallOptions{Headers: []siptest.Header{{Name: "Replaces", Value: e1.Dialog()}}})
			requests := w.agents[media.Internal].Requests()
			if got := requests[len(requests)-1].Get("Replaces"); got != known(i1) {
				t.Errorf("Replaces %s, want %s", got, known(i1))
			}
			for _, c := range []*siptest.Call{i1, e2, i3} {
				if err := c.Bye(ctx); err != nil {
					t.Error(err)
				}
			}
			for _, c := range []*siptest.Call{e1, i2, e3} {
				select {
				case <-c.Done():
				case <-ctx.Done():
					t.Error("a call goes on")
				}
			}
		})
	}
}

// last waits for a request of a call.
func last(t *testing.T, ctx context.Context, c *siptest.Call, method string) *siptest.Message {
	t.Helper()
	for n := 1; ; n++ {
		if err := c.AwaitRequests(ctx, n); err != nil {
			t.Fatalf("no %s: %v", method, err)
		}
		if m := c.Requests()[n-1]; m.Method == method {
			return m
		}
	}
}
