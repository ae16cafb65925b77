package config

import (
	"strings"
	"testing"
	"time"
)

func TestSIPREC(t *testing.T) {
	c := mustParse(t, `
siprec:
  listen: ["udp://0.0.0.0:5070"]
  sources:
    - name: sbc-1
      peers: [198.51.100.7]
      internal_domains: [pbx.example]
      sides: [{aor: "sip:*@agents.example", side: internal}, {value: "role=agent", side: internal}]
      join_headers: [Cisco-Guid]
      recording: {format: wav-pcmu}
`)
	if c.Relays() || len(c.SIPREC.Listen) != 1 {
		t.Errorf("%+v", c.SIPREC)
	}
	s := c.SIPREC.Sources[0]
	if s.SRTP != "off" || s.Caller != "unknown" || s.Mixed != "external" || s.JoinWindow != 10*time.Second || s.Recording.SampleRate != 8000 || !s.Recording.Enabled || len(s.Sides) != 2 {
		t.Errorf("%+v", s)
	}
}

func TestSIPRECFaults(t *testing.T) {
	source := func(more string) string {
		return "siprec:\n  listen: [\"udp://0.0.0.0:5070\"]\n  sources:\n    - {name: s, peers: [192.0.2.1]" + more + "}\n"
	}
	for name, test := range map[string]struct{ text, want string }{
		"nobody":      {"siprec: {}\n", "siprec.sources: there are neither sources nor trunks"},
		"no listener": {"siprec: {sources: [{name: s, peers: [192.0.2.1]}]}\n", "siprec.listen: the key is missing, and there are sources"},
		"no peers":    {"siprec: {listen: [\"udp://0.0.0.0:5070\"], sources: [{name: s}]}\n", "siprec.sources[0].peers: the key is missing"},
		"taken":       {minimal + strings.Replace(source(""), "5070", "5060", 1), "siprec.listen[0]: 0.0.0.0:5060 is taken by sip.listen[0]"},
		"among media": {strings.Replace(source(""), "5070", "20000", 1), "siprec.listen[0]: port 20000 lies among media.ports"},
		"tls":         {strings.Replace(source(""), "udp", "tls", 1), "siprec.listen[0]: tls:// needs a certificate"},
		"name":        {minimal + strings.Replace(source(""), "name: s", "name: a", 1), `siprec.sources[0].name: "a" is the name of trunks[0]`},
		"rule":        {source(", sides: [{side: internal}]"), "siprec.sources[0].sides[0]: nothing says whom it is about"},
		"value":       {source(", sides: [{value: x, side: internal}]"), `sides[0].value: "x" is no name with a pattern`},
		"beep":        {source(", recording: {beep: {enabled: true}}"), "siprec.sources[0].recording.beep: nothing can be mixed into calls"},
		"preroll":     {source(", recording: {consent: {preroll: true}}"), "siprec.sources[0].recording.consent.preroll: there is no consent"},
		"header":      {source(", join_headers: [\"a b\"]"), `"a b" is no name of a header field`},
		"suites":      {source(", srtp_method: dtls, srtp_suites: [AES_256_CM_HMAC_SHA1_80]"), "siprec.sources[0].srtp_suites: none of them can be used"},
	} {
		_, faults := Parse("t.yaml", []byte(test.text))
		if len(faults) != 1 || !strings.Contains(faults[0].String(), test.want) {
			t.Errorf("%s: %v, want %s", name, faults, test.want)
		}
	}
}
