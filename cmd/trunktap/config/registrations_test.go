package config

import (
	"strings"
	"testing"
)

func TestRegistrations(t *testing.T) {
	phones := "trunks:\n  - name: phones\n    role: phones\n    registrations: contact\n    external: {next_hops: [\"sip:10.0.0.5\"]}\n    internal: {peers: [10.1.0.0/16]}\n"
	c := mustParse(t, phones)
	if s := &c.Trunks[0]; s.Registrations != "contact" || len(s.Internal.NextHops) != 0 || len(s.Internal.Peers) != 1 {
		t.Errorf("got %+v", s)
	}
	for _, x := range []struct{ text, want string }{
		{strings.Replace(phones, "peers: [10.1.0.0/16]", "srtp: off", 1), "6:15: trunks[0].internal.peers: the key is missing, and there are no next_hops"},
		{strings.Replace(phones, "contact", "pass", 1), "trunks[0].internal.next_hops: the key is missing"},
		{strings.Replace(phones, "next_hops: [\"sip:10.0.0.5\"]", "peers: [10.0.0.5]", 1), "trunks[0].external.next_hops: the key is missing"},
		{strings.Replace(phones, "contact", "outbound", 1), "trunks[0].registrations"},
	} {
		_, faults := Parse("t.yaml", []byte(x.text))
		if len(faults) == 0 || !strings.Contains(faults[0].String(), x.want) {
			t.Errorf("%v, want %s", faults, x.want)
		}
	}
}
